/*
 * webhook.c
 *	  Webhooks, once they are believed.  How those from outside
 *	  come to be is in webhook/receive.c.
 *
 *	receive_webhook: check the size -> secrets -> verify -> read --+
 *	handle_webhook:  find the connector ---------------------------+
 *	  -> seen before? -> no resource type: entitlement handler
 *	                  -> else: the record (webhook/record.c)
 *
 * All of it is the caller's transaction: a delivery that fails leaves no trace,
 * not even that it was seen, and may come again.
 *
 * Rights: callers need nothing but EXECUTE.  What is done runs with the rights
 * of flohsync.worker_role (run_as.c), like everything that workers do: an
 * application's triggers on its own users must not get those of the owner of
 * the tables, nor those of the caller.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/bytes.h"
#include "base/clean.h"
#include "base/add.h"
#include "base/db.h"
#include "base/db_value.h"
#include "base/guc.h"
#include "base/table_check.h"
#include "base/time_text.h"
#include "record/changes.h"
#include "record/outbox.h"
#include "webhook/verify.h"
#include "webhook/webhook.h"

/* One in so many deliveries forgets what is too old. */
#define WEBHOOK_FORGET_EVERY 1000

/*
 * Bodies
 */

void
webhook_refuse(const char *key, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("webhook rejected: \"%s\" %s", key, problem), errdetail("Nothing was changed."),
			 errhint("%s", hint)));
}

/* The value of a key; NULL when it is absent or null. */
JsonbValue *
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
		webhook_refuse(key, "is not a string", hint);
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* An id is a text or an integer, as that of a record. */
static char *
webhook_resource_id(Jsonb *body)
{
	static const char hint[] =
		"It identifies the record: a string of 1 to 255 characters, or an integer.";
	JsonbValue *value = webhook_member(body, "resourceId");
	char	   *id;

	if (value && value->type == jbvNumeric)
	{
		id = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		if (strspn(id, "-0123456789") < strlen(id))
			webhook_refuse("resourceId", "is neither a string nor an integer", hint);
	}
	else if (value && value->type != jbvString)
		webhook_refuse("resourceId", "is neither a string nor an integer", hint);
	else
		id = webhook_text(body, "resourceId", hint);
	if (*id == '\0')
		webhook_refuse("resourceId", "is empty", hint);
	if (pg_mbstrlen(id) > FLOHSYNC_MAX_NAME_CHARS)
		webhook_refuse("resourceId", "is longer than 255 characters", hint);
	return id;
}

/*
 * As _flohsync.check_resource_type(), but without quoting: what a webhook says is no more to
 * be told than an answer.
 */
static char *
webhook_resource_type(Jsonb *body)
{
	static const char hint[] =
		"It is a letter followed by at most 63 letters, digits, \"_\", \".\" or \"-\".";
	static const char letters[] =
		"0123456789_.-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	char *type = webhook_text(body, "resourceType", hint);

	if (strspn(type, letters + 13) == 0 || strlen(type) > FLOHSYNC_MAX_TYPE_BYTES ||
		type[strspn(type, letters)] != '\0')
		webhook_refuse("resourceType", "is not a resource type", hint);
	return type;
}

/* When the event happened by the upstream's clock; 0: nobody knows. */
static TimestampTz
webhook_event_at(const Webhook *hook)
{
	static const char *const keys[] = {"timestamp", "occurredAt"};
	TimestampTz				 at = hook->sent_at;

	for (size_t i = 0; i < lengthof(keys); i++)
	{
		JsonbValue *value = webhook_member(hook->body, keys[i]);
		Slice		text;

		if (value == NULL)
			continue;
		if (value->type == jbvString)
			text = (Slice){value->val.string.val, value->val.string.len};
		else if (value->type == jbvNumeric)
		{
			char *digits = DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));

			text = (Slice){digits, strcspn(digits, ".")};
		}
		else
			text = (Slice){"", 0};
		if (!(value->type == jbvString && time_iso(text.data, text.len, &at)) &&
			!time_unix(text.data, text.len, &at))
			webhook_refuse(
				keys[i], "is not a time",
				"It is the time of the event: in ISO 8601 format, such as \"2026-01-31T12:00:00Z\", or in seconds or milliseconds since 1970.");
		break;
	}
	/*
	 * It happened before it came.  One from the future would keep out all that come
	 * until then, of a clock that is right, whose times may be of whole seconds.
	 */
	if (at > hook->received_at + WEBHOOK_TOLERANCE_S * USECS_PER_SEC)
		return 0;
	return at > hook->received_at ? hook->received_at - hook->received_at % USECS_PER_SEC : at;
}

/*
 * What both functions come to
 */

/* webhook_note_id notes an id of a delivery or event; false: it is known. */
bool
webhook_note_id(const Webhook *hook, Slice id)
{
	static DbQuery query = {
		"insert into _flohsync.webhook_delivery (connector_id, webhook_id) values ($1, $2) on"
		" conflict do nothing",
		2,
		{UUIDOID, TEXTOID}};
	static AddTable table = {
		"webhook_delivery",
		{{"connector_id", UUIDOID}, {"webhook_id", TEXTOID}, {"received_at", TIMESTAMPTZOID}}};
	const bool nulls[3] = {false};
	Datum	   v[3] = {hook->connector};
	AddResult  added;

	if (id.data == NULL)
		return true;
	v[1] = PointerGetDatum(cstring_to_text_with_len(id.data, id.len));
	v[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	added = add_row(&table, v, nulls, true);
	return added == ADD_IMPOSSIBLE ? db_execute(&query, v, NULL) > 0 : added == ADD_DONE;
}

/* webhook_forget: now and then, so that nothing else needs to run for it. */
void
webhook_forget(void)
{
	static DbQuery query = {
		"select _flohsync.forget_webhooks(pg_catalog.make_interval(secs => $1))", 1, {FLOAT8OID}};
	Datum v = Float8GetDatum((float8) flohsync_run_retention);

	if (pg_prng_uint64(&pg_global_prng_state) % WEBHOOK_FORGET_EVERY == 0)
		db_execute(&query, &v, flohsync_run_retention == 0 ? "n" : NULL);
}

char *
webhook_answer(const char *action, bool changed)
{
	return psprintf("{\"accepted\": true, \"action\": \"%s\", \"changed\": %s}", action,
					changed ? "true" : "false");
}

static const char body_hint[] =
	"A body is {\"action\": \"created\", \"updated\" or \"deleted\", \"resourceId\": …, \"resourceType\": …, \"data\": {…}}.";

static const char *const webhook_actions[] = {"created", "updated", "deleted"};

/* webhook_read_record reads what the body of r->hook is about; raises when that makes no sense. */
void
webhook_read_record(WebhookRecord *r)
{
	Jsonb *body = r->hook->body;
	char  *action = webhook_text(body, "action", body_hint);

	r->type = cstring_to_text(webhook_resource_type(body));
	r->id = webhook_resource_id(body);
	r->event_at = webhook_event_at(r->hook);
	r->action = WEBHOOK_CREATED;
	while (strcmp(action, webhook_actions[r->action]) != 0)
		if (++r->action == lengthof(webhook_actions))
			webhook_refuse("action", "is unknown", body_hint);
}

/* webhook_store_record stores what was read, and returns what came of it. */
const char *
webhook_store_record(WebhookRecord *r, bool *changed)
{
	bool ignored = false;
	bool deleted = r->action == WEBHOOK_DELETED || (r->fetched && r->whole == NULL);

	*changed = deleted ? webhook_delete(r, &ignored) : webhook_upsert(r, &ignored);
	/*
	 * Also of a record that is not stored, or newer here: what the cache has may not be what
	 * the upstream has.
	 */
	if (!r->told_cache)
		outbox_add(r->hook->connector, PointerGetDatum(r->type),
				   db_text_array(&(Slice){r->id, strlen(r->id)}, 1));
	return ignored ? "ignored" : webhook_actions[deleted ? WEBHOOK_DELETED : r->action];
}

char *
webhook_take(const Webhook *hook)
{
	WebhookRecord r = {.hook = hook};
	const char	 *action;
	bool		  changed;

	if (!JB_ROOT_IS_OBJECT(hook->body))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("webhook rejected: the body is not a JSON object"),
				 errhint("%s", body_hint)));
	changes_hold_connector(hook->connector);
	if (!webhook_note_id(hook, hook->id))
		return webhook_answer("duplicate", false);
	webhook_forget();
	if (webhook_member(hook->body, "resourceType") == NULL)
		return webhook_answer("entitlement", webhook_call_handler(hook));

	webhook_read_record(&r);
	action = webhook_store_record(&r, &changed);
	return webhook_answer(action, changed);
}

/* The answer as a Datum of the caller's memory context; ends what began with SPI_connect. */
Datum
webhook_done(const char *answer, MemoryContext caller, const RunAs *saved)
{
	char *text = MemoryContextStrdup(caller, answer);

	SPI_finish();
	run_as_end(saved);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

void
webhook_check_enabled(bool enabled, const char *name)
{
	if (!enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("connector \"%s\" is disabled", clean(name)),
				 errhint("Webhooks are accepted again once the connector is enabled.")));
}

/* webhook_handle takes a webhook that is believed. */
Datum
webhook_handle(Datum connector, Jsonb *body)
{
	static DbQuery query = {
		"select d.id, d.enabled, d.name from flohsync.connector_definition d where d.id ="
		" _flohsync.connector_id($1)",
		1,
		{TEXTOID}};
	Webhook		  hook = {.received_at = GetCurrentTimestamp()};
	MemoryContext caller = CurrentMemoryContext;
	RunAs		  saved;
	bool		  isnull;

	hook.body = body;
	run_as_begin(&saved, run_as_worker_role());
	table_check(InvalidOid);
	SPI_connect();
	db_execute(&query, &connector, NULL);
	webhook_check_enabled(db_bool(0, 2), db_text(0, 3));
	hook.connector = PointerGetDatum(
		memcpy(palloc(UUID_LEN), DatumGetUUIDP(db_value(0, 1, &isnull)), UUID_LEN));
	return webhook_done(webhook_take(&hook), caller, &saved);
}
