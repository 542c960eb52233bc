/*
 * launcher.c
 *	  The process that starts workers when they are due.
 *
 * It is connected to no database and reads only shared catalogs.  After a
 * start, every database is due once: a worker looks in, finds what a crash
 * left behind, and says when to come again.  It runs only on a primary, and
 * comes back 5 s after any end.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "base/wait.h"
#include "server/launcher.h"
#include "server/worker.h"
#include "shared/cache.h"
#include "shared/hindrance.h"
#include "shared/shmem.h"

#define CLOCK_STEP_MS 10000

void
launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "flohsync", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "flohsync_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "flohsync launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "flohsync launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* Is a database on the list of flohsync.databases? */
static bool
launcher_wants(List *names, const char *database)
{
	ListCell *cell;

	foreach (cell, names)
		if (strcmp(lfirst(cell), "*") == 0 || strcmp(lfirst(cell), database) == 0)
			return true;
	return false;
}

/* launcher_has: is a database on that list?  Only those have schedules. */
bool
launcher_has(const char *database)
{
	List *names = NIL;

	return SplitGUCList(pstrdup(flohsync_databases), ',', &names) &&
		launcher_wants(names, database);
}

/*
 * Reads the list of databases.  Of those that have
 * a place in the cache's shared memory and are gone, it frees that; what is
 * taken after the list is read does not count.
 */
static void
launcher_refresh(void)
{
	Relation	  relation;
	TableScanDesc scan;
	HeapTuple	  tuple;
	Oid			 *databases;
	int			  n = 0;
	int			  room = 64;
	char		 *copy;
	List		 *names = NIL;
	int			  missing;
	Oid			 *cached;
	int			  ncached;
	static bool	  reported_missing = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ncached = shmem_cache_databases(&cached);
	(void) GetTransactionSnapshot();
	copy = pstrdup(flohsync_databases);
	if (!SplitGUCList(copy, ',', &names))
		ereport(LOG, (errmsg("invalid list syntax in parameter \"flohsync.databases\"")));
	databases = palloc(sizeof(Oid) * room);
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		for (int i = 0; i < ncached; i++)
			if (cached[i] == database->oid)
				cached[i] = InvalidOid;
		if (!database->datallowconn || database->datistemplate ||
			!launcher_wants(names, NameStr(database->datname)))
			continue;
		if (n == room)
			databases = repalloc(databases, sizeof(Oid) * (room *= 2));
		databases[n++] = database->oid;
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	for (int i = 0; i < ncached; i++)
		if (OidIsValid(cached[i]))
			shmem_cache_release(cached[i]);
	missing = shmem_sync_databases(databases, n);
	if (missing > 0 && !reported_missing)
		ereport(WARNING,
				(errmsg("flohsync has no shared memory for %d databases", missing),
				 errhint("Set flohsync.databases to the databases that have schedules.")));
	reported_missing = missing > 0;
	CommitTransactionCommand();
}

/* Says once when no worker can be started, and once when it works again. */
static void
launcher_report(WorkerLaunch launch)
{
	static TimestampTz failing_since = 0;

	if (launch == LAUNCH_NO_PROCESS && failing_since == 0)
	{
		failing_since = GetCurrentTimestamp();
		ereport(
			LOG,
			(errmsg("flohsync could not start a worker"),
			 errdetail(
				 "All background worker slots are in use; the launcher retries until one is free."),
			 errhint("You might need to increase max_worker_processes.")));
	}
	else if (launch == LAUNCH_DONE && failing_since != 0)
	{
		ereport(LOG,
				(errmsg("flohsync starts workers again after %ld s",
						TimestampDifferenceMilliseconds(failing_since, GetCurrentTimestamp()) /
							1000)));
		failing_since = 0;
	}
}

/*
 * What databases said of when they are due holds only as long as the clock goes
 * on: when it is set back, they are asked again.
 */
static void
launcher_check_clock(TimestampTz now)
{
	static TimestampTz last_look = 0;

	if (last_look > TimestampTzPlusMilliseconds(now, CLOCK_STEP_MS))
	{
		ereport(LOG,
				(errmsg("flohsync checks all schedules again: the clock was set back by %ld s",
						TimestampDifferenceMilliseconds(now, last_look) / 1000)));
		shmem_all_due();
	}
	last_look = now;
}

/*
 * Is a database open to workers?  The log says once why it is not.  Without the
 * extension's roles it is not installed anywhere, and there is nothing to say.
 */
static bool
launcher_may_start(Oid database, Oid *role)
{
	const char *why;

	StartTransactionCommand();
	why = worker_obstacle(database, role);
	if (why != NULL && OidIsValid(get_role_oid(FLOHSYNC_OWNER_ROLE, true)) &&
		shmem_hindrance_note(database, why, true))
		ereport(WARNING,
				(errmsg("flohsync does nothing in database \"%s\": %s", get_database_name(database),
						why),
				 errdetail("The role is \"%s\".", flohsync_worker_role)));
	CommitTransactionCommand();
	return why == NULL;
}

void
flohsync_launcher_main(Datum arg)
{
	bool was_enabled = true;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	shmem_launcher_attach();
	ereport(LOG,
			(errmsg("flohsync %s launcher started: schedules run in the databases \"%s\"",
					FLOHSYNC_VERSION, flohsync_databases)));

	for (;;)
	{
		Oid			role;
		Oid			database;
		TimestampTz wake_at;
		TimestampTz now = GetCurrentTimestamp();
		long		nap = flohsync_launcher_naptime * 1000L;

		launcher_refresh();
		if (flohsync_enabled && !was_enabled)
			shmem_all_due();
		was_enabled = flohsync_enabled;
		launcher_check_clock(now);
		wake_at = DT_NOEND;
		for (WorkerKind kind = 0; kind < WORKER_KINDS; kind++)
		{
			while (shmem_next_database(kind, now = GetCurrentTimestamp(), &database, &wake_at))
			{
				WorkerLaunch launch;

				if (!launcher_may_start(database, &role))
				{
					shmem_launch_failed(database, kind);
					continue;
				}
				launch = worker_launch(database, role, kind);
				/* A backend may have taken the last slot; the exit of a worker wakes us then. */
				if (launch == LAUNCH_ALL_BUSY)
					shmem_wake_database(database, kind);
				else if (launch == LAUNCH_NO_PROCESS)
				{
					shmem_launch_failed(database, kind);
					(void) shmem_hindrance_note(database, worker_no_process, false);
				}
				launcher_report(launch);
			}
		}
		if (wake_at != DT_NOEND)
			nap = Min(nap, Max(1, TimestampDifferenceMilliseconds(now, wake_at)));
		wait_latch(nap, WAIT_LAUNCHER);
	}
}
