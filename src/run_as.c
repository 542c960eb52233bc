/*
 * run_as.c
 *	  Whose rights are in force: the one place that runs the code of others,
 *	  and that says who called.
 *
 * Code of others is a query or function of a connector of kind sql, a fetcher,
 * an entitlement handler, and what an application puts behind the seam.  It
 * runs with the rights of one ordinary role, in a security-restricted
 * operation, with a search path of our own and in a settings level that ends
 * with it.  So it cannot take another role's rights, nor leave anything in the
 * session that would run with other rights later: no deferred trigger, no
 * cursor WITH HOLD, no temporary table, no prepared statement, no setting.
 *
 * Rights that are never lent to code of others: those of a superuser, of a
 * predefined role (pg_*) and of our own roles.  Such code runs as its own
 * owner, if that is an ordinary role; else as FLOHSYNC_NOBODY_ROLE, which has
 * no rights at all.
 *
 * The caller is the role outside of all SECURITY DEFINER functions, ours among
 * them: the session's, or that of SET ROLE.  In a security-restricted operation
 * that role is not who wrote the code that calls (a function in an index, which
 * ANALYZE evaluates; a handler), so there nobody counts as the caller.
 *
 * An error gives back what was in force before, with the (sub)transaction.
 */
#include "postgres.h"

#include "compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "flohsync.h"
#include "guc.h"
#include "run_as.h"

#define RUN_AS_MAX_ARGS		3

/* run_as_worker_role is the role of flohsync.worker_role; an error when there is none, or it is a superuser. */
Oid
run_as_worker_role(void)
{
	Oid			role = get_role_oid(flohsync_worker_role, true);

	if (!OidIsValid(role) || superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROLE_SPECIFICATION),
				 errmsg("role \"%s\" cannot be used as flohsync.worker_role", flohsync_worker_role),
				 errhint("Set flohsync.worker_role to a role that exists and is not a superuser.")));
	return role;
}

/*
 * run_as_caller is the role that called one of our functions, whatever
 * SECURITY DEFINER has switched to since; an error where that cannot be said.
 */
Oid
run_as_caller(void)
{
	if (InSecurityRestrictedOperation() && GetUserId() != get_role_oid(flohsync_worker_role, true))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot be called within a security-restricted operation"),
				 errdetail("Which role asks for this cannot be told there.")));
	return GetOuterUserId();
}

/* May code of others have the rights of this role? */
static bool
run_as_ordinary(Oid role)
{
	/* Predefined roles, and the superuser of initdb, have the ids of the system. */
	return role >= FirstNormalObjectId && !superuser_arg(role) &&
		role != get_role_oid(flohsync_worker_role, true) &&
		role != get_role_oid(FLOHSYNC_OWNER_ROLE, true);
}

/*
 * run_as_role is the role that code of others runs as on behalf of a role:
 * that one, else the owner of the code (InvalidOid: it has none), else the role
 * that has nothing.
 */
Oid
run_as_role(Oid wanted, Oid code_owner)
{
	Oid			nobody;

	if (run_as_ordinary(wanted))
		return wanted;
	if (OidIsValid(code_owner) && run_as_ordinary(code_owner))
		return code_owner;
	nobody = get_role_oid(FLOHSYNC_NOBODY_ROLE, true);
	if (!OidIsValid(nobody) || superuser_arg(nobody))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROLE_SPECIFICATION),
				 errmsg("role \"%s\" does not exist, or is a superuser", FLOHSYNC_NOBODY_ROLE),
				 errhint("CREATE EXTENSION makes that role; CREATE ROLE %s makes it again.", FLOHSYNC_NOBODY_ROLE)));
	return nobody;
}

void
run_as_begin(RunAs *saved, Oid role)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(role, saved->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	saved->guc_level = NewGUCNestLevel();
	/* Names mean the same in every session. */
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* run_as_end also undoes what the code has set. */
void
run_as_end(const RunAs *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->context);
}

/*
 * run_as_call calls a function that is known by its id, so that the role needs
 * EXECUTE and not also USAGE on the schema.  No argument is null.
 */
Datum
run_as_call(Oid role, Oid function, int nargs, const Datum *args, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, RUN_AS_MAX_ARGS);
	FmgrInfo	flinfo;
	RunAs		saved;
	Datum		value;

	if (nargs > RUN_AS_MAX_ARGS)
		elog(ERROR, "a function of others has %d arguments", nargs);
	run_as_begin(&saved, role);
	if (!compat_may_execute(function, role))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function));
	fmgr_info(function, &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, nargs, InvalidOid, NULL, NULL);
	for (int i = 0; i < nargs; i++)
	{
		fcinfo->args[i].value = args[i];
		fcinfo->args[i].isnull = false;
	}
	value = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	CommandCounterIncrement();
	run_as_end(&saved);
	return value;
}
