/*
 * sqlfn_webhook.c
 *	  SQL-callable: webhooks, once they are believed.  How those from outside
 *	  come to be is in sqlfn_webhook_receive.c.
 *
 *	receive_webhook: check the size -> secrets -> verify -> read --+
 *	handle_webhook:  find the connector ---------------------------+
 *	  -> seen before? -> no resource type: entitlement handler
 *	                  -> deleted: sql/74_webhook
 *	                  -> created, updated: lock and merge -> in scope? -> apply -> post-sync of the record
 *
 * All of it is the caller's transaction: a delivery that fails leaves no trace,
 * not even that it was seen, and may come again.
 *
 * Rights: callers need nothing but EXECUTE.  What is done runs with the rights
 * of flohsync.worker_role, like everything that workers do: an application's
 * triggers on its own users must not get those of the owner of the extension,
 * nor those of the caller.  As with SECURITY DEFINER, an error gives the
 * caller's rights back with the (sub)transaction.
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "db.h"
#include "guc.h"
#include "outbox.h"
#include "sqlfn_webhook.h"
#include "upsert.h"
#include "webhook.h"
#include "webhook_keys.h"

/* One in so many deliveries forgets what is too old. */
#define WEBHOOK_FORGET_EVERY	1000

#define WEBHOOK_ROUNDS			20

void
webhook_take_rights(WebhookRights *saved)
{
	Oid			role = db_worker_role();

	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(role, saved->context | SECURITY_LOCAL_USERID_CHANGE);
}

void
webhook_give_rights_back(const WebhookRights *saved)
{
	SetUserIdAndSecContext(saved->user, saved->context);
}

/*
 * Bodies
 */

static void webhook_refuse(const char *key, const char *problem, const char *hint) pg_attribute_noreturn();

static void
webhook_refuse(const char *key, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("webhook cannot be taken: \"%s\" %s", key, problem),
			 errdetail("Nothing was changed."),
			 errhint("%s", hint)));
}

/* The value of a key; NULL when it is absent or null. */
static JsonbValue *
webhook_member(Jsonb *body, const char *key)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&body->root, key, strlen(key), NULL);

	return value && value->type != jbvNull ? value : NULL;
}

/* The value of a key that must be a text. */
static char *
webhook_text(Jsonb *body, const char *key, const char *hint)
{
	JsonbValue *value = webhook_member(body, key);

	if (value == NULL)
		webhook_refuse(key, "is missing", hint);
	if (value->type != jbvString)
		webhook_refuse(key, "is not a text", hint);
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* An id is a text or an integer, as that of a record. */
static char *
webhook_resource_id(Jsonb *body)
{
	static const char hint[] = "It names the record: a text of 1 to 255 characters, or an integer.";
	JsonbValue *value = webhook_member(body, "resourceId");
	char	   *id;

	if (value && value->type == jbvNumeric)
	{
		id = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		if (strspn(id, "-0123456789") < strlen(id))
			webhook_refuse("resourceId", "is neither a text nor an integer", hint);
	}
	else if (value && value->type != jbvString)
		webhook_refuse("resourceId", "is neither a text nor an integer", hint);
	else
		id = webhook_text(body, "resourceId", hint);
	if (*id == '\0')
		webhook_refuse("resourceId", "is empty", hint);
	if (pg_mbstrlen(id) > FLOHSYNC_MAX_NAME_CHARS)
		webhook_refuse("resourceId", "is longer than 255 characters", hint);
	return id;
}

/* When the event happened by the upstream's clock; 0: nobody knows. */
static TimestampTz
webhook_event_at(const Webhook *hook)
{
	static const char *const keys[] = {"timestamp", "occurredAt"};
	TimestampTz at = hook->sent_at;

	for (size_t i = 0; i < lengthof(keys); i++)
	{
		JsonbValue *value = webhook_member(hook->body, keys[i]);
		Slice		text;

		if (value == NULL)
			continue;
		if (value->type == jbvString)
			text = (Slice) {value->val.string.val, value->val.string.len};
		else if (value->type == jbvNumeric)
		{
			char	   *digits = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));

			text = (Slice) {digits, strcspn(digits, ".")};
		}
		else
			text = (Slice) {"", 0};
		if (!(value->type == jbvString && webhook_time(text, &at)) && !webhook_unix_time(text, &at))
			webhook_refuse(keys[i], "is not a time", "It says when the event happened: a time of ISO 8601, such as \"2026-01-31T12:00:00Z\", or seconds or milliseconds since 1970.");
		break;
	}
	/* One from the future would keep out all that come until then. */
	return at > hook->received_at + WEBHOOK_TOLERANCE_S * USECS_PER_SEC ? 0 : at;
}

/*
 * Records
 */

typedef struct WebhookRecord
{
	const Webhook *hook;
	text	   *type;
	char	   *id;
	TimestampTz event_at;		/* 0: unknown */
	Filter		filter;
	bool		filtered;		/* there are filter rules */
	bool		followed;		/* somebody looks at records of the type: matching, a workflow */
	bool		told_cache;		/* whoever wrote the record has */
	UpsertScope scope;
} WebhookRecord;

/* What to leave out of hashes, a text[], and the filter rules; 0 when there is nothing to leave out. */
static Datum
webhook_rules(WebhookRecord *r)
{
	static DbQuery query = {
		"select " STORE_HASH_IGNORE("c") ", c.filter_rules is not null, " STORE_FILTER_COLUMNS("c")
		" from flohsync.connector_sync_config c where c.connector_id = $1 and c.resource_type = $2",
		2, {UUIDOID, TEXTOID}
	};
	Datum		v[2] = {r->hook->connector, PointerGetDatum(r->type)};
	bool		isnull;

	if (db_execute(&query, v, NULL) == 0)
		return (Datum) 0;
	r->filtered = db_bool(0, 2);
	if (r->filtered)
	{
		store_get_filter(0, 3, &r->filter, CurrentMemoryContext);
		filter_prepare(&r->filter);
	}
	return db_value(0, 1, &isnull);
}

/* Reads what the configuration says about records of the type. */
static void
webhook_scope(WebhookRecord *r)
{
	static DbQuery query = {
		"select case when c.id is null then flohsync._check_resource_type($2) end,"
		" case when c.id is not null then flohsync._is_user_type(c) or flohsync._tells_records(c) end, c.last_full_pass_at,"
		" c.hash_ignore is not null or c.filter_rules is not null"
		" from (select) one left join flohsync.connector_sync_config c on c.connector_id = $1 and c.resource_type = $2",
		2, {UUIDOID, TEXTOID}
	};
	Datum		v[2] = {r->hook->connector, PointerGetDatum(r->type)};
	bool		isnull;
	TimestampTz confirmed_at;

	db_execute(&query, v, NULL);
	r->followed = db_bool(0, 2);
	confirmed_at = DatumGetTimestampTz(db_value(0, 3, &isnull));
	if (isnull)
		confirmed_at = 0;
	upsert_scope(&r->scope, r->hook->connector, PointerGetDatum(r->type), 0, confirmed_at,
				 db_bool(0, 4) ? webhook_rules(r) : (Datum) 0);
	r->scope.apply.event_at = r->event_at;
}

/* What is stored of the record, locked. */
typedef struct WebhookStored
{
	pg_uuid_t	id;
	TimestampTz event_at;		/* 0: unknown */
	TimestampTz observed_at;
	bool		stale;
	Jsonb	   *keys;			/* see webhook_keys.c */
} WebhookStored;

#define WEBHOOK_MERGED(other_attributes) \
	"pg_catalog.jsonb_build_object('externalId', r.external_id," \
	" 'displayName', case when $4 operator(pg_catalog.?) 'displayName' then $4 -> 'displayName' else pg_catalog.to_jsonb(r.display_name) end," \
	" 'email', case when $4 operator(pg_catalog.?) 'email' then $4 -> 'email' else pg_catalog.to_jsonb(r.email) end," \
	" 'attributes', case when not $4 operator(pg_catalog.?) 'attributes' then r.attributes" \
	" when pg_catalog.jsonb_typeof($4 -> 'attributes') = 'object' then coalesce(r.attributes, '{}') || ($4 -> 'attributes')" \
	" else " other_attributes " end)::pg_catalog.text"

/* The stored record, locked, with the data laid over it, as text; NULL when there is none. */
static char *
webhook_merge(const WebhookRecord *r, Jsonb *data, WebhookStored *stored)
{
	static DbQuery query = {
		"select r.id, " WEBHOOK_MERGED("$4 -> 'attributes'") ", r.event_at, r.observed_at, r.stale_since is not null, r.event_keys"
		" from flohsync.resource_record r"
		" where r.external_id = $3 and r.resource_type = $2 and r.connector_id = $1 for no key update",
		4, {UUIDOID, TEXTOID, TEXTOID, JSONBOID}, .by_index = true
	};
	Datum		v[4] = {r->hook->connector, PointerGetDatum(r->type), CStringGetTextDatum(r->id), JsonbPGetDatum(data)};
	Datum		value;
	bool		isnull;

	memset(stored, 0, sizeof(*stored));
	if (db_execute(&query, v, NULL) == 0)
		return NULL;
	stored->id = *DatumGetUUIDP(db_value(0, 1, &isnull));
	value = db_value(0, 3, &isnull);
	stored->event_at = isnull ? 0 : DatumGetTimestampTz(value);
	stored->observed_at = DatumGetTimestampTz(db_value(0, 4, &isnull));
	stored->stale = db_bool(0, 5);
	value = db_value(0, 6, &isnull);
	stored->keys = isnull ? NULL : DatumGetJsonbPCopy(value);
	return db_text(0, 2);
}

/*
 * webhook_merge_late does the same for an event that is older than the last one
 * of the record: of its data, only what no later event has named is laid over
 * it, and is left in *data.  NULL: it does not count at all, because there is no
 * such, or because the record was observed as a whole, or deleted, since.
 */
static char *
webhook_merge_late(const WebhookRecord *r, Jsonb **data, const WebhookStored *stored)
{
	static DbQuery query = {
		"select " WEBHOOK_MERGED("case when pg_catalog.cardinality($5) = 0 then $4 -> 'attributes' else"
								 " (select pg_catalog.jsonb_object_agg(a.key, a.value) from pg_catalog.jsonb_each(r.attributes) a where a.key = any ($5)) end")
		" from flohsync.resource_record r"
		" where r.external_id = $3 and r.resource_type = $2 and r.connector_id = $1"
		" and not exists (select from flohsync.resource_tombstone t where t.external_id = $3 collate \"C\" and t.resource_type = $2"
		" and t.connector_id = $1 and ((t.deleted_at > $6 and t.deleted_at <= pg_catalog.clock_timestamp()) or t.event_at > $6))",
		6, {UUIDOID, TEXTOID, TEXTOID, JSONBOID, TEXTARRAYOID, TIMESTAMPTZOID}, .by_index = true
	};
	WebhookKept kept;
	Datum		v[6];

	if (stored->stale || stored->keys == NULL || r->scope.apply.observed_at < r->scope.apply.confirmed_at)
		return NULL;
	*data = webhook_keys_late(stored->keys, *data, r->event_at, &kept);
	if (*data == NULL)
		return NULL;
	v[0] = r->hook->connector;
	v[1] = PointerGetDatum(r->type);
	v[2] = CStringGetTextDatum(r->id);
	v[3] = JsonbPGetDatum(*data);
	v[4] = store_text_array(kept.names, kept.n);
	v[5] = TimestampTzGetDatum(r->event_at);
	return db_execute(&query, v, NULL) == 0 ? NULL : db_text(0, 1);
}

/* The record that the data alone makes, as text. */
static char *
webhook_make(const WebhookRecord *r, Jsonb *data)
{
	static const char *const keys[] = {"displayName", "email", "attributes"};
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "{\"externalId\":");
	escape_json(&text, r->id);
	for (size_t i = 0; i < lengthof(keys); i++)
	{
		JsonbValue *value = webhook_member(data, keys[i]);

		if (value == NULL)
			continue;
		appendStringInfo(&text, ",\"%s\":", keys[i]);
		if (value->type == jbvBinary)
			(void) JsonbToCString(&text, value->val.binary.data, value->val.binary.len);
		else if (value->type == jbvString)
			escape_json(&text, pnstrdup(value->val.string.val, value->val.string.len));
		else
			appendStringInfoString(&text, "0"); /* no kind of value that any of them takes */
	}
	appendStringInfoChar(&text, '}');
	return text.data;
}

/* Post-sync for the record; failures are recorded, not raised. */
static void
webhook_follow(const WebhookRecord *r, ApplyOutcome outcome)
{
	static DbQuery query = {"select flohsync._follow_webhook($1, $2)", 2, {UUIDOID, TEXTOID}};
	const ApplyChanges *changes = &r->scope.changes;
	int			k = outcome == APPLY_ADDED ? 0 : outcome == APPLY_UPDATED ? 1 : 2;
	static const char *const kinds[3] = {"added", "updated", "restored"};
	Datum		v[2] = {UUIDPGetDatum(&changes->ids[k][0]), CStringGetTextDatum(kinds[k])};

	db_execute(&query, v, NULL);
}

static bool
webhook_leave_scope(const WebhookRecord *r, const pg_uuid_t *record)
{
	static DbQuery query = {"select flohsync._leave_scope($1, $2, $3)", 3, {UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}};
	Datum		v[3] = {UUIDPGetDatum(record), TimestampTzGetDatum(r->scope.apply.observed_at), TimestampTzGetDatum(r->scope.apply.event_at)};

	db_execute(&query, v, r->scope.apply.event_at == 0 ? "  n" : NULL);
	return db_bool(0, 1);
}

/* The record from its text; raises when it is none. */
static void
webhook_parse(WebhookRecord *r, const char *text, UpstreamPage *page, const char *hint)
{
	upsert_read(&r->scope, text, strlen(text), page);
	if (page->nfaults > 0)
		webhook_refuse("data", page->faults[0].message, hint);
}

/*
 * webhook_upsert stores what a created or updated record is now.  Only the keys
 * that are in the data change, so the stored record is locked and read first.
 * False when nothing was changed; *ignored when the news was too old, or is
 * about a record that is out of scope.
 */
static bool
webhook_upsert(WebhookRecord *r, bool *ignored)
{
	static const char hint[] = "It is what the record is now, or of that what has changed: {\"displayName\": …, \"email\": …, \"attributes\": {…}}.";
	JsonbValue *value = webhook_member(r->hook->body, "data");
	Jsonb	   *data;
	JsonbValue *other;

	if (value == NULL)
		webhook_refuse("data", "is missing", hint);
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		webhook_refuse("data", "is not an object", hint);
	data = JsonbValueToJsonb(value);
	other = webhook_member(data, "externalId");
	if (other && other->type == jbvString &&
		(other->val.string.len != strlen(r->id) || memcmp(other->val.string.val, r->id, other->val.string.len) != 0))
		webhook_refuse("data.externalId", "is not the resourceId", "Leave it out.");

	webhook_scope(r);
	for (int round = 0; round < WEBHOOK_ROUNDS; round++)
	{
		UpstreamPage page;
		PageCounts	counts = {0};
		ApplyOutcome outcome = APPLY_UNDECIDED;
		WebhookStored stored;
		Jsonb	   *named = data;
		char	   *text = webhook_merge(r, data, &stored);
		bool		known = text != NULL;
		TimestampTz since = DT_NOBEGIN;

		/*
		 * Now, with the row locked, and not when it came in: of two that wait
		 * for each other, neither is older.
		 */
		r->scope.apply.observed_at = GetCurrentTimestamp();
		if (r->event_at != 0)
			r->scope.apply.observed_at = Min(r->scope.apply.observed_at, r->event_at + WEBHOOK_TOLERANCE_S * USECS_PER_SEC);
		r->scope.apply.event_at = r->event_at;
		if (!known)
			text = webhook_make(r, data);
		webhook_parse(r, text, &page, hint);
		if (known && r->event_at != 0 && stored.event_at > r->event_at)
		{
			text = webhook_merge_late(r, &named, &stored);
			if (text == NULL)
			{
				*ignored = true;
				return false;
			}
			webhook_parse(r, text, &page, hint);
			/* The record is as new as it was. */
			r->scope.apply.event_at = stored.event_at;
			r->scope.apply.observed_at = Max(stored.observed_at, r->scope.apply.confirmed_at);
		}
		if (r->filtered && apply_filter(&r->filter, &r->scope.apply, r->scope.parser, page.records, 1) == 0)
		{
			bool		left = known && webhook_leave_scope(r, &stored.id);

			*ignored = !left;
			return left;
		}
		/* Older events count from where the record was last seen whole. */
		if (known)
			since = Max(stored.event_at == 0 ? DT_NOBEGIN : stored.event_at, stored.observed_at - WEBHOOK_TOLERANCE_S * USECS_PER_SEC);
		r->scope.apply.event_keys = webhook_keys_note(stored.stale ? NULL : stored.keys, since, named,
													  r->event_at != 0 ? r->event_at : r->hook->received_at);
		r->scope.apply.absent = !known;
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
				break;			/* somebody has just inserted it: merge with that */
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("record \"%s\" is being added and removed all the time", r->id)));
}

static bool
webhook_delete(WebhookRecord *r, bool *ignored)
{
	static DbQuery query = {
		"select flohsync._delete_record($1, flohsync._check_resource_type($2), $3, $4, pg_catalog.make_interval(secs => $5))",
		5, {UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, FLOAT8OID}
	};
	Datum		v[5] = {r->hook->connector, PointerGetDatum(r->type), CStringGetTextDatum(r->id),
	TimestampTzGetDatum(r->event_at), Float8GetDatum(WEBHOOK_TOLERANCE_S)};
	char	   *outcome;

	db_execute(&query, v, r->event_at == 0 ? "   n " : NULL);
	outcome = db_text(0, 1);
	*ignored = strcmp(outcome, "ignored") == 0;
	r->told_cache = strcmp(outcome, "removed") == 0;
	return strcmp(outcome, "removed") == 0 || strcmp(outcome, "staled") == 0;
}

/*
 * What both functions come to
 */

static bool
webhook_seen_before(const Webhook *hook)
{
	static DbQuery query = {
		"insert into flohsync.webhook_delivery (connector_id, webhook_id) values ($1, $2) on conflict do nothing", 2, {UUIDOID, TEXTOID}
	};
	Datum		v[2] = {hook->connector, PointerGetDatum(cstring_to_text_with_len(hook->id.data, hook->id.len))};

	if (hook->id.data == NULL)
		return false;
	return db_execute(&query, v, NULL) == 0;
}

/* Now and then, so that nothing else needs to run for it. */
static void
webhook_forget(void)
{
	static DbQuery query = {"select flohsync._forget_webhooks(pg_catalog.make_interval(secs => $1))", 1, {FLOAT8OID}};
	Datum		v = Float8GetDatum((float8) flohsync_run_retention);

	if (pg_prng_uint64(&pg_global_prng_state) % WEBHOOK_FORGET_EVERY == 0)
		db_execute(&query, &v, flohsync_run_retention == 0 ? "n" : NULL);
}

static char *
webhook_answer(const char *action, bool changed)
{
	return psprintf("{\"accepted\": true, \"action\": \"%s\", \"changed\": %s}", action, changed ? "true" : "false");
}

char *
webhook_take(const Webhook *hook)
{
	static const char hint[] = "A body is {\"action\": \"created\", \"updated\" or \"deleted\", \"resourceId\": …, \"resourceType\": …, \"data\": {…}}.";
	WebhookRecord r = {.hook = hook};
	char	   *action;
	bool		changed;
	bool		ignored = false;

	if (!JB_ROOT_IS_OBJECT(hook->body))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("webhook cannot be taken: the body is not a JSON object"),
				 errhint("%s", hint)));
	if (webhook_seen_before(hook))
		return webhook_answer("duplicate", false);
	webhook_forget();
	if (webhook_member(hook->body, "resourceType") == NULL)
		return webhook_answer("entitlement", webhook_call_handler(hook));

	action = webhook_text(hook->body, "action", hint);
	r.type = cstring_to_text(webhook_text(hook->body, "resourceType", hint));
	r.id = webhook_resource_id(hook->body);
	r.event_at = webhook_event_at(hook);
	if (strcmp(action, "created") == 0 || strcmp(action, "updated") == 0)
		changed = webhook_upsert(&r, &ignored);
	else if (strcmp(action, "deleted") == 0)
		changed = webhook_delete(&r, &ignored);
	else
		webhook_refuse("action", "is none that is known", hint);
	/* Also of a record that is not stored, or newer here: what the cache has may not be what the upstream has. */
	if (!r.told_cache)
		outbox_add(hook->connector, PointerGetDatum(r.type), store_text_array(&(Slice) {r.id, strlen(r.id)}, 1));
	return webhook_answer(ignored ? "ignored" : action, changed);
}

/* The answer as a Datum of the caller's memory context; ends what began with SPI_connect. */
Datum
webhook_done(const char *answer, MemoryContext caller, const WebhookRights *rights)
{
	char	   *text = MemoryContextStrdup(caller, answer);

	SPI_finish();
	webhook_give_rights_back(rights);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

void
webhook_check_enabled(bool enabled, const char *name)
{
	if (!enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("connector \"%s\" is disabled", name),
				 errhint("Its webhooks are taken again when it is enabled.")));
}

PG_FUNCTION_INFO_V1(flohsync_handle_webhook);
PGDLLEXPORT Datum
flohsync_handle_webhook(PG_FUNCTION_ARGS)
{
	static DbQuery query = {
		"select d.id, d.enabled, d.name from flohsync.connector_definition d where d.id = flohsync._connector_id($1)", 1, {TEXTOID}
	};
	Webhook		hook = {.received_at = GetCurrentTimestamp()};
	MemoryContext caller = CurrentMemoryContext;
	WebhookRights rights;
	Datum		connector;
	bool		isnull;

	for (int i = 0; i < 2; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("no argument of handle_webhook() may be null")));
	hook.body = PG_GETARG_JSONB_P(1);
	connector = PG_GETARG_DATUM(0);
	webhook_take_rights(&rights);
	SPI_connect();
	db_execute(&query, &connector, NULL);
	webhook_check_enabled(db_bool(0, 2), db_text(0, 3));
	hook.connector = PointerGetDatum(memcpy(palloc(UUID_LEN), DatumGetUUIDP(db_value(0, 1, &isnull)), UUID_LEN));
	return webhook_done(webhook_take(&hook), caller, &rights);
}
