/*
 * run_as.c
 *	  Privileges: the one place that runs foreign code, and that knows the
 *	  caller of a public function.
 *
 * Foreign code is a query or function of a connector of kind sql, a fetcher, an
 * entitlement handler, and what an application puts behind the seam.  It
 * runs with the rights of one ordinary role, in a security-restricted
 * operation, with a fixed search path and in a GUC nest level that ends with it.
 * So it cannot acquire another role's rights, nor leave anything in the session
 * that would run with other rights later: no deferred trigger, no cursor WITH
 * HOLD, no temporary table, no prepared statement, no setting.
 *
 * Foreign code never gets the rights of a superuser, of a predefined role (pg_*)
 * or of the extension's own roles.  Such code runs as its own owner, if that is
 * an ordinary role; else as FLOHSYNC_NOBODY_ROLE, which has no privileges.
 *
 * What a security-restricted operation does not prevent is prevented by hooks
 * (run_as_guard.c).
 *
 * The caller of a public function is the current role at the time of the call:
 * the one whose EXECUTE privilege PostgreSQL checks.  That is not the session's
 * role if foreign code is the caller: a SECURITY DEFINER function, a trigger that
 * a foreign key of its owner fires, a function in an index that ANALYZE
 * evaluates.  Inside a SECURITY DEFINER function the caller is not known any
 * more, so public functions that need it are SECURITY INVOKER: an outer half
 * in C records the caller, takes the rights that the inner half in _flohsync runs
 * with, and calls that (entry/rights.c).  An inner half that runs as the owner
 * may call outer halves in turn: these act for the same caller.
 *
 * After an error the previous rights are restored with the (sub)transaction; the
 * caller is unknown until the public function in progress has ended.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "base/run_as.h"

#define RUN_AS_MAX_ARGS 3

/*
 * In the security context while code of others runs; PostgreSQL keeps it there, also for
 * what that calls.
 */
#define RUN_AS_OTHERS 0x40000000

/* Caller of the public function in progress, and the role as which that may ask. */
static Oid run_as_called_by = InvalidOid;
static Oid run_as_called_as = InvalidOid;

/* run_as_function_owner is the owner of a function or procedure. */
Oid
run_as_function_owner(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid		  owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * run_as_worker_role is the role of flohsync.worker_role; an error when there is none, or it
 * is a superuser.
 */
Oid
run_as_worker_role(void)
{
	Oid role = get_role_oid(flohsync_worker_role, true);

	if (!OidIsValid(role) || superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROLE_SPECIFICATION),
				 errmsg("role \"%s\" cannot be used as flohsync.worker_role", flohsync_worker_role),
				 errhint(
					 "Set flohsync.worker_role to a role that exists and is not a superuser.")));
	return role;
}

/*
 * run_as_caller is the role that called the public function whose inner half
 * asks: one that runs as the owner.  Code of others runs in those that run as
 * the worker, and must not act for the caller.
 */
Oid
run_as_caller(void)
{
	if (!OidIsValid(run_as_called_by) || GetUserId() != run_as_called_as)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot determine the calling role here"),
				 errhint("Call the function of this name in schema %s.", FLOHSYNC_SCHEMA)));
	return run_as_called_by;
}

/* run_as_caller_to_note is the same for both kinds, to record who did something. */
Oid
run_as_caller_to_note(void)
{
	if (!OidIsValid(run_as_called_by))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot determine the calling role here")));
	return run_as_called_by;
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
	Oid nobody;

	if (run_as_ordinary(wanted))
		return wanted;
	if (OidIsValid(code_owner) && run_as_ordinary(code_owner))
		return code_owner;
	nobody = get_role_oid(FLOHSYNC_NOBODY_ROLE, true);
	if (!OidIsValid(nobody) || superuser_arg(nobody))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROLE_SPECIFICATION),
				 errmsg("role \"%s\" does not exist, or is a superuser", FLOHSYNC_NOBODY_ROLE),
				 errhint("CREATE EXTENSION creates that role; CREATE ROLE %s restores it.",
						 FLOHSYNC_NOBODY_ROLE)));
	return nobody;
}

void
run_as_begin(RunAs *saved, Oid role)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(role,
						   saved->context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION | RUN_AS_OTHERS);
	saved->called_by = run_as_called_by;
	saved->called_as = run_as_called_as;
	run_as_called_by = run_as_called_as = InvalidOid;
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
	run_as_called_by = saved->called_by;
	run_as_called_as = saved->called_as;
}

/* run_as_others: is code of others running, or what it calls? */
bool
run_as_others(void)
{
	Oid user;
	int context;

	GetUserIdAndSecContext(&user, &context);
	return (context & RUN_AS_OTHERS) != 0;
}

/* run_as_begin_inner takes the rights of the inner half of a public function. */
void
run_as_begin_inner(RunAs *saved, RunAsInner how, Oid owner)
{
	if (how == RUN_AS_WORKER)
	{
		run_as_begin(saved, run_as_worker_role());
		return;
	}
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(owner, saved->context | SECURITY_LOCAL_USERID_CHANGE);
	saved->called_by = run_as_called_by;
	saved->called_as = run_as_called_as;
}

/* run_as_invoke_inner calls the inner half, which can ask who called. */
Datum
run_as_invoke_inner(const RunAs *saved, RunAsInner how, FunctionCallInfo call)
{
	Oid			   called_by = run_as_called_by;
	Oid			   called_as = run_as_called_as;
	volatile Datum value = (Datum) 0;

	run_as_called_by = OidIsValid(saved->called_by) && saved->user == saved->called_as ?
		saved->called_by :
		saved->user;
	run_as_called_as = how == RUN_AS_OWNER ? GetUserId() : InvalidOid;
	PG_TRY();
	{
		value = FunctionCallInvoke(call);
	}
	PG_FINALLY();
	{
		run_as_called_by = called_by;
		run_as_called_as = called_as;
	}
	PG_END_TRY();
	return value;
}

void
run_as_end_inner(const RunAs *saved, RunAsInner how)
{
	if (how == RUN_AS_WORKER)
		run_as_end(saved);
	else
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
	FmgrInfo flinfo;
	RunAs	 saved;
	Datum	 value;

	if (nargs > RUN_AS_MAX_ARGS)
		elog(ERROR, "foreign function has %d arguments", nargs);
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
