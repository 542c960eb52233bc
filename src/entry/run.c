/*
 * run.c
 *	  SQL-callable: having workers look for runs, waiting for runs, interrupting them.
 */
#include "postgres.h"

#include "base/compat.h"

#include <signal.h>

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_lock.h"
#include "base/error_class.h"
#include "base/guc.h"
#include "base/memory_page.h"
#include "base/table_check.h"
#include "base/wait.h"
#include "run/run.h"
#include "server/launcher.h"
#include "server/worker.h"
#include "shared/hindrance.h"
#include "shared/shmem.h"

#define RELAUNCH_AFTER_MS 2000
#define EXPLAIN_AFTER_MS  700 /* that a run waits for a worker */

PG_FUNCTION_INFO_V1(flohsync_wake);
PGDLLEXPORT Datum
flohsync_wake(PG_FUNCTION_ARGS)
{
	worker_wake(MyDatabaseId);
	PG_RETURN_VOID();
}

static char *
uuid_text(Datum uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, uuid));
}

PG_FUNCTION_INFO_V1(flohsync_try_run_lock);
PGDLLEXPORT Datum
flohsync_try_run_lock(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(
		db_lock_run(uuid_text(PG_GETARG_DATUM(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)), false));
}

/*
 * flohsync_interrupt_run cancels what the holder of a run's lock is doing.  The
 * lock table, not a column, says who that is.
 */
PG_FUNCTION_INFO_V1(flohsync_interrupt_run);
PGDLLEXPORT Datum
flohsync_interrupt_run(PG_FUNCTION_ARGS)
{
	static DbQuery query = {
		"select l.pid from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid ="
		" l.pid"
		" where l.locktype = 'advisory' and l.granted and l.objsubid = $1 and l.classid = $2"
		" and l.objid = $3"
		" and l.database = (select d.oid from pg_catalog.pg_database d where d.datname ="
		" pg_catalog.current_database())",
		3,
		{INT4OID, OIDOID, OIDOID}};
	uint64 key;
	Datum  v[3];
	bool   sent = false;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	key = db_run_lock_key(uuid_text(PG_GETARG_DATUM(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)));
	v[0] = Int32GetDatum(DB_LOCK_RUN);
	v[1] = ObjectIdGetDatum((uint32) (key >> 32));
	v[2] = ObjectIdGetDatum((uint32) key);
	SPI_connect();
	if (db_execute(&query, v, NULL) == 1)
	{
		int pid = (int) db_int64(0, 1, 0);

		sent = pid > 0 && pid != MyProcPid && kill(pid, SIGINT) == 0;
	}
	SPI_finish();
	PG_RETURN_BOOL(sent);
}

PG_FUNCTION_INFO_V1(flohsync_stage);
PGDLLEXPORT Datum
flohsync_stage(PG_FUNCTION_ARGS)
{
	run_report_stage(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* Why no worker takes a run until that is changed, or NULL. */
static const char *
sync_lasting_hindrance(void)
{
	Oid			role;
	const char *why;
	TableFault	fault;

	if (!flohsync_enabled)
		return "flohsync.enabled is off";
	why = worker_obstacle(MyDatabaseId, &role);
	if (why == NULL && table_fault(role, &fault))
		why = fault.message;
	return why;
}

PG_FUNCTION_INFO_V1(flohsync_hindrance);
PGDLLEXPORT Datum
flohsync_hindrance(PG_FUNCTION_ARGS)
{
	const char *why = sync_lasting_hindrance();

	if (why == NULL)
		why = shmem_hindrance(MyDatabaseId);
	if (why == NULL && !launcher_has(get_database_name(MyDatabaseId)))
		why = "this database is not in flohsync.databases: its schedules do not run";
	if (why == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(why));
}

typedef struct RunState
{
	char  status[16];
	char *error;
	char *error_class;
	Datum stats; /* jsonb, 0: null */
} RunState;

/* Reads a run; false when it is gone. */
static bool
sync_read_run(int64 run, RunState *state, MemoryContext context)
{
	static DbQuery query = {
		"select r.status, r.error, r.error_class, r.stats from flohsync.sync_run r where r.id"
		" OPERATOR(pg_catalog.=) $1",
		1,
		{INT8OID}};
	Datum		  v = Int64GetDatum(run);
	MemoryContext old;
	bool		  isnull;
	Datum		  stats;
	char		 *text;

	memset(state, 0, sizeof(*state));
	if (db_execute(&query, &v, NULL) == 0)
		return false;
	strlcpy(state->status, db_text(0, 1), sizeof(state->status));
	old = MemoryContextSwitchTo(context);
	if ((text = db_text(0, 2)) != NULL)
		state->error = pstrdup(text);
	if ((text = db_text(0, 3)) != NULL)
		state->error_class = pstrdup(text);
	stats = db_value(0, 4, &isnull);
	if (!isnull)
		state->stats = PointerGetDatum(PG_DETOAST_DATUM_COPY(stats));
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/* Waits for the end of a run; says, or raises, why none takes it. */
static void
sync_wait(int64 run, RunState *state, MemoryContext context)
{
	const char *told = NULL;
	TimestampTz queued_since;
	TimestampTz asked_at;

	asked_at = queued_since = GetCurrentTimestamp();
	for (;;)
	{
		bool found;

		PushActiveSnapshot(GetTransactionSnapshot());
		found = sync_read_run(run, state, context);
		if (found && strcmp(state->status, "queued") == 0 &&
			TimestampDifferenceExceeds(queued_since, GetCurrentTimestamp(), RELAUNCH_AFTER_MS))
		{
			/* All places were taken when we asked; without a launcher nobody else asks again. */
			worker_wake(MyDatabaseId);
			queued_since = GetCurrentTimestamp();
		}
		if (found && strcmp(state->status, "queued") == 0 &&
			TimestampDifferenceExceeds(asked_at, GetCurrentTimestamp(), EXPLAIN_AFTER_MS))
		{
			const char *why = sync_lasting_hindrance();

			if (why)
				ereport(
					ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("no worker takes run " INT64_FORMAT ": %s", run, why),
					 errhint(
						 "The run stays queued until that is changed; flohsync.cancel_sync(" INT64_FORMAT
						 ") removes it.",
						 run)));
			why = shmem_hindrance(MyDatabaseId);
			if (why == NULL)
				why = worker_hindrance();
			if (why && (told == NULL || strcmp(why, told) != 0))
			{
				told = MemoryContextStrdup(context, why);
				ereport(NOTICE,
						(errmsg("run " INT64_FORMAT " waits for a worker: %s", run, clean(why))));
			}
		}
		PopActiveSnapshot();
		SPI_commit();
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("run " INT64_FORMAT " was removed before it ended", run)));
		if (strcmp(state->status, "queued") != 0 && strcmp(state->status, "running") != 0)
			break;
		shmem_wait_run_finished(200);
	}
}

/* Raises what a run ended with, if that is no success. */
static void
sync_raise(int64 run, const RunState *state)
{
	if (strcmp(state->status, "success") != 0)
		ereport(ERROR,
				(errcode(strcmp(state->status, "cancelled") == 0 ?
							 ERRCODE_QUERY_CANCELED :
							 strcmp(state->status, "held") == 0 ?
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE :
							 ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("run " INT64_FORMAT " %s: %s", run,
						strcmp(state->status, "held") == 0			? "is held" :
							strcmp(state->status, "cancelled") == 0 ? "was cancelled" :
																	  "failed",
						state->error ? clean(state->error) : "no message"),
				 strcmp(state->status, "held") == 0 ?
					 errhint("Review it, then call flohsync.approve_run(" INT64_FORMAT
							 ") or flohsync.reject_run(" INT64_FORMAT ").",
							 run, run) :
					 state->error_class ? errdetail("Error class: %s.", state->error_class) :
										  0,
				 state->error_class &&
						 strcmp(state->error_class, error_class_name(ERRCLASS_PAGE_MEMORY)) == 0 ?
					 errhint("%s", memory_hint()) :
					 0));
}

/*
 * flohsync_sync is CALL sync: ask for a run, commit, and look for its end in
 * short transactions, so that the wait holds no lock and no snapshot.
 */
PG_FUNCTION_INFO_V1(flohsync_sync);
PGDLLEXPORT Datum
flohsync_sync(PG_FUNCTION_ARGS)
{
	static DbQuery trigger = {"select flohsync.trigger_sync($1, $2, $3)",
							  3,
							  {TEXTOID, TEXTOID, TEXTOID}};
	CallContext	  *call = (CallContext *) fcinfo->context;
	MemoryContext  context = CurrentMemoryContext;
	Datum		   v[3];
	char		   nulls[3];
	int64		   run;
	RunState	   state;
	TupleDesc	   desc;
	Datum		   out;
	bool		   isnull;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("flohsync.sync() cannot wait inside a transaction block"),
			 errhint(
				 "CALL it outside a transaction block, or request the run with flohsync.trigger_sync().")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "sync must have an output argument");
	desc = BlessTupleDesc(CreateTupleDescCopy(desc));
	for (int i = 0; i < 3; i++)
	{
		int argument = i < 2 ? i : 3;

		nulls[i] = PG_ARGISNULL(argument) ? 'n' : ' ';
		v[i] = PG_ARGISNULL(argument) ? (Datum) 0 :
										PointerGetDatum(PG_GETARG_TEXT_P_COPY(argument));
	}

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	PushActiveSnapshot(GetTransactionSnapshot());
	db_execute(&trigger, v, nulls);
	run = db_int64(0, 1, 0);
	PopActiveSnapshot();
	SPI_commit();

	sync_wait(run, &state, context);
	SPI_finish();

	sync_raise(run, &state);
	isnull = state.stats == 0;
	out = HeapTupleGetDatum(heap_form_tuple(desc, &state.stats, &isnull));
	PG_RETURN_DATUM(out);
}
