/*
 * guard.c
 *	  Is a run still wanted, as it was started?
 *
 * That is asked in the transaction of each page.  Two rows tell, which are looked up by
 * their indexes without a statement; unless somebody has dropped one of these.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/look.h"
#include "run/store.h"

/* Where a row is looked up. */
typedef struct GuardTable
{
	Oid		   table;
	Oid		   index;
	AttrNumber column; /* that is read */
} GuardTable;

static bool
guard_find(GuardTable *t, const char *table, const char *index, const char *column)
{
	if (!look_find(FLOHSYNC_SCHEMA, table, index, &t->table, &t->index))
		return false;
	t->column = get_attnum(t->table, column);
	return t->column != InvalidAttrNumber;
}

static RunGuard
guard_by_statement(const RunSetup *s)
{
	static DbQuery query = {
		"select r.cancel_requested, c.id is null, c.filter_rules is distinct from"
		" $2::pg_catalog.jsonb"
		" from flohsync.sync_run r left join flohsync.connector_sync_config c"
		" on c.connector_id = r.connector_id and c.resource_type = r.resource_type where r.id = $1",
		2,
		{INT8OID, TEXTOID}};
	Datum values[2] = {Int64GetDatum(s->id)};
	char  nulls[2] = {' ', 'n'};

	if (s->filter_json)
	{
		values[1] = CStringGetTextDatum(s->filter_json);
		nulls[1] = ' ';
	}
	if (db_execute(&query, values, nulls) == 0)
		return RUN_CONFIG_GONE;
	if (db_bool(0, 1))
		return RUN_CANCELLED;
	if (db_bool(0, 2))
		return RUN_CONFIG_GONE;
	return db_bool(0, 3) ? RUN_FILTER_CHANGED : RUN_GO_ON;
}

static RunGuard
guard_look_run(const RunSetup *s, const GuardTable *runs)
{
	Look		look;
	ScanKeyData key;
	RunGuard	guard = RUN_CONFIG_GONE;
	bool		isnull;

	look_may_read(runs->table);
	look_open(&look, runs->table, runs->index, GetActiveSnapshot(), 1);
	look_int8_key(&key, 1, s->id);
	index_rescan(look.scan, &key, 1, NULL, 0);
	if (look_next(&look))
		guard = DatumGetBool(look_value(&look, runs->column, &isnull)) ? RUN_CANCELLED : RUN_GO_ON;
	look_close(&look);
	return guard;
}

static RunGuard
guard_look_configuration(const RunSetup *s, const GuardTable *configurations)
{
	Look		look;
	ScanKeyData keys[2];
	RunGuard	guard = RUN_CONFIG_GONE;
	pg_uuid_t  *connector = DatumGetUUIDP(
		 DirectFunctionCall1(uuid_in, CStringGetDatum(s->connector_id)));

	look_may_read(configurations->table);
	look_open(&look, configurations->table, configurations->index, GetActiveSnapshot(), 2);
	look_uuid_key(&keys[0], 1, connector);
	look_text_key(&keys[1], &look, 2, CStringGetTextDatum(s->resource_type));
	index_rescan(look.scan, keys, 2, NULL, 0);
	if (look_next(&look))
	{
		bool  isnull;
		Datum rules = look_value(&look, configurations->column, &isnull);
		bool  same = isnull ? s->filter_rules == NULL :
							  s->filter_rules != NULL &&
				 compareJsonbContainers(&DatumGetJsonbP(rules)->root, &s->filter_rules->root) == 0;

		guard = same ? RUN_GO_ON : RUN_FILTER_CHANGED;
	}
	look_close(&look);
	return guard;
}

/* guard_run: is the run still wanted, as it was started? */
RunGuard
guard_run(const RunSetup *s)
{
	GuardTable runs;
	GuardTable configurations;
	RunGuard   guard;

	if (!guard_find(&runs, "sync_run", "sync_run_pkey", "cancel_requested") ||
		!guard_find(&configurations, "connector_sync_config",
					"connector_sync_config_connector_id_resource_type_key", "filter_rules"))
		return guard_by_statement(s);
	guard = guard_look_run(s, &runs);
	return guard == RUN_GO_ON ? guard_look_configuration(s, &configurations) : guard;
}
