/*
 * sqlfn_webhook_handler.c
 *	  Webhooks without a resource type: for the entitlement handler.
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "db.h"
#include "sqlfn_webhook.h"

/* webhook_call_handler: true when that changed anything. */
bool
webhook_call_handler(const Webhook *hook)
{
	static DbQuery query = {
		"select h.handler, h.owner, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname), p.pronargs::int4, p.proargtypes[0]::int8, p.proowner::int8"
		" from _flohsync.webhook_handler h left join pg_catalog.pg_proc p on p.oid = pg_catalog.to_regprocedure(h.handler)"
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
