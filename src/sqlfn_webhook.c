/*
 * sqlfn_webhook.c
 *	  SQL-callable: webhooks.
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
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "crypto.h"
#include "db.h"
#include "guc.h"
#include "json.h"
#include "outbox.h"
#include "store_secret.h"
#include "upsert.h"
#include "webhook.h"
#include "webhook_keys.h"

/* One in so many deliveries forgets what is too old. */
#define WEBHOOK_FORGET_EVERY	1000

#define WEBHOOK_ROUNDS			20

/* A webhook that is believed. */
typedef struct Webhook
{
	Datum		connector;		/* uuid */
	Jsonb	   *body;
	Slice		id;				/* of the delivery; NULL data where there is none */
	TimestampTz received_at;
	TimestampTz sent_at;		/* by the sender's clock; 0: unknown */
} Webhook;

typedef struct WebhookRights
{
	Oid			user;
	int			context;
} WebhookRights;

static void
webhook_take_rights(WebhookRights *saved)
{
	Oid			role = db_worker_role();

	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(role, saved->context | SECURITY_LOCAL_USERID_CHANGE);
}

static void
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
	bool		configured;
	bool		told_cache;		/* whoever wrote the record has */
	UpsertScope scope;
} WebhookRecord;

/* Reads what the configuration says about records of the type. */
static void
webhook_scope(WebhookRecord *r)
{
	static DbQuery query = {
		"select flohsync._check_resource_type($2), c.id is not null, c.last_full_pass_at,"
		" array(select * from pg_catalog.jsonb_array_elements_text(c.hash_ignore)),"
		" c.filter_rules is not null, " STORE_FILTER_COLUMNS("c")
		" from (select) one left join flohsync.connector_sync_config c on c.connector_id = $1 and c.resource_type = $2",
		2, {UUIDOID, TEXTOID}
	};
	Datum		v[2] = {r->hook->connector, PointerGetDatum(r->type)};
	bool		isnull;
	TimestampTz confirmed_at;

	db_execute(&query, v, NULL);
	r->configured = db_bool(0, 2);
	confirmed_at = DatumGetTimestampTz(db_value(0, 3, &isnull));
	if (isnull)
		confirmed_at = 0;
	r->filtered = db_bool(0, 5);
	if (r->filtered)
		store_get_filter(0, 6, &r->filter, CurrentMemoryContext);
	upsert_scope(&r->scope, r->hook->connector, PointerGetDatum(r->type), 0, confirmed_at, db_value(0, 4, &isnull));
	r->scope.apply.event_at = r->event_at;
	if (r->filtered)
		filter_prepare(&r->filter);
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
				if (r->configured)
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
 * The entitlement handler
 */

static bool
webhook_call_handler(const Webhook *hook)
{
	static DbQuery query = {
		"select h.handler, h.owner, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname), p.pronargs::int4, p.proargtypes[0]::int8, p.proowner::int8"
		" from flohsync.webhook_handler h left join pg_catalog.pg_proc p on p.oid = pg_catalog.to_regprocedure(h.handler)"
		" left join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
	};
	Oid			types[2] = {UUIDOID, JSONBOID};
	Datum		v[2] = {hook->connector, JsonbPGetDatum(hook->body)};
	StringInfoData sql;
	char	   *owner_name;
	Oid			owner;
	WebhookRights saved;
	int			guc_level;
	bool		changed = true;
	bool		isnull;

	if (db_execute(&query, NULL, NULL) == 0)
	{
		static DbQuery insert = {
			"insert into flohsync.entitlement_event (connector_id, body) values ($1, $2)", 2, {UUIDOID, JSONBOID}
		};

		db_execute(&insert, v, NULL);
		return true;
	}
	owner_name = db_text(0, 2);
	owner = get_role_oid(owner_name, true);
	if (db_text(0, 3) == NULL || !OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the entitlement handler %s of role \"%s\" does not exist any more", db_text(0, 1), owner_name),
				 errhint("Set another one with flohsync.set_entitlement_handler().")));
	initStringInfo(&sql);
	if (db_int64(0, 4, 0) == 1)
		appendStringInfo(&sql, "select %s($2)", db_text(0, 3));
	else
		appendStringInfo(&sql, "select %s($1%s, $2)", db_text(0, 3), db_int64(0, 5, 0) == TEXTOID ? "::pg_catalog.text" : "");

	/* Set by a superuser, it has the rights of its owner; of one, too, those of the workers. */
	if (superuser_arg(owner))
		owner = (Oid) db_int64(0, 6, 0);
	GetUserIdAndSecContext(&saved.user, &saved.context);
	if (!superuser_arg(owner))
		SetUserIdAndSecContext(owner, saved.context | SECURITY_LOCAL_USERID_CHANGE);
	guc_level = NewGUCNestLevel();
	if (SPI_execute_with_args(sql.data, 2, types, v, NULL, false, 0) < 0)
		elog(ERROR, "could not call the entitlement handler");
	if (SPI_processed == 1 && SPI_gettypeid(SPI_tuptable->tupdesc, 1) == BOOLOID)
	{
		changed = DatumGetBool(db_value(0, 1, &isnull));
		changed = changed && !isnull;
	}
	AtEOXact_GUC(false, guc_level);
	webhook_give_rights_back(&saved);
	return changed;
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

static char *
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
static Datum
webhook_done(const char *answer, MemoryContext caller, const WebhookRights *rights)
{
	char	   *text = MemoryContextStrdup(caller, answer);

	SPI_finish();
	webhook_give_rights_back(rights);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

static void
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

/*
 * receive_webhook
 */

/* One answer for whatever is wrong, so that nobody learns anything from it. */
static void webhook_not_authentic(const char *why) pg_attribute_noreturn();

static void
webhook_not_authentic(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("webhook is not authentic"),
			 errdetail_log("Reason: %s.", why),
			 errhint("The reason is in the server log.")));
}

static void
webhook_read_headers(Jsonb *json, WebhookHeaders *headers)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	Slice		name = {NULL, 0};

	memset(headers, 0, sizeof(*headers));
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the headers of a webhook must be a JSON object"),
				 errhint("For example {\"X-Webhook-Signature\": \"sha256=…\"}.")));
	if (VARSIZE(json) > WEBHOOK_MAX_HEADERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the headers of a webhook are larger than %d bytes", WEBHOOK_MAX_HEADERS)));
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = (Slice) {value.val.string.val, value.val.string.len};
		else if (token == WJB_VALUE)
		{
			Slice		text = {"", 0};

			if (value.type == jbvString)
				text = (Slice) {value.val.string.val, value.val.string.len};
			else if (value.type == jbvNumeric)
			{
				/* A timestamp may have been taken for one. */
				text.data = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
				text.len = strlen(text.data);
			}
			webhook_header(headers, name, text, value.type == jbvString || value.type == jbvNumeric);
		}
	}
}

/* The body as jsonb; what jsonb would choke on, or blow up, is refused before. */
static Jsonb *
webhook_read_body(Slice body)
{
	JsonParser *parser = json_parser_create_limited(WEBHOOK_MAX_BODY);
	const JsonNode *root;
	char	   *text;

	if (!pg_verify_mbstr(PG_UTF8, body.data, body.len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("the body of a webhook must be in UTF-8, without NUL characters")));
	if (!json_parse(parser, body.data, body.len, FLOHSYNC_MAX_NESTING + 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("the body of a webhook must be JSON"),
				 errdetail("At byte %zu: %s.", parser->error_offset, parser->error)));
	root = &parser->nodes[JSON_ROOT];
	if (root->flags & JSON_F_BAD)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the body of a webhook holds a value that cannot be stored"),
				 errdetail("%s", root->flags & JSON_F_BAD_DEPTH ? "Values are nested too deep." :
						   root->flags & JSON_F_BAD_ESCAPE ? "A string holds the character U+0000, or half of a surrogate pair." :
						   "A number has more than 4000 characters or an exponent over 400.")));
	text = pnstrdup(body.data, body.len);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

/* Verifies with those of a connector's secrets that are for it. */
static const char *
webhook_verify_with(const WebhookHeaders *headers, Slice body, const SourceSecret *all, int n, TimestampTz now, TimestampTz *sent_at)
{
	static const char *const names[WEBHOOK_SECRETS] = {"webhook", "webhook_previous"};
	Slice		secrets[WEBHOOK_SECRETS] = {0};
	const char *problem = NULL;
	const char *why;

	for (int i = 0; i < n; i++)
		for (int s = 0; s < WEBHOOK_SECRETS; s++)
		{
			if (strcmp(all[i].name, names[s]) != 0)
				continue;
			if (all[i].value)
				secrets[s] = (Slice) {all[i].value, strlen(all[i].value)};
			else
				problem = psprintf("secret \"%s\" cannot be decrypted: %s", names[s], all[i].problem);
		}
	why = webhook_verify(headers, body, secrets, now, sent_at);
	return why && problem ? problem : why;
}

/*
 * What a delivery is known by when its id is not signed: by the body as well,
 * so that nobody takes an id away from another delivery.
 */
static Slice
webhook_unsigned_id(Slice id, Slice body)
{
	unsigned char digest[CRYPTO_HMAC_BYTES];
	char	   *hex;

	if (id.data == NULL)
		return id;
	if (!crypto_hmac_sha256(id.data, id.len, body.data, body.len, digest))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute HMAC-SHA256")));
	hex = palloc(2 * sizeof(digest) + 1);
	crypto_hex_encode(digest, sizeof(digest), hex);
	return (Slice) {hex, 2 * sizeof(digest)};
}

PG_FUNCTION_INFO_V1(flohsync_receive_webhook);
PGDLLEXPORT Datum
flohsync_receive_webhook(PG_FUNCTION_ARGS)
{
	/* Where there is no such connector, another one's secrets are read, for as much time as that takes. */
	static DbQuery query = {
		"select d.id, d.enabled, d.name, k.id is not null"
		" from (select coalesce((select n.id from flohsync.connector_definition n where n.name = $1),"
		" (select n.id from flohsync.connector_definition n where n.id ="
		" case when $1 ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then $1::pg_catalog.uuid end)) as id) k"
		" join flohsync.connector_definition d on d.id = coalesce(k.id, (select n.id from flohsync.connector_definition n order by n.created_at limit 1))",
		1, {TEXTOID}
	};
	Webhook		hook = {.received_at = GetCurrentTimestamp()};
	MemoryContext caller = CurrentMemoryContext;
	WebhookRights rights;
	WebhookHeaders headers;
	SourceSecret *secrets = NULL;
	int			nsecrets = 0;
	Slice		body;
	Datum		connector;
	const char *why;
	bool		known = false;
	bool		enabled = false;
	char	   *name = NULL;
	bool		isnull;

	for (int i = 0; i < 3; i++)
		if (PG_ARGISNULL(i))
			webhook_not_authentic("an argument is null");
	connector = PG_GETARG_DATUM(0);
	body = (Slice) {VARDATA_ANY(PG_GETARG_BYTEA_PP(1)), VARSIZE_ANY_EXHDR(PG_GETARG_BYTEA_PP(1))};
	if (body.len > WEBHOOK_MAX_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the body of a webhook is larger than %d bytes", WEBHOOK_MAX_BODY)));
	webhook_read_headers(PG_GETARG_JSONB_P(2), &headers);

	webhook_take_rights(&rights);
	SPI_connect();
	if (db_execute(&query, &connector, NULL) == 1)
	{
		known = db_bool(0, 4);
		enabled = db_bool(0, 2);
		name = db_text(0, 3);
		hook.connector = PointerGetDatum(memcpy(palloc(UUID_LEN), DatumGetUUIDP(db_value(0, 1, &isnull)), UUID_LEN));
		secrets = store_read_secrets(hook.connector, NULL, &nsecrets, CurrentMemoryContext);
	}
	why = webhook_verify_with(&headers, body, secrets, known ? nsecrets : 0, hook.received_at, &hook.sent_at);
	source_wipe_secrets(secrets, nsecrets);
	if (why)
		webhook_not_authentic(why);
	webhook_check_enabled(enabled, name);
	hook.id = hook.sent_at != 0 ? headers.id : webhook_unsigned_id(headers.id, body);
	hook.body = webhook_read_body(body);
	return webhook_done(webhook_take(&hook), caller, &rights);
}
