/*
 * db.c
 *	  The only place that starts and ends transactions.
 *
 * A worker's transaction begins with the extension guard: the extension is
 * looked up by name and its object is locked, so that DROP EXTENSION waits for
 * the transaction, and the worker leaves in peace when it is gone.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "base/wait.h"

#define DB_ATTEMPTS		 10
#define DB_LOCK_ATTEMPTS 100 /* of lock_timeout each (worker.c) */

/* Where the caller of db_begin allocates; a commit would leave it in TopMemoryContext. */
static MemoryContext db_caller_context = NULL;

/* Extensions are in no cache.  But this one has a schema, which goes with it, and schemas are. */
static void
db_guard_extension(void)
{
	static Oid extension = InvalidOid;
	static Oid schema = InvalidOid;

	if (OidIsValid(schema))
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		if (get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, true) == schema)
			return;
	}
	extension = get_extension_oid(FLOHSYNC_EXTENSION, true);
	if (OidIsValid(extension))
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		schema = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, true);
		if (get_extension_oid(FLOHSYNC_EXTENSION, true) == extension)
			return;
	}
	/* Nothing to do here, and no error. */
	AbortCurrentTransaction();
	proc_exit(0);
}

/*
 * db_begin starts a worker's transaction, with a snapshot and SPI connected.
 * What is allocated until db_commit goes with it; afterwards the caller's
 * memory context is the current one again.
 *
 * Settings are those that the worker began with: what an application's code
 * behind the seam has set reaches no other transaction.
 */
void
db_begin(const char *activity)
{
	db_caller_context = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ResetAllOptions();
	db_guard_extension();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (activity)
		pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * db_constraints_immediate has all constraints checked by each statement until the end of
 * the transaction.
 */
void
db_constraints_immediate(void)
{
	ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(statement);
}

/* So many transactions of this process have written something and were committed by db_commit. */
static uint64 db_own_ended = 0;

void
db_commit(void)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		db_own_ended++;
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(db_caller_context);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * db_commit_async does not wait for the disk.  For what a later, synchronous
 * commit covers, and what can be lost as a whole: a page is lost with its row
 * in the ledger, and is then fetched again.
 */
void
db_commit_async(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	db_commit();
}

/*
 * db_transactions_ended: how many have that wrote something.  As long as it is the same, a
 * snapshot of now sees what one saw that was taken then.
 */
uint64
db_transactions_ended(void)
{
	uint64 n;

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	n = compat_xact_completion_count();
	LWLockRelease(ProcArrayLock);
	return n;
}

/*
 * db_others_ended: how many have but for those that this process committed.  As long as it is
 * the same, a snapshot sees nothing new of others.
 */
uint64
db_others_ended(void)
{
	return db_transactions_ended() - db_own_ended;
}

/* db_abort rolls back whatever is open; good after any error. */
void
db_abort(void)
{
	if (IsTransactionState() || IsAbortedTransactionBlockState())
		AbortCurrentTransaction();
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Is an error transient? */
static bool
db_error_passes(int sqlerrcode, int attempt)
{
	switch (sqlerrcode)
	{
		case ERRCODE_UNIQUE_VIOLATION: /* another session inserted the same row meanwhile */
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
			return attempt < DB_ATTEMPTS;
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return attempt < DB_LOCK_ATTEMPTS;
	}
	return false;
}

/* One attempt; false when it should be retried. */
static bool
db_attempt(DbWork work, void *arg, int attempt)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = true;

	PG_TRY();
	{
		work(arg);
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (!db_error_passes(edata->sqlerrcode, attempt))
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(edata);
		db_abort();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}

/*
 * db_retry does work until its transaction comes through, or until it fails
 * with an error that would come again: that one is raised.
 */
void
db_retry(DbWork work, void *arg)
{
	for (int attempt = 1; !db_attempt(work, arg, attempt); attempt++)
		wait_ms(Min(1000, 20L << Min(attempt, 6)), WAIT_RETRY);
}

/* What makes a plan one for a few rows by their keys, whatever the session's settings. */
static const char *const by_index_settings[][2] = {
	{"enable_seqscan", "off"},	 {"enable_bitmapscan", "off"}, {"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"}, {"enable_material", "off"},   {"jit", "off"},
	{"enable_nestloop", "on"},	 {"enable_indexscan", "on"},   {"enable_indexonlyscan", "on"},
};

static void
db_prepare(DbQuery *query)
{
	SPIPlanPtr plan = SPI_prepare_cursor(query->sql, query->nargs, query->types,
										 query->plan_as == PLAN_CUSTOM	 ? CURSOR_OPT_CUSTOM_PLAN :
											 query->plan_as == PLAN_AUTO ? 0 :
																		   CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", query->sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	query->plan = plan;
}

/* The one plan of a statement PLAN_BY_INDEX, made under settings that nothing else sees. */
static void
db_plan_by_index(DbQuery *query)
{
	int			level = NewGUCNestLevel();
	CachedPlan *made;

	for (size_t i = 0; i < lengthof(by_index_settings); i++)
		(void) set_config_option(by_index_settings[i][0], by_index_settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (query->plan == NULL)
		db_prepare(query);
	made = SPI_plan_get_cached_plan(query->plan);
	if (made)
		ReleaseCachedPlan(made, CurrentResourceOwner);
	AtEOXact_GUC(true, level);
}

/* A plan by indexes is made now, and again after ANALYZE. */
static void
db_plan(DbQuery *query)
{
	if (query->plan_as == PLAN_BY_INDEX && (query->plan == NULL || !SPI_plan_is_valid(query->plan)))
		db_plan_by_index(query);
	else if (query->plan == NULL)
		db_prepare(query);
}

/* db_execute runs a statement; rows are in SPI_tuptable, their number returned. */
uint64
db_execute(DbQuery *query, Datum *values, const char *nulls)
{
	int rc;

	db_plan(query);
	rc = SPI_execute_plan(query->plan, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute \"%s\": %s", query->sql, SPI_result_code_string(rc));
	return SPI_processed;
}

/* db_execute_to hands the rows of a statement to "dest", one after the other. */
void
db_execute_to(DbQuery *query, Datum *values, const char *nulls, DestReceiver *dest)
{
	SPIExecuteOptions options = {.dest = dest};
	int				  rc;

	db_plan(query);
	options.params = makeParamList(query->nargs);
	for (int i = 0; i < query->nargs; i++)
	{
		ParamExternData *param = &options.params->params[i];

		param->value = values[i];
		param->isnull = nulls != NULL && nulls[i] == 'n';
		param->pflags = PARAM_FLAG_CONST;
		param->ptype = query->types[i];
	}
	rc = SPI_execute_plan_extended(query->plan, &options);
	if (rc < 0)
		elog(ERROR, "could not execute \"%s\": %s", query->sql, SPI_result_code_string(rc));
}

/* A missing row, for whatever reason, must be an error and no invalid memory access. */
static HeapTuple
db_row(uint64 row)
{
	if (SPI_tuptable == NULL || row >= SPI_tuptable->numvals)
		elog(ERROR, "a statement of flohsync did not return the row that it must");
	return SPI_tuptable->vals[row];
}

Datum
db_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(db_row(row), SPI_tuptable->tupdesc, column, isnull);
}

/* db_text returns the text form of a value, or NULL. */
char *
db_text(uint64 row, int column)
{
	return SPI_getvalue(db_row(row), SPI_tuptable->tupdesc, column);
}

int64
db_int64(uint64 row, int column, int64 otherwise)
{
	bool  isnull;
	Datum value = db_value(row, column, &isnull);

	if (isnull)
		return otherwise;
	return SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT4OID ? DatumGetInt32(value) :
																	 DatumGetInt64(value);
}

bool
db_bool(uint64 row, int column)
{
	bool  isnull;
	Datum value = db_value(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}
