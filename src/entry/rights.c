/*
 * rights.c
 *	  SQL-callable: who called, a type for roles, and the outer halves of public
 *	  functions.
 *
 * _flohsync.role is a role as a table keeps it.  It is the role's id, so that
 * it follows a renaming and is not taken over by another role of that name.  In
 * text, and so in a dump, it is the role's name, so that a restored database
 * has the same owners.  A role that is not there any more keeps its name, with
 * a "?" before it, and stays gone: also where a role has that name again.  A
 * name that begins with "?" or "=" has a "=" before it.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "base/clean.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "base/run_as.h"
#include "base/table_check.h"
#include "entry/rights.h"

PG_FUNCTION_INFO_V1(flohsync_caller);
PGDLLEXPORT Datum
flohsync_caller(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(run_as_caller());
}

PG_FUNCTION_INFO_V1(flohsync_caller_name);
PGDLLEXPORT Datum
flohsync_caller_name(PG_FUNCTION_ARGS)
{
	Name name = palloc(NAMEDATALEN);

	namestrcpy(name, GetUserNameFromId(run_as_caller_to_note(), false));
	PG_RETURN_NAME(name);
}

/*
 * The type
 */

typedef struct Role
{
	Oid		 id;   /* InvalidOid: gone */
	NameData name; /* when it was noted */
} Role;

StaticAssertDecl(sizeof(Role) == 68, "INTERNALLENGTH in sql/04_rights.sql");

/* The name of a role as it is now, NULL when the role is gone. */
static char *
role_now(const Role *role)
{
	return OidIsValid(role->id) ? GetUserNameFromId(role->id, true) : NULL;
}

static Role *
role_make(Oid id, const char *name)
{
	Role *role = palloc0(sizeof(Role));

	role->id = id;
	namestrcpy(&role->name, name);
	return role;
}

PG_FUNCTION_INFO_V1(flohsync_role_in);
PGDLLEXPORT Datum
flohsync_role_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	bool		gone = text[0] == '?';
	const char *name = gone || text[0] == '=' ? text + 1 : text;

	if (*name == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" is not the name of a role", clean(text))));
	PG_RETURN_POINTER(role_make(gone ? InvalidOid : get_role_oid(name, true), name));
}

PG_FUNCTION_INFO_V1(flohsync_role_out);
PGDLLEXPORT Datum
flohsync_role_out(PG_FUNCTION_ARGS)
{
	Role *role = (Role *) PG_GETARG_POINTER(0);
	char *name = role_now(role);

	if (name == NULL)
		PG_RETURN_CSTRING(psprintf("?%s", NameStr(role->name)));
	PG_RETURN_CSTRING(name[0] == '?' || name[0] == '=' ? psprintf("=%s", name) : name);
}

PG_FUNCTION_INFO_V1(flohsync_role_from_oid);
PGDLLEXPORT Datum
flohsync_role_from_oid(PG_FUNCTION_ARGS)
{
	Oid id = PG_GETARG_OID(0);

	PG_RETURN_POINTER(role_make(id, GetUserNameFromId(id, false)));
}

/* Null: the role is gone. */
PG_FUNCTION_INFO_V1(flohsync_role_oid);
PGDLLEXPORT Datum
flohsync_role_oid(PG_FUNCTION_ARGS)
{
	Role *role = (Role *) PG_GETARG_POINTER(0);

	if (role_now(role) == NULL)
		PG_RETURN_NULL();
	PG_RETURN_OID(role->id);
}

PG_FUNCTION_INFO_V1(flohsync_role_name);
PGDLLEXPORT Datum
flohsync_role_name(PG_FUNCTION_ARGS)
{
	Role *role = (Role *) PG_GETARG_POINTER(0);
	char *name = role_now(role);

	PG_RETURN_TEXT_P(cstring_to_text(name ? name : NameStr(role->name)));
}

PG_FUNCTION_INFO_V1(flohsync_role_gone);
PGDLLEXPORT Datum
flohsync_role_gone(PG_FUNCTION_ARGS)
{
	Role *role = (Role *) PG_GETARG_POINTER(0);
	char *name = role_now(role);

	PG_RETURN_POINTER(role_make(InvalidOid, name ? name : NameStr(role->name)));
}

/*
 * Public functions in two halves
 *
 * The outer one is SECURITY INVOKER, so that it knows who called, and is here;
 * the inner one has the same name and argument types in schema _flohsync, which
 * nobody else can call.
 *
 *	flohsync_as_owner:  the inner half runs as the owner of the outer one, as if
 *		that were SECURITY DEFINER.  Code of others it runs by run_as_call alone.
 *	flohsync_as_worker: it touches what an application puts behind the seam, and
 *		runs as flohsync.worker_role, restricted.  So the application's code gets
 *		neither the caller's rights nor the owner's.
 *
 * An outer half in schema _flohsync itself has "as_worker_" before its name: our
 * own code, which runs as the owner, calls it to go on as the worker.  The inner
 * half of one in schema flohsync_api (api.c) has "api_" before its name.
 */

#define AS_WORKER_PREFIX "as_worker_"
#define API_PREFIX		 "api_"

typedef struct InnerHalf
{
	Oid		 owner; /* of the outer half */
	FmgrInfo function;
} InnerHalf;

/* The inner half of a function; an error when it has none. */
static InnerHalf *
inner_half(FmgrInfo *flinfo)
{
	InnerHalf	*inner = MemoryContextAlloc(flinfo->fn_mcxt, sizeof(InnerHalf));
	HeapTuple	 tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(flinfo->fn_oid));
	Form_pg_proc proc;
	char		*name;
	Oid			 function;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", flinfo->fn_oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	name = NameStr(proc->proname);
	if (proc->pronamespace == get_namespace_oid(FLOHSYNC_API_SCHEMA, true))
		name = psprintf("%s%s", API_PREFIX, name);
	else if (strncmp(name, AS_WORKER_PREFIX, strlen(AS_WORKER_PREFIX)) == 0)
		name += strlen(AS_WORKER_PREFIX);
	function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
							   PointerGetDatum(&proc->proargtypes),
							   ObjectIdGetDatum(
								   get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false)));
	if (!OidIsValid(function))
		elog(ERROR, "function %u has no inner half", flinfo->fn_oid);
	inner->owner = proc->proowner;
	fmgr_info_cxt(function, &inner->function, flinfo->fn_mcxt);
	ReleaseSysCache(tuple);
	return inner;
}

Datum
rights_call_inner_half(FunctionCallInfo fcinfo, RunAsInner how)
{
	InnerHalf *inner = fcinfo->flinfo->fn_extra;
	LOCAL_FCINFO(call, FUNC_MAX_ARGS);
	RunAs saved;
	Datum value;

	if (inner == NULL)
		fcinfo->flinfo->fn_extra = inner = inner_half(fcinfo->flinfo);
	/* A strict function is never given a null, also when the outer half is not strict. */
	for (int i = 0; inner->function.fn_strict && i < fcinfo->nargs; i++)
	{
		if (fcinfo->args[i].isnull)
			PG_RETURN_NULL();
	}
	run_as_begin_inner(&saved, how, inner->owner);
	table_check(InvalidOid);
	InitFunctionCallInfoData(*call, &inner->function, fcinfo->nargs, fcinfo->fncollation, NULL,
							 NULL);
	memcpy(call->args, fcinfo->args, sizeof(NullableDatum) * fcinfo->nargs);
	value = run_as_invoke_inner(&saved, how, call);
	run_as_end_inner(&saved, how);
	fcinfo->isnull = call->isnull;
	return value;
}

PG_FUNCTION_INFO_V1(flohsync_check_tables);
PGDLLEXPORT Datum
flohsync_check_tables(PG_FUNCTION_ARGS)
{
	Oid role = get_role_oid(flohsync_worker_role, true);

	/* Without that role there are no workers: hindrance() says so. */
	if (OidIsValid(role))
		table_check(role);
	PG_RETURN_BOOL(true);
}

PG_FUNCTION_INFO_V1(flohsync_as_owner);
PGDLLEXPORT Datum
flohsync_as_owner(PG_FUNCTION_ARGS)
{
	return rights_call_inner_half(fcinfo, RUN_AS_OWNER);
}

PG_FUNCTION_INFO_V1(flohsync_as_worker);
PGDLLEXPORT Datum
flohsync_as_worker(PG_FUNCTION_ARGS)
{
	return rights_call_inner_half(fcinfo, RUN_AS_WORKER);
}
