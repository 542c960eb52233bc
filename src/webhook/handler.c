/*
 * handler.c
 *	  Webhooks without a resource type: for the entitlement handler.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/run_as.h"
#include "webhook/webhook.h"

/*
 * webhook_call_handler: true when that changed anything.
 *
 * The function is known by its name, which a dump can carry.  It must still be
 * owned by who owned it when it was set: another function that somebody put
 * under that name is not called with the rights of who set it.
 */
bool
webhook_call_handler(const Webhook *hook)
{
	static DbQuery query = {
		"select h.handler, _flohsync.role_name(h.owner), _flohsync.role_oid(h.owner), p.oid,"
		" p.proowner,"
		" p.pronargs::int4, p.proargtypes[0], p.prorettype, p.proowner ="
		" _flohsync.role_oid(h.code_owner)"
		" from _flohsync.webhook_handler h"
		" left join pg_catalog.pg_proc p on p.oid = _flohsync.function_of_handler(h.handler)"};
	Datum v[2] = {hook->connector, JsonbPGetDatum(hook->body)};
	Datum owner;
	Oid	  function;
	Oid	  code_owner;
	int	  nargs;
	bool  returns_boolean;
	bool  none;
	bool  ownerless;
	bool  isnull;
	Datum answer;

	if (db_execute(&query, NULL, NULL) == 0)
	{
		static DbQuery insert = {
			"insert into flohsync.entitlement_event (connector_id, body) values ($1, $2)",
			2,
			{UUIDOID, JSONBOID}};

		db_execute(&insert, v, NULL);
		return true;
	}
	owner = db_value(0, 3, &ownerless);
	function = DatumGetObjectId(db_value(0, 4, &none));
	if (none || ownerless)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the entitlement handler %s of role \"%s\" no longer exists", db_text(0, 1),
						clean(db_text(0, 2))),
				 errhint("Set another one with flohsync.set_entitlement_handler().")));
	if (!db_bool(0, 9))
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the owner of the entitlement handler %s has changed since it was set",
					db_text(0, 1)),
			 errhint(
				 "Review the function, then set it again with flohsync.set_entitlement_handler().")));
	code_owner = DatumGetObjectId(db_value(0, 5, &isnull));
	nargs = (int) db_int64(0, 6, 0);
	if (nargs == 2 && DatumGetObjectId(db_value(0, 7, &isnull)) == TEXTOID)
		v[0] = CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(uuid_out, hook->connector)));
	returns_boolean = DatumGetObjectId(db_value(0, 8, &isnull)) == BOOLOID;
	answer = run_as_call(run_as_role(DatumGetObjectId(owner), code_owner), function, nargs,
						 nargs == 1 ? &v[1] : v, &isnull);
	return !returns_boolean || (!isnull && DatumGetBool(answer));
}
