/*
 * sql_function.c
 *	  Connectors of kind sql: with whose rights they run, and calls of their function.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "base/run_as.h"
#include "source/sql_private.h"

/* Reads with whose rights it runs; the same to the end of the source. */
void
sql_read_rights(Source *source)
{
	static DbQuery query = {
		"select _flohsync.role_oid(o.role), _flohsync.role_name(o.role),"
		" _flohsync.role_oid(d.code_owner) from flohsync.connector_definition d"
		" left join flohsync.connector_sync_config c"
		" on c.connector_id = d.id and c.resource_type = $2"
		" cross join lateral (select case when c.id is null then d.author else c.owner end) o(role)"
		" where d.id = $1::pg_catalog.uuid",
		2,
		{TEXTOID, TEXTOID}};
	SqlState *state = source->state;
	Datum	  v[2] = {CStringGetTextDatum(source->spec.connector_id),
					  CStringGetTextDatum(source->spec.resource_type)};
	Datum	  role;
	bool	  isnull;

	if (state->rights_known)
		return;
	if (db_execute(&query, v, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the connector no longer exists")));
	role = db_value(0, 1, &isnull);
	state->owner = isnull ? InvalidOid : DatumGetObjectId(role);
	state->owner_name = db_get_text(0, 2, source->context);
	role = db_value(0, 3, &isnull);
	state->code_owner = isnull ? InvalidOid : DatumGetObjectId(role);
	state->rights_known = true;
}

/* In any session: the rights of the configuration's owner. */
Oid
sql_role(const SqlState *state, Oid code_owner)
{
	if (!OidIsValid(state->owner))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg(
				 "role \"%s\", the owner of the configuration, no longer exists or may not run it",
				 clean(state->owner_name)),
			 errhint("Assign it to another role with flohsync.set_sync_owner().")));
	return run_as_role(state->owner, code_owner);
}

/* The function of a name, and its owner; InvalidOid when there is none. */
static Oid
sql_find_function(const char *function, Oid *owner)
{
	static DbQuery query = {"select p.oid, p.proowner from pg_catalog.pg_proc p"
							" where p.oid = _flohsync.function_of_kind_sql($1)",
							1,
							{TEXTOID}};
	Datum		   value = CStringGetTextDatum(function);
	bool		   isnull;

	if (db_execute(&query, &value, NULL) != 1)
		return InvalidOid;
	*owner = DatumGetObjectId(db_value(0, 2, &isnull));
	return DatumGetObjectId(db_value(0, 1, &isnull));
}

/* False when there is no such function; the answer says so. */
bool
sql_call_function(Source *source, const char *request, SourceAnswer *answer)
{
	SqlState *state = source->state;
	Oid		  code_owner;
	Oid		  function = sql_find_function(state->function, &code_owner);
	Datum	  argument = DirectFunctionCall1(jsonb_in, CStringGetDatum(request));
	Datum	  result;
	bool	  isnull;

	if (!OidIsValid(function))
	{
		source_fail(source, answer, ERRCLASS_CONFIGURATION,
					"there is no function %s(jsonb) that returns jsonb", state->function);
		return false;
	}
	/* A function of that name with another owner. */
	if (code_owner != state->code_owner)
	{
		source_fail(
			source, answer, ERRCLASS_CONFIGURATION,
			"the owner of function %s has changed since the connector was set to use it; review the function, and set it again with flohsync.update_connector()",
			state->function);
		return false;
	}
	result = run_as_call(sql_role(state, code_owner), function, 1, &argument, &isnull);
	if (!isnull)
	{
		Jsonb *value = DatumGetJsonbP(result);
		char  *text;
		size_t len;

		/* As text, and that in the body. */
		memory_expect(source->memory, (Size) VARSIZE(value) * 3);
		text = JsonbToCString(NULL, &value->root, VARSIZE(value));
		len = strlen(text);
		sql_room(source, len);
		appendBinaryStringInfo(&state->body, text, (int) len);
		pfree(text);
	}
	return true;
}
