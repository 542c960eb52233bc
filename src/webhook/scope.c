/*
 * scope.c
 *	  What the configuration says about the records of a type that webhooks are about.
 *
 * Of a configuration's row that is still the same version, what it says is known: only what
 * others may have written since is looked at, and that is found by index.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/look.h"
#include "page/filter.h"
#include "record/rules.h"
#include "record/upsert.h"
#include "webhook/webhook.h"

#define SCOPE_KNOWN 8

/* What the row of a configuration says. */
typedef struct ScopeConfig
{
	ItemPointerData tid; /* the version of the row; invalid: nothing is known */
	TransactionId	xmin;
	pg_uuid_t		connector;
	int				type_len;
	char			type[FLOHSYNC_MAX_TYPE_BYTES];
	bool			followed;	  /* matching or a workflow is to hear of changed records */
	bool			ruled;		  /* hashes leave something out, or there are filter rules */
	bool			rehash;		  /* as of ApplyScope */
	TimestampTz		confirmed_at; /* start of its last complete full pass, 0: none */
} ScopeConfig;

static ScopeConfig scope_known[SCOPE_KNOWN];
static Oid		   scope_table = InvalidOid; /* that these are rows of */

/* A table that is written anew has other rows in the same places. */
static void
scope_table_changed(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || relation == scope_table)
		for (int i = 0; i < SCOPE_KNOWN; i++)
			ItemPointerSetInvalid(&scope_known[i].tid);
}

static ScopeConfig *
scope_find(const pg_uuid_t *connector, const text *type)
{
	for (int i = 0; i < SCOPE_KNOWN; i++)
	{
		ScopeConfig *c = &scope_known[i];

		if (ItemPointerIsValid(&c->tid) && c->type_len == VARSIZE_ANY_EXHDR(type) &&
			memcmp(c->type, VARDATA_ANY(type), c->type_len) == 0 &&
			memcmp(&c->connector, connector, UUID_LEN) == 0)
			return c;
	}
	return NULL;
}

/* The same for a row that is to be known from now on; NULL: there is no room for its type. */
static ScopeConfig *
scope_place(const pg_uuid_t *connector, const text *type)
{
	static int	 next = 0;
	ScopeConfig *c = scope_find(connector, type);

	if (VARSIZE_ANY_EXHDR(type) > FLOHSYNC_MAX_TYPE_BYTES)
		return NULL;
	if (c == NULL)
	{
		c = &scope_known[next];
		next = (next + 1) % SCOPE_KNOWN;
	}
	c->connector = *connector;
	c->type_len = VARSIZE_ANY_EXHDR(type);
	memcpy(c->type, VARDATA_ANY(type), c->type_len);
	return c;
}

/* The tables that are looked at, each by an index. */
enum
{
	SCOPE_CONFIG,
	SCOPE_FORMER,
	SCOPE_MATCH,
	SCOPE_TABLES
};

static const struct
{
	const char *schema;
	const char *table;
	const char *index;
} scope_tables[SCOPE_TABLES] = {
	[SCOPE_CONFIG] = {FLOHSYNC_SCHEMA, "connector_sync_config",
					  "connector_sync_config_connector_id_resource_type_key"},
	[SCOPE_FORMER] = {FLOHSYNC_INTERNAL_SCHEMA, "former_pass", "former_pass_pkey"},
	[SCOPE_MATCH] = {FLOHSYNC_SCHEMA, "connector_sync_match", "connector_sync_match_list"},
};

/* Finds a row of the connector and type; false: there is none.  Close it in any case. */
static bool
scope_look(Look *look, int which, Snapshot snapshot, Datum connector, const text *type)
{
	Oid			schema = get_namespace_oid(scope_tables[which].schema, false);
	Oid			table = get_relname_relid(scope_tables[which].table, schema);
	ScanKeyData keys[2];

	look_may_read(table);
	look_open(look, table, get_relname_relid(scope_tables[which].index, schema), snapshot, 2);
	look_uuid_key(&keys[0], 1, DatumGetUUIDP(connector));
	look_text_key(&keys[1], look, 2, PointerGetDatum(type));
	index_rescan(look->scan, keys, 2, NULL, 0);
	return look_next(look);
}

/* Are all tables and indexes there?  Indexes are others' to drop. */
static bool
scope_can_look(void)
{
	for (int i = 0; i < SCOPE_TABLES; i++)
	{
		Oid schema = get_namespace_oid(scope_tables[i].schema, false);

		if (!OidIsValid(get_relname_relid(scope_tables[i].table, schema)) ||
			!OidIsValid(get_relname_relid(scope_tables[i].index, schema)))
			return false;
	}
	return true;
}

/* What is known of the row that there is now, and what goes with it; false: not enough is. */
static bool
scope_remember(Datum connector, const text *type, ScopeConfig *now)
{
	ScopeConfig *c = scope_find(DatumGetUUIDP(connector), type);
	Snapshot	 snapshot;
	Look		 look;
	bool		 isnull;
	bool		 same;

	if (c == NULL || !scope_can_look())
		return false;
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	same = scope_look(&look, SCOPE_CONFIG, snapshot, connector, type) &&
		ItemPointerIsValid(&c->tid) && ItemPointerEquals(&look.slot->tts_tid, &c->tid) &&
		DatumGetTransactionId(
			slot_getsysattr(look.slot, MinTransactionIdAttributeNumber, &isnull)) == c->xmin;
	look_close(&look);
	if (same)
	{
		*now = *c;
		if (scope_look(&look, SCOPE_FORMER, snapshot, connector, type))
			now->confirmed_at =
				Max(DatumGetTimestampTz(look_value(
						&look, get_attnum(RelationGetRelid(look.table), "confirmed_at"), &isnull)),
					now->confirmed_at == 0 ? DT_NOBEGIN : now->confirmed_at);
		look_close(&look);
		if (!now->followed)
		{
			now->followed = scope_look(&look, SCOPE_MATCH, snapshot, connector, type);
			look_close(&look);
		}
	}
	UnregisterSnapshot(snapshot);
	return same;
}

/*
 * Asks for it, and keeps what the row of the configuration says.  Whether any record was
 * matched is asked for in the order of the one index that answers it at once: for EXISTS,
 * another one may be read from end to end.
 */
static void
scope_ask(Datum connector, const text *type, ScopeConfig *now)
{
	static DbQuery query = {
		"select case when c.id is null then _flohsync.check_resource_type($2) end,"
		" _flohsync.config_concerns_users(c) or _flohsync.triggers_per_record(c),"
		" (select true from flohsync.connector_sync_match m"
		" where m.connector_id = c.connector_id and m.resource_type = c.resource_type order by"
		" m.external_id limit 1),"
		" " RULES_CONFIRMED_AT ", c.last_full_pass_at,"
		" c.hash_ignore is not null or c.filter_rules is not null, " RULES_REHASH(
			"c") ", c.ctid, c.xmin from (select) one left join flohsync.connector_sync_config c on"
				 " c.connector_id = $1 and c.resource_type = $2"
				 " left join _flohsync.former_pass f on"
				 " f.connector_id = $1 and f.resource_type = $2",
		2,
		{UUIDOID, TEXTOID},
		.plan_as = PLAN_BY_INDEX};
	static bool	 registered = false;
	Datum		 v[2] = {connector, PointerGetDatum(type)};
	ScopeConfig *c;
	bool		 isnull;
	Datum		 value;
	bool		 matched;

	if (!registered)
		CacheRegisterRelcacheCallback(scope_table_changed, (Datum) 0);
	registered = true;
	memset(now, 0, sizeof(*now));
	db_execute(&query, v, NULL);
	now->followed = db_bool(0, 2);
	matched = db_bool(0, 3);
	now->ruled = db_bool(0, 6);
	now->rehash = db_bool(0, 7);
	value = db_value(0, 5, &isnull);
	now->confirmed_at = isnull ? 0 : DatumGetTimestampTz(value);
	value = db_value(0, 8, &isnull);
	c = isnull ? NULL : scope_place(DatumGetUUIDP(connector), type);
	if (c != NULL)
	{
		scope_table = get_relname_relid(scope_tables[SCOPE_CONFIG].table,
										get_namespace_oid(scope_tables[SCOPE_CONFIG].schema,
														  false));
		c->tid = *(ItemPointer) DatumGetPointer(value);
		c->xmin = DatumGetTransactionId(db_value(0, 9, &isnull));
		c->followed = now->followed;
		c->ruled = now->ruled;
		c->rehash = now->rehash;
		c->confirmed_at = now->confirmed_at;
	}
	now->followed |= matched;
	value = db_value(0, 4, &isnull);
	now->confirmed_at = isnull ? 0 : DatumGetTimestampTz(value);
}

/*
 * What to leave out of hashes, a text[], and the filter rules; 0 when there is nothing to
 * leave out.
 */
static Datum
scope_rules(WebhookRecord *r)
{
	static DbQuery query = {
		"select " RULES_HASH_IGNORE("c") ", c.filter_rules is not null, " RULES_FILTER_COLUMNS(
			"c") " from flohsync.connector_sync_config c where c.connector_id = $1 and"
				 " c.resource_type = $2",
		2,
		{UUIDOID, TEXTOID}};
	Datum v[2] = {r->hook->connector, PointerGetDatum(r->type)};
	bool  isnull;

	if (db_execute(&query, v, NULL) == 0)
		return (Datum) 0;
	r->filtered = db_bool(0, 2);
	if (r->filtered)
	{
		rules_get_filter(0, 3, &r->filter, CurrentMemoryContext);
		filter_prepare(&r->filter);
	}
	return db_value(0, 1, &isnull);
}

/* webhook_scope reads what the configuration says about records of the type. */
void
webhook_scope(WebhookRecord *r)
{
	ScopeConfig config;

	if (!scope_remember(r->hook->connector, r->type, &config))
		scope_ask(r->hook->connector, r->type, &config);
	r->followed = config.followed;
	upsert_scope(&r->scope, r->hook->connector, PointerGetDatum(r->type), 0, config.confirmed_at,
				 config.ruled ? scope_rules(r) : (Datum) 0, config.rehash);
	r->scope.apply.event_at = r->event_at;
}
