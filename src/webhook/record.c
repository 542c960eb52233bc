/*
 * record.c
 *	  What a webhook says of a record, stored: the part of webhook/webhook.c that
 *	  begins when it is known to be about one.
 *
 *	created, updated: wait for matching -> lock -> merge -> in scope? -> apply -> post-sync of the record
 *	deleted:          sql/74_webhook
 *	without data:     the record was asked for (webhook/events.c); it is whole, as one of a page,
 *	                  and as new as when it was asked for
 *
 * - Only keys that are in the data change: the rest is what is stored, which is
 *   locked from before it is read.
 * - Of an event that comes late, the keys that no later one has named count.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "page/filter.h"
#include "record/apply.h"
#include "record/merge.h"
#include "record/stored.h"
#include "record/write.h"
#include "webhook/keys.h"
#include "webhook/verify.h"
#include "webhook/webhook.h"

#define WEBHOOK_ROUNDS 20

static Slice
webhook_slice(const char *text)
{
	return (Slice){text, text ? (int) strlen(text) : 0};
}

/*
 * A value of the data as JSON.  Of scalars, no record has any but texts and null: what
 * stands for the others is none either.
 */
static Slice
webhook_json(const JsonbValue *value)
{
	StringInfoData text;

	initStringInfo(&text);
	if (value->type == jbvBinary)
		(void) JsonbToCString(&text, value->val.binary.data, value->val.binary.len);
	else if (value->type == jbvString)
		escape_json(&text, pnstrdup(value->val.string.val, value->val.string.len));
	else
		appendStringInfoString(&text, value->type == jbvNull ? "null" : "0");
	return (Slice){text.data, text.len};
}

/* A text of the record: what the data says, or else what is stored. */
static MergeValue
webhook_text(Jsonb *data, const char *key, const char *stored)
{
	JsonbValue *given = getKeyJsonValueFromContainer(&data->root, key, strlen(key), NULL);

	return given ? (MergeValue){webhook_json(given), true} : (MergeValue){webhook_slice(stored)};
}

/* Of the stored attributes, those of some names; no data when there are none. */
static Slice
webhook_kept_attributes(const char *stored, const WebhookKept *kept)
{
	Jsonb		  *attributes = stored ?
				DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(stored))) :
				NULL;
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; attributes != NULL && i < kept->n; i++)
	{
		const Slice *name = &kept->names[i];
		JsonbValue	*value = getKeyJsonValueFromContainer(&attributes->root, name->data, name->len,
														  NULL);
		Slice		 json;

		if (value == NULL)
			continue;
		json = value->type == jbvBinary || value->type == jbvString || value->type == jbvNull ?
			webhook_json(value) :
			webhook_slice(JsonbToCString(NULL, &JsonbValueToJsonb(value)->root, -1));
		appendStringInfoChar(&text, text.len == 0 ? '{' : ',');
		escape_json(&text, pnstrdup(name->data, name->len));
		appendStringInfo(&text, ":%.*s", json.len, json.data);
	}
	if (text.len == 0)
		return (Slice){NULL};
	appendStringInfoChar(&text, '}');
	return (Slice){text.data, text.len};
}

/*
 * The record as text, with the data laid over what is stored.  Attributes are
 * laid over one by one, unless the data takes all away: then those of kept stay.
 */
static char *
webhook_merge(const WebhookRecord *r, Jsonb *data, const StoredRecord *stored,
			  const WebhookKept *kept)
{
	JsonbValue	  *given = getKeyJsonValueFromContainer(&data->root, "attributes",
														strlen("attributes"), NULL);
	Slice		   attributes = webhook_slice(stored->attributes);
	StringInfoData text;

	if (given && given->type == jbvBinary && JsonContainerIsObject(given->val.binary.data))
	{
		StringInfoData both;

		initStringInfo(&both);
		appendStringInfoChar(&both, '{');
		merge_members(&both, attributes);
		merge_members(&both, webhook_json(given));
		appendStringInfoChar(&both, '}');
		attributes = (Slice){both.data, both.len};
	}
	else if (given)
		attributes = kept->n == 0 ? webhook_json(given) :
									webhook_kept_attributes(stored->attributes, kept);
	initStringInfo(&text);
	merge_write(&text, webhook_slice(r->id),
				webhook_text(data, "displayName", stored->display_name),
				webhook_text(data, "email", stored->email), attributes);
	return text.data;
}

/*
 * webhook_merge_late does the same for an event that is older than the last one
 * of the record: of its data, only what no later event has named is laid over
 * it, and is left in *data.  NULL: it does not count at all, because there is no
 * such, or because the record was observed as a whole, or deleted, since.
 */
static char *
webhook_merge_late(const WebhookRecord *r, Jsonb **data, const StoredRecord *stored)
{
	static DbQuery query = {"select where " RECORD_HAS_TOMBSTONE("$1", "$2", "$3", "$4", "$4"),
							4,
							{UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID},
							.plan_as = PLAN_BY_INDEX};
	Datum		   v[4] = {r->hook->connector, PointerGetDatum(r->type), CStringGetTextDatum(r->id),
						   TimestampTzGetDatum(r->event_at)};
	WebhookKept	   kept;

	if (stored->row.stale || stored->keys == NULL ||
		r->scope.apply.observed_at < r->scope.apply.confirmed_at)
		return NULL;
	*data = webhook_keys_late(stored->keys, *data, r->event_at, &kept);
	if (*data == NULL || db_execute(&query, v, NULL) > 0)
		return NULL;
	return webhook_merge(r, *data, stored, &kept);
}

/* Post-sync for the record; failures are recorded, not raised. */
static void
webhook_follow(const WebhookRecord *r, ApplyOutcome outcome)
{
	static DbQuery			 query = {"select _flohsync.follow_webhook($1, $2, $3)",
									  3,
									  {UUIDOID, TEXTOID, TEXTOID}};
	const ApplyChanges		*changes = &r->scope.changes;
	int						 k = outcome == APPLY_ADDED ? 0 : outcome == APPLY_UPDATED ? 1 : 2;
	static const char *const kinds[3] = {"added", "updated", "restored"};
	Datum v[3] = {UUIDPGetDatum(&changes->ids[k][0]), CStringGetTextDatum(kinds[k])};

	if (r->hindered)
		v[2] = CStringGetTextDatum(r->hindered);
	db_execute(&query, v, r->hindered ? NULL : "  n");
}

/* Waits for a matching of many, which may want the record, before that is locked. */
static void
webhook_await_matching(WebhookRecord *r)
{
	static DbQuery query = {"select _flohsync.await_matching($1, $2)", 2, {UUIDOID, TEXTOID}};
	Datum		   v[2] = {r->hook->connector, PointerGetDatum(r->type)};

	db_execute(&query, v, NULL);
	r->hindered = db_text(0, 1);
}

static bool
webhook_leave_scope(const WebhookRecord *r, const pg_uuid_t *record)
{
	static DbQuery query = {"select _flohsync.leave_scope($1, $2, $3)",
							3,
							{UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}};
	Datum		   v[3] = {UUIDPGetDatum(record), TimestampTzGetDatum(r->scope.apply.observed_at),
						   TimestampTzGetDatum(r->scope.apply.event_at)};

	db_execute(&query, v, r->scope.apply.event_at == 0 ? "  n" : NULL);
	return db_bool(0, 1);
}

static const char data_hint[] =
	"It is the current record, or the part of it that has changed: {\"displayName\": …, \"email\": …, \"attributes\": {…}}.";

/* What the webhook says of the record; raises when that cannot be used. */
static Jsonb *
webhook_data(const WebhookRecord *r)
{
	JsonbValue *value = webhook_member(r->hook->body, "data");
	Jsonb	   *data;
	JsonbValue *other;

	if (value == NULL)
		webhook_refuse("data", "is missing", data_hint);
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		webhook_refuse("data", "is not an object", data_hint);
	data = JsonbValueToJsonb(value);
	other = webhook_member(data, "externalId");
	if (other && other->type == jbvString &&
		(other->val.string.len != strlen(r->id) ||
		 memcmp(other->val.string.val, r->id, other->val.string.len) != 0))
		webhook_refuse("data.externalId", "is not the resourceId", "Omit it.");
	return data;
}

/* The record from its text; raises when it is none. */
static void
webhook_parse(WebhookRecord *r, const char *text, UpstreamPage *page)
{
	upsert_read(&r->scope, text, strlen(text), page);
	if (page->nfaults > 0)
		webhook_refuse("data", page->faults[0].message, data_hint);
}

/*
 * webhook_upsert stores what a created or updated record is now.  Only the keys
 * that are in the data change, so the stored record is locked and read first.
 * False when nothing was changed; *ignored when the news was too old, or is
 * about a record that is out of scope.
 *
 * Longer than a screen: one loop, in which the row is locked again when another has made it.
 */
bool
webhook_upsert(WebhookRecord *r, bool *ignored)
{
	Jsonb *data = r->fetched ? NULL : webhook_data(r);

	webhook_scope(r);
	if (r->followed)
		webhook_await_matching(r);
	for (int round = 0; round < WEBHOOK_ROUNDS; round++)
	{
		UpstreamPage page;
		PageCounts	 counts = {0};
		ApplyOutcome outcome = APPLY_UNDECIDED;
		StoredRecord stored;
		Jsonb		*named = data;
		bool known = stored_lock(r->hook->connector, PointerGetDatum(r->type), r->id, &stored);
		const char *text = r->fetched ? r->whole :
										webhook_merge(r, data, &stored, &(WebhookKept){0});
		TimestampTz since = DT_NOBEGIN;

		/*
		 * Now, with the row locked, and not when it came in: of two that wait
		 * for each other, neither is older.
		 */
		r->scope.apply.observed_at = r->fetched ? r->asked_at : GetCurrentTimestamp();
		if (r->event_at != 0 && !r->fetched)
			r->scope.apply.observed_at = Min(r->scope.apply.observed_at,
											 r->event_at + WEBHOOK_TOLERANCE_S * USECS_PER_SEC);
		r->scope.apply.event_at = r->fetched ? 0 : r->event_at;
		webhook_parse(r, text, &page);
		if (known && !r->fetched && r->event_at != 0 && stored.event_at > r->event_at)
		{
			text = webhook_merge_late(r, &named, &stored);
			if (text == NULL)
			{
				*ignored = true;
				return false;
			}
			webhook_parse(r, text, &page);
			/* The record is as new as it was. */
			r->scope.apply.event_at = stored.event_at;
			r->scope.apply.observed_at = Max(stored.observed_at, r->scope.apply.confirmed_at);
		}
		if (r->filtered &&
			apply_filter(&r->filter, &r->scope.apply, r->scope.parser, page.records, 1) == 0)
		{
			bool left = known && webhook_leave_scope(r, &stored.row.id);

			r->told_cache = left;
			*ignored = !left;
			return left;
		}
		/* Older events count from where the record was last seen whole. */
		if (known)
			since = Max(stored.event_at == 0 ? DT_NOBEGIN : stored.event_at,
						TIMESTAMP_NOT_FINITE(stored.observed_at) ?
							stored.observed_at :
							stored.observed_at - WEBHOOK_TOLERANCE_S * USECS_PER_SEC);
		r->scope.apply.event_keys = r->fetched ?
			NULL :
			webhook_keys_note(stored.row.stale ? NULL : stored.keys, since, named,
							  r->event_at != 0 ? r->event_at : r->hook->received_at);
		r->scope.apply.expect_absent = !known;
		r->scope.apply.stored = known ? &stored : NULL;
		upsert_apply(&r->scope, &page, &counts, &outcome);
		r->told_cache = outcome != APPLY_IGNORED;
		switch (outcome)
		{
			case APPLY_ADDED:
			case APPLY_UPDATED:
			case APPLY_RESTORED:
				if (r->followed)
					webhook_follow(r, outcome);
				return true;
			case APPLY_UNCHANGED:
				return false;
			case APPLY_IGNORED:
				*ignored = true;
				return false;
			case APPLY_UNDECIDED:
				break; /* somebody has just inserted it: merge with that */
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not store record \"%s\" because of concurrent changes", clean(r->id))));
}

/* webhook_delete removes a record; one that the upstream does not have was gone when it was asked. */
bool
webhook_delete(WebhookRecord *r, bool *ignored)
{
	static DbQuery query = {
		"select _flohsync.delete_record($1, _flohsync.check_resource_type($2), $3, $4,"
		" pg_catalog.make_interval(secs => $5))",
		5,
		{UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, FLOAT8OID}};
	static DbQuery gone = {
		"select _flohsync.delete_record($1, _flohsync.check_resource_type($2), $3, null, null, $4)",
		4,
		{UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};
	Datum v[5] = {r->hook->connector, PointerGetDatum(r->type), CStringGetTextDatum(r->id),
				  TimestampTzGetDatum(r->event_at), Float8GetDatum(WEBHOOK_TOLERANCE_S)};
	char *outcome;

	if (r->fetched)
	{
		v[3] = TimestampTzGetDatum(r->asked_at);
		db_execute(&gone, v, NULL);
	}
	else
		db_execute(&query, v, r->event_at == 0 ? "   n " : NULL);
	outcome = db_text(0, 1);
	*ignored = strcmp(outcome, "ignored") == 0;
	r->told_cache = strcmp(outcome, "removed") == 0 || strcmp(outcome, "staled") == 0;
	return r->told_cache;
}
