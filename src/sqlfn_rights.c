/*
 * sqlfn_rights.c
 *	  SQL-callable: who called, a type for roles, and functions that do their
 *	  work as the workers' role.
 *
 * _flohsync.role is a role as a table keeps it.  It is the role's id, so that
 * it follows a renaming and is not taken over by another role of that name.  In
 * text, and so in a dump, it is the role's name, so that a restored database
 * has the same owners.  A role that is not there any more keeps its name, with
 * a "?" before it, and stays gone: also where a role has that name again.
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "flohsync.h"
#include "run_as.h"

PG_FUNCTION_INFO_V1(flohsync_caller);
PGDLLEXPORT Datum
flohsync_caller(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(run_as_caller());
}

/*
 * The type
 */

typedef struct Role
{
	Oid			id;				/* InvalidOid: gone */
	NameData	name;			/* when it was noted */
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
	Role	   *role = palloc0(sizeof(Role));

	role->id = id;
	namestrcpy(&role->name, name);
	return role;
}

/* The name of a role, or ?name of one that is gone; a name that begins with "?" gets another one before it. */
PG_FUNCTION_INFO_V1(flohsync_role_in);
PGDLLEXPORT Datum
flohsync_role_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	bool		gone = text[0] == '?' && text[1] != '?';
	const char *name = text[0] == '?' ? text + 1 : text;

	if (*name == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME), errmsg("\"%s\" is not the name of a role", text)));
	PG_RETURN_POINTER(role_make(gone ? InvalidOid : get_role_oid(name, true), name));
}

PG_FUNCTION_INFO_V1(flohsync_role_out);
PGDLLEXPORT Datum
flohsync_role_out(PG_FUNCTION_ARGS)
{
	Role	   *role = (Role *) PG_GETARG_POINTER(0);
	char	   *name = role_now(role);

	if (name == NULL)
		PG_RETURN_CSTRING(psprintf("?%s", NameStr(role->name)));
	PG_RETURN_CSTRING(name[0] == '?' ? psprintf("?%s", name) : name);
}

PG_FUNCTION_INFO_V1(flohsync_role_from_oid);
PGDLLEXPORT Datum
flohsync_role_from_oid(PG_FUNCTION_ARGS)
{
	Oid			id = PG_GETARG_OID(0);

	PG_RETURN_POINTER(role_make(id, GetUserNameFromId(id, false)));
}

/* Null: the role is gone. */
PG_FUNCTION_INFO_V1(flohsync_role_oid);
PGDLLEXPORT Datum
flohsync_role_oid(PG_FUNCTION_ARGS)
{
	Role	   *role = (Role *) PG_GETARG_POINTER(0);

	if (role_now(role) == NULL)
		PG_RETURN_NULL();
	PG_RETURN_OID(role->id);
}

PG_FUNCTION_INFO_V1(flohsync_role_name);
PGDLLEXPORT Datum
flohsync_role_name(PG_FUNCTION_ARGS)
{
	Role	   *role = (Role *) PG_GETARG_POINTER(0);
	char	   *name = role_now(role);

	PG_RETURN_TEXT_P(cstring_to_text(name ? name : NameStr(role->name)));
}

PG_FUNCTION_INFO_V1(flohsync_role_gone);
PGDLLEXPORT Datum
flohsync_role_gone(PG_FUNCTION_ARGS)
{
	Role	   *role = (Role *) PG_GETARG_POINTER(0);
	char	   *name = role_now(role);

	PG_RETURN_POINTER(role_make(InvalidOid, name ? name : NameStr(role->name)));
}

/*
 * As the workers
 */

/*
 * flohsync_as_worker is a public function whose work touches what an
 * application puts behind the seam: it calls the function of its own name and
 * argument types in schema _flohsync, as the workers' role.  So the
 * application's code gets neither the caller's rights nor the owner's.
 */
PG_FUNCTION_INFO_V1(flohsync_as_worker);
PGDLLEXPORT Datum
flohsync_as_worker(PG_FUNCTION_ARGS)
{
	FmgrInfo   *inner = fcinfo->flinfo->fn_extra;
	LOCAL_FCINFO(call, FUNC_MAX_ARGS);
	RunAs		saved;
	Datum		value;

	if (inner == NULL)
	{
		Oid			outer = fcinfo->flinfo->fn_oid;
		Oid		   *types;
		int			n;
		List	   *name = list_make2(makeString(FLOHSYNC_INTERNAL_SCHEMA), makeString(get_func_name(outer)));

		(void) get_func_signature(outer, &types, &n);
		inner = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(FmgrInfo));
		fmgr_info_cxt(LookupFuncName(name, n, types, false), inner, fcinfo->flinfo->fn_mcxt);
		fcinfo->flinfo->fn_extra = inner;
	}
	InitFunctionCallInfoData(*call, inner, fcinfo->nargs, fcinfo->fncollation, NULL, NULL);
	memcpy(call->args, fcinfo->args, sizeof(NullableDatum) * fcinfo->nargs);
	run_as_begin(&saved, run_as_worker_role());
	value = FunctionCallInvoke(call);
	run_as_end(&saved);
	fcinfo->isnull = call->isnull;
	return value;
}
