/*
 * worker.c
 *	  A worker: connects to one database, executes the runs that are due
 *	  there, publishes when the next is due, exits.
 *
 * No connection to a database without work is kept, so that it can be
 * dropped, renamed and copied, and costs nothing.  A worker that is killed
 * leaves its run "running" with the lock free; the next worker resumes it.
 * Exit codes are 0 and 1 only: any other restarts the cluster.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_lock.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "base/table_check.h"
#include "record/outbox.h"
#include "run/queue.h"
#include "run/run.h"
#include "server/worker.h"
#include "shared/hindrance.h"
#include "shared/shmem.h"

#define WORKER_LOOK_AGAIN_MS	600000
#define WORKER_LOOK_ANYWAY_NAPS 5

/*
 * worker_launch has the postmaster start a worker, if there is room.  Safe in
 * a commit callback: raises nothing.
 */
WorkerLaunch
worker_launch(Oid database, Oid role, WorkerKind kind)
{
	BackgroundWorker worker;
	WorkerTicket	 ticket = {.database = database, .role = role, .slot = -1, .kind = kind};
	const char		*name = kind == WORKER_CACHE ? "invalidator" : "worker";

	if (shmem_available() &&
		(ticket.slot = shmem_reserve_worker(database, kind, &ticket.generation)) < 0)
		return LAUNCH_ALL_BUSY;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "flohsync", BGW_MAXLEN);
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "flohsync_%s_main", name);
	snprintf(worker.bgw_name, BGW_MAXLEN, "flohsync %s for database %u", name, database);
	snprintf(worker.bgw_type, BGW_MAXLEN, "flohsync %s", name);
	StaticAssertStmt(sizeof(ticket) <= BGW_EXTRALEN, "ticket must fit");
	memcpy(worker.bgw_extra, &ticket, sizeof(ticket));
	if (RegisterDynamicBackgroundWorker(&worker, NULL))
		return LAUNCH_DONE;
	if (ticket.slot >= 0)
		shmem_release_worker(ticket.slot, ticket.generation);
	return LAUNCH_NO_PROCESS;
}

/* Is the cluster read-only by configuration? */
static bool cluster_read_only = false;

/*
 * Notes why nothing can be done here; the log says it once.  In a transaction,
 * since names of databases are in a catalog.
 */
void
worker_is_hindered(const char *why, bool seen_by_all, const char *detail, const char *hint)
{
	if (shmem_hindrance_note(MyDatabaseId, why, seen_by_all))
		ereport(WARNING,
				(errmsg("flohsync does nothing in database \"%s\": %s",
						get_database_name(MyDatabaseId), clean(why)),
				 detail ? errdetail("%s", clean(detail)) : 0,
				 hint ? errhint("%s", clean(hint)) : 0));
}

static bool
worker_must_not_write(void)
{
	if (!cluster_read_only)
		return false;
	db_begin("finding the cluster read only");
	worker_is_hindered("the cluster's default_transaction_read_only is on", false, NULL, NULL);
	db_commit();
	return true;
}

/* Settings of the database or the role must not change what our statements mean. */
static void
worker_pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"standard_conforming_strings", "on"},
		{"client_encoding", "UTF8"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", "5s"},
		{"jit", "off"},
		{"transform_null_equals", "off"},
		{"array_nulls", "on"},
		{"idle_session_timeout", "0"},
		{"plpgsql.variable_conflict", "error"},
		{"plpgsql.extra_errors", "none"},
		{"plpgsql.extra_warnings", "none"},
#ifdef COMPAT_TRANSACTION_TIMEOUT
		{"transaction_timeout", "0"},
#endif
	};

	for (size_t i = 0; i < lengthof(pinned); i++)
		SetConfigOption(pinned[i][0], pinned[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* The extension must be here, and of the version that this library was made for. */
bool
worker_check_extension(void)
{
	bool good = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (OidIsValid(get_extension_oid(FLOHSYNC_EXTENSION, true)))
	{
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (SPI_execute("select extversion from pg_catalog.pg_extension where extname = 'flohsync'",
						true, 1) == SPI_OK_SELECT &&
			SPI_processed == 1)
		{
			const char *version = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

			good = strcmp(version, FLOHSYNC_VERSION) == 0;
			if (!good)
				worker_is_hindered(psprintf("the extension there has version %s, the library %s",
											version, FLOHSYNC_VERSION),
								   false, NULL, "Run ALTER EXTENSION flohsync UPDATE there.");
		}
		SPI_finish();
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	return good;
}

static bool
worker_meets_table_fault(void)
{
	TableFault fault;
	bool	   found;

	db_begin("looking at the tables");
	found = table_fault(InvalidOid, &fault);
	if (found)
		worker_is_hindered(fault.message, true, fault.detail, fault.hint);
	db_commit();
	return found;
}

static void
worker_do_run(const RunCandidate *claimed)
{
	char doing[NAMEDATALEN];

	snprintf(doing, sizeof(doing), "flohsync run " INT64_FORMAT, claimed->id);
	pgstat_report_appname(doing);
	run_execute(claimed->id);
	db_unlock_run(claimed->connector_id, claimed->resource_type);
	pgstat_report_appname("flohsync worker");
	pgstat_report_stat(true);
}

/* After a crash no other process knows that invalidations are left. */
static void
worker_look_at_outbox(Oid database)
{
	bool waiting;

	db_begin("looking for invalidations");
	waiting = outbox_waiting();
	db_commit();
	if (waiting)
		shmem_wake_database(database, WORKER_CACHE);
}

/* worker_enter is how every worker begins: signals, slot, connection, settings. */
void
worker_enter(WorkerTicket *ticket, const char *name)
{
	memcpy(ticket, MyBgworkerEntry->bgw_extra, sizeof(*ticket));
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* SIGINT cancels the current statement; SIGUSR1 handles barriers: the defaults. */
	BackgroundWorkerUnblockSignals();

	if (!shmem_worker_attach(ticket))
		proc_exit(0);
	/* Before the connection, which brings along what a database or a role has set. */
	cluster_read_only = DefaultXactReadOnly;
	BackgroundWorkerInitializeConnectionByOid(ticket->database, ticket->role, 0);
	/* Not superuser(): that may look into a catalog, and there is no transaction. */
	if (compat_session_is_superuser())
		ereport(FATAL,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("flohsync workers cannot run as a superuser"),
				 errhint("Set flohsync.worker_role to another role.")));
	worker_pin_settings();
	pgstat_report_appname(name);
}

void
flohsync_worker_main(Datum arg)
{
	WorkerTicket  ticket;
	MemoryContext context;
	TimestampTz	  next_due = DT_NOEND;
	uint32		  seq;

	worker_enter(&ticket, "flohsync worker");
	context = AllocSetContextCreate(TopMemoryContext, "flohsync worker", ALLOCSET_DEFAULT_SIZES);

	do
	{
		TimestampTz began = GetCurrentTimestamp();

		seq = shmem_wake_seq(ticket.database, WORKER_RUNS);
		next_due = DT_NOEND;
		if (RecoveryInProgress() || !worker_check_extension())
			continue;
		if (!flohsync_enabled || worker_must_not_write() || worker_meets_table_fault())
		{
			/* There is no notification when it is enabled again. */
			next_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORKER_LOOK_AGAIN_MS);
			continue;
		}
		for (;;)
		{
			RunCandidate claimed;
			bool		 more;

			MemoryContextReset(context);
			MemoryContextSwitchTo(context);
			if (!worker_look(&claimed, &more, &next_due, began, context))
				break;
			/* Others take what else is waiting, and what falls due while we work. */
			shmem_publish_due(ticket.database, seq, more ? GetCurrentTimestamp() : next_due);
			worker_do_run(&claimed);
			seq = shmem_wake_seq(ticket.database, WORKER_RUNS);
			/* One busy database must not make the others wait: its turn comes again. */
			if (shmem_others_wait(ticket.database))
			{
				next_due = GetCurrentTimestamp();
				break;
			}
		}
		if (flohsync_run_retention > 0)
		{
			bool more;

			/* What there is to do does not wait until all of it is forgotten. */
			do
			{
				db_begin("purging history");
				more = queue_purge_history(flohsync_run_retention);
				db_commit();
			} while (more && next_due > GetCurrentTimestamp() &&
					 shmem_wake_seq(ticket.database, WORKER_RUNS) == seq &&
					 !shmem_others_wait(ticket.database));
		}
		worker_look_at_outbox(ticket.database);
		/*
		 * Not all work sends a wake-up: rows from a restore, from replication, or written
		 * with triggers disabled.
		 */
		next_due = Min(next_due,
					   TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   WORKER_LOOK_ANYWAY_NAPS * 1000L *
													   flohsync_launcher_naptime));
	} while (!shmem_worker_done(&ticket, seq, next_due));
	proc_exit(0);
}
