/*
 * spec.c
 *	  What source_open needs to know of a connector, from the tables.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "source/secret_store.h"
#include "source/spec.h"

/*
 * source_read_spec is what source_open needs for a type of a connector,
 * whatever is wanted of it; false when there is no such connector.  Raises when
 * its config cannot be used.  The caller has a transaction open, and sets
 * in_transaction and page_size.
 */
bool
source_read_spec(const char *connector_id, const char *resource_type, SourceSpec *spec, MemoryContext context)
{
	static DbQuery query = {
		"select d.kind, _flohsync.list_command(d.config, $2), _flohsync.get_command(d.config, $2), d.config ->> 'url',"
		" array(select h.key || ': ' || h.value from pg_catalog.jsonb_each_text(d.config -> 'headers') h),"
		" d.config ->> 'function', d.config -> 'queries' ->> $2, _flohsync.role_oid(case when c.id is null then d.author else c.owner end),"
		" d.config::pg_catalog.text, d.definition::pg_catalog.text,"
		" case d.kind when 'command' then (d.config #>> '{limits,requests_per_minute}')::pg_catalog.numeric::pg_catalog.int8 end,"
		" _flohsync.role_name(case when c.id is null then d.author else c.owner end), _flohsync.role_oid(d.code_owner),"
		" case d.kind when 'command' then (d.config #>> '{limits,total_tolerance}')::pg_catalog.float8 end"
		" from flohsync.connector_definition d"
		" left join flohsync.connector_sync_config c on c.connector_id = d.id and c.resource_type = $2"
		" where d.id = $1::pg_catalog.uuid",
		2, {TEXTOID, TEXTOID}
	};
	static DbQuery check = {
		"select _flohsync.config_fault(d.kind, d.config) from flohsync.connector_definition d where d.id = $1::pg_catalog.uuid", 1, {TEXTOID}
	};
	Datum		v[2] = {CStringGetTextDatum(connector_id), CStringGetTextDatum(resource_type)};
	Datum		owner;
	Datum		tolerance;
	bool		isnull;

	char	   *fault;

	memset(spec, 0, sizeof(*spec));
	/* Before the values are read as what they should be. */
	fault = db_execute(&check, v, NULL) == 1 ? db_text(0, 1) : NULL;
	if (fault)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the connector's config cannot be used: %s", clean(fault))));
	if (db_execute(&query, v, NULL) == 0)
		return false;
	spec->kind = db_get_text(0, 1, context);
	spec->list_command = db_get_text(0, 2, context);
	spec->get_command = db_get_text(0, 3, context);
	spec->url = db_get_text(0, 4, context);
	spec->nheaders = Max(0, db_get_texts(0, 5, &spec->headers, context));
	spec->function = db_get_text(0, 6, context);
	spec->query = db_get_text(0, 7, context);
	owner = db_value(0, 8, &isnull);
	spec->owner = isnull ? InvalidOid : DatumGetObjectId(owner);
	spec->owner_name = db_get_text(0, 12, context);
	owner = db_value(0, 13, &isnull);
	spec->code_owner = isnull ? InvalidOid : DatumGetObjectId(owner);
	spec->config = db_get_text(0, 9, context);
	spec->definition = db_get_text(0, 10, context);
	spec->requests_per_minute = (int) db_int64(0, 11, 0);
	tolerance = db_value(0, 14, &isnull);
	spec->total_tolerance = isnull ? -1 : DatumGetFloat8(tolerance);
	spec->connector_id = MemoryContextStrdup(context, connector_id);
	spec->resource_type = MemoryContextStrdup(context, resource_type);
	secrets_read(DirectFunctionCall1(uuid_in, CStringGetDatum(connector_id)), spec, context);
	return true;
}
