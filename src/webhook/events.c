/*
 * events.c
 *	  A sender's own body, in which a map of the connector's config finds events.
 *
 *	map (sql/75_webhook_map.sql) -> ask the upstream for records without data
 *	  -> take the locks -> for each event: seen before? -> the record (webhook/record.c)
 *
 * - All events of a body are one transaction, in the order of types and ids; those of a record
 *   in the order that the body has.
 * - Nothing is locked while the upstream is asked, so what it says of a record is as new as the
 *   question, and gives way to what was observed later.
 * - Of bodies with several events one is written at a time, and nobody else changes matches of
 *   their types meanwhile: each event locks its record and then users, so two that meet the same
 *   in two orders would wait for each other.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "record/changes.h"
#include "source/one.h"
#include "webhook/verify.h"
#include "webhook/webhook.h"

typedef struct WebhookEvent
{
	Webhook		  hook; /* as of the delivery, with the body of the event */
	WebhookRecord record;
	Slice		  id; /* of the event; NULL data where there is none */
	bool		  known;
} WebhookEvent;

static bool
events_same_record(const WebhookRecord *a, const WebhookRecord *b)
{
	return strcmp(a->id, b->id) == 0 && VARSIZE_ANY_EXHDR(a->type) == VARSIZE_ANY_EXHDR(b->type) &&
		memcmp(VARDATA_ANY(a->type), VARDATA_ANY(b->type), VARSIZE_ANY_EXHDR(a->type)) == 0;
}

/* The events of a body, in the order in which they are processed. */
static WebhookEvent *
events_map(const Webhook *hook, Jsonb *map, int *n)
{
	static DbQuery query = {"select e.event, e.event_id from _flohsync.webhook_events($1, $2) e",
							2,
							{JSONBOID, JSONBOID}};
	Datum		   v[2] = {JsonbPGetDatum(map), JsonbPGetDatum(hook->body)};
	WebhookEvent  *events;

	*n = (int) db_execute(&query, v, NULL);
	events = palloc0(sizeof(WebhookEvent) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		bool  isnull;
		Datum event = db_value(i, 1, &isnull);
		char *id = db_text(i, 2);

		events[i].hook = *hook;
		events[i].hook.body = isnull ? NULL : DatumGetJsonbPCopy(event);
		if (id)
			events[i].id = (Slice){id, (int) strlen(id)};
	}
	for (int i = 0; i < *n; i++)
	{
		events[i].record.hook = &events[i].hook;
		events[i].record.action = WEBHOOK_NO_ACTION;
		if (events[i].hook.body)
			webhook_read_record(&events[i].record);
	}
	return events;
}

/* Is the record to be asked for? */
static bool
events_need_record(const WebhookEvent *event)
{
	return !event->known && event->record.action <= WEBHOOK_UPDATED &&
		webhook_member(event->hook.body, "data") == NULL;
}

/*
 * Marks the events that were seen before, so that nobody has the upstream asked by sending a
 * delivery again; true: the whole delivery was.
 */
static bool
events_find_known(const Webhook *hook, WebhookEvent *events, int n)
{
	static DbQuery query = {
		"select u.i::pg_catalog.int4 from pg_catalog.unnest($2) with ordinality u(id, i)"
		" where exists (select from _flohsync.webhook_delivery d where d.connector_id = $1"
		" and d.webhook_id = u.id)",
		2,
		{UUIDOID, TEXTARRAYOID}};
	Slice *ids = palloc0(sizeof(Slice) * (n + 1));
	Datum  v[2] = {hook->connector};
	uint64 found;
	bool   all = false;

	ids[0] = hook->id;
	for (int i = 0; i < n; i++)
		ids[i + 1] = events[i].id;
	for (int i = 0; i <= n; i++)
		if (ids[i].data == NULL)
			ids[i] = (Slice){"", 0};
	v[1] = db_text_array(ids, n + 1);
	found = db_execute(&query, v, NULL);
	for (uint64 k = 0; k < found; k++)
	{
		int64 i = db_int64(k, 1, 1) - 1;

		if (i == 0)
			all = true;
		else
			events[i - 1].known = true;
	}
	return all;
}

/* Asks the upstream for the record of an event. */
static void
events_fetch(WebhookRecord *r)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "flohsync webhook record",
												  ALLOCSET_DEFAULT_SIZES);
	char		 *connector = DatumGetCString(DirectFunctionCall1(uuid_out, r->hook->connector));
	char		 *type = text_to_cstring(r->type);
	SourceOne	  one;

	MemoryContextSwitchTo(context);
	source_fetch_one(connector, type, r->id, &one);
	MemoryContextSwitchTo(caller);
	if (!one.supported)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "the webhook has no data, and the connector cannot be asked for one record of type \"%s\"",
				 clean(type)),
			 errdetail("Nothing was changed."),
			 errhint(
				 "Say in \"data\" of config.webhook.map where the data is, or how to ask for one record: a command get and the type, or \"get\" in the definition.")));
	if (one.problem && error_class_entries[one.error_class].of_records)
		webhook_refuse("data", clean(one.problem), "The record is as the upstream has it.");
	if (one.problem)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not fetch %s \"%s\": %s", clean(type), clean(r->id),
						clean(one.problem)),
				 one.error_class ? errdetail("Error class: %s. Nothing was changed.",
											 error_class_name(one.error_class)) :
								   errdetail("Nothing was changed."),
				 errhint("The delivery may be sent again.")));
	r->fetched = true;
	r->whole = one.record ? pstrdup(one.record) : NULL;
	r->asked_at = one.asked_at;
	MemoryContextDelete(context);
}

/* Asks for the records of all events that have no data: once for each record. */
static void
events_fetch_all(WebhookEvent *events, int n)
{
	const WebhookRecord *last = NULL;

	for (int i = 0; i < n; i++)
	{
		WebhookRecord *r = &events[i].record;

		if (!events_need_record(&events[i]))
			continue;
		CHECK_FOR_INTERRUPTS();
		if (last && events_same_record(last, r))
		{
			r->fetched = true;
			r->whole = last->whole;
			r->asked_at = last->asked_at;
		}
		else
			events_fetch(r);
		last = r;
	}
}

/* What bodies with several events take before the first is stored. */
static void
events_hold_matchings(const Webhook *hook, const WebhookEvent *events, int n)
{
	static DbQuery query = {"select _flohsync.hold_matchings($1, $2)", 2, {UUIDOID, TEXTARRAYOID}};
	Slice		  *types = palloc(sizeof(Slice) * n);
	int			   ntypes = 0;
	Datum		   v[2] = {hook->connector};

	for (int i = 0; i < n; i++)
		if (events[i].record.action != WEBHOOK_NO_ACTION)
			types[ntypes++] = (Slice){VARDATA_ANY(events[i].record.type),
									  (int) VARSIZE_ANY_EXHDR(events[i].record.type)};
	if (ntypes < 2)
		return;
	v[1] = db_text_array(types, ntypes);
	db_execute(&query, v, NULL);
}

/* What came of one event. */
static const char *
events_store(WebhookEvent *event, bool *changed)
{
	*changed = false;
	if (event->record.action == WEBHOOK_NO_ACTION)
		return "ignored";
	if (event->known || !webhook_note_id(&event->hook, event->id))
		return "duplicate";
	return webhook_store_record(&event->record, changed);
}

/* webhook_take_events takes a webhook whose body is the sender's. */
char *
webhook_take_events(const Webhook *hook, Jsonb *map)
{
	int			  n;
	WebhookEvent *events = events_map(hook, map, &n);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "flohsync webhook event",
												  ALLOCSET_DEFAULT_SIZES);
	const char	 *action = "ignored";
	bool		  changed = false;
	bool		  ask = false;

	for (int i = 0; i < n; i++)
		ask |= events_need_record(&events[i]);
	if (ask)
	{
		if (events_find_known(hook, events, n))
			return webhook_answer("duplicate", false);
		events_fetch_all(events, n);
	}
	changes_hold_connector(hook->connector);
	if (!webhook_note_id(hook, hook->id))
		return webhook_answer("duplicate", false);
	webhook_forget();
	events_hold_matchings(hook, events, n);
	for (int i = 0; i < n; i++)
	{
		bool one;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		action = events_store(&events[i], &one);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
		changed |= one;
	}
	MemoryContextDelete(context);
	if (n <= 1)
		return webhook_answer(action, changed);
	return psprintf("{\"accepted\": true, \"events\": %d, \"changed\": %s}", n,
					changed ? "true" : "false");
}
