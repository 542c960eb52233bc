/*
 * run_as_guard.c
 *	  Restrictions on foreign code beyond a security-restricted operation: it
 *	  must not leave anything in its session, nor use what is there.
 *
 * - advisory locks of the session: one that stays, or one of the caller's (or
 *   of a run) that is released;
 * - objects in the temporary schema: another's function beside one of the
 *   session's own of the same name;
 * - cursors: one that stays open runs its functions with the rights of the
 *   session that fetches from it; one of the caller's shows the caller's data;
 * - SET CONSTRAINTS, which affects the transaction, and would run the caller's
 *   triggers.
 *
 * No other code is affected.  Rows that a cursor WITH HOLD has materialized
 * already are read without the executor, and so are not guarded.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/clean.h"
#include "base/run_as.h"

/* Marks executions that code of others began, among the flags of the executor. */
#define GUARD_OTHERS_FLAG 0x40000000

static object_access_hook_type	prev_object_access = NULL;
static ExecutorStart_hook_type	prev_executor_start = NULL;
static ExecutorRun_hook_type	prev_executor_run = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;

static void
guard_refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("cannot %s within security-restricted operation", what)));
}

/* Functions whose effect stays in the session. */
static bool
guard_lasts(Oid function)
{
	switch (function)
	{
		case F_PG_ADVISORY_LOCK_INT8:
		case F_PG_ADVISORY_LOCK_INT4_INT4:
		case F_PG_ADVISORY_LOCK_SHARED_INT8:
		case F_PG_ADVISORY_LOCK_SHARED_INT4_INT4:
		case F_PG_TRY_ADVISORY_LOCK_INT8:
		case F_PG_TRY_ADVISORY_LOCK_INT4_INT4:
		case F_PG_TRY_ADVISORY_LOCK_SHARED_INT8:
		case F_PG_TRY_ADVISORY_LOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_INT8:
		case F_PG_ADVISORY_UNLOCK_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_SHARED_INT8:
		case F_PG_ADVISORY_UNLOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_ALL:
		case F_SETSEED:
			return true;
		default:
			return false;
	}
}

/* Is an object that was just made in a temporary schema?  It is not visible to caches yet. */
static bool
guard_is_temporary(Oid class, Oid object)
{
	AttrNumber	attribute = is_objectclass_supported(class) ? get_object_attnum_namespace(class) :
															  InvalidAttrNumber;
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		temporary = false;

	if (attribute == InvalidAttrNumber)
		return false;
	catalog = table_open(class, AccessShareLock);
	ScanKeyInit(&key, get_object_attnum_oid(class), BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object));
	scan = systable_beginscan(catalog, get_object_oid_index(class), true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool  isnull;
		Datum schema = heap_getattr(tuple, attribute, RelationGetDescr(catalog), &isnull);

		temporary = !isnull && isAnyTempNamespace(DatumGetObjectId(schema));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return temporary;
}

static void
guard_object_access(ObjectAccessType access, Oid class, Oid object, int column, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, column, arg);
	if (access == OAT_FUNCTION_EXECUTE)
	{
		if (guard_lasts(object) && run_as_others())
			guard_refuse(psprintf("call %s()", get_func_name(object)));
	}
	else if (access == OAT_POST_CREATE && run_as_others() && guard_is_temporary(class, object))
		guard_refuse("create temporary objects");
}

static void
guard_executor_start(QueryDesc *queryDesc, int eflags)
{
	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	if (run_as_others())
		queryDesc->estate->es_top_eflags |= GUARD_OTHERS_FLAG;
}

/* A cursor can be used only on the side that opened it. */
static void
guard_executor_run(COMPAT_EXECUTOR_RUN_PARAMETERS)
{
	if (ActivePortal && ActivePortal->queryDesc == queryDesc &&
		((queryDesc->estate->es_top_eflags & GUARD_OTHERS_FLAG) != 0) != run_as_others())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cursor \"%s\" cannot be used here", clean(ActivePortal->name)),
				 run_as_others() ?
					 errdetail("It was opened outside of the security-restricted operation.") :
					 errdetail("It was opened within a security-restricted operation.")));
	if (prev_executor_run)
		prev_executor_run(COMPAT_EXECUTOR_RUN_ARGUMENTS);
	else
		standard_ExecutorRun(COMPAT_EXECUTOR_RUN_ARGUMENTS);
}

static void
guard_process_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
					  ProcessUtilityContext context, ParamListInfo params,
					  QueryEnvironment *environment, DestReceiver *dest,
					  QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, ConstraintsSetStmt) && run_as_others())
		guard_refuse("execute SET CONSTRAINTS");
	if (prev_process_utility)
		prev_process_utility(statement, text, read_only_tree, context, params, environment, dest,
							 completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, params, environment, dest,
								completion);
}

void
run_as_guard_init(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = guard_object_access;
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = guard_executor_start;
	prev_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = guard_executor_run;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = guard_process_utility;
}
