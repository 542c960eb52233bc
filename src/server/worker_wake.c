/*
 * worker_wake.c
 *	  Has workers look for what is due in a database, once the transaction that
 *	  asks for it is committed: before, they would see nothing.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "server/worker.h"
#include "shared/shmem.h"

/* Of the transaction, and gone with it. */
static List		   *wake_databases = NIL;
static Oid			wake_role = InvalidOid;
static WorkerLaunch wake_outcome = LAUNCH_DONE; /* of the last one for runs */
static bool			wake_cache = false;

const char *const worker_no_process =
	"all background worker slots of the server are in use (max_worker_processes)";

/* Must not raise: the transaction is committed. */
static void
wake_at_end(XactEvent event, void *arg)
{
	ListCell *cell;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			foreach (cell, wake_databases)
			{
				/*
				 * First the worker, so that the launcher sees that one is on
				 * its way.  No room: the launcher, or a worker that is there,
				 * takes it up.
				 */
				if (OidIsValid(wake_role))
					wake_outcome = worker_launch(lfirst_oid(cell), wake_role, WORKER_RUNS);
				shmem_wake_database(lfirst_oid(cell), WORKER_RUNS);
			}
			if (wake_cache)
				worker_cache_start(MyDatabaseId, wake_role);
			wake_databases = NIL;
			wake_cache = false;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			wake_databases = NIL;
			wake_cache = false;
			break;
		default:
			break;
	}
}

static void
wake_register(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(wake_at_end, NULL);
		registered = true;
	}
	/* Workers that cannot work are not started. */
	if (worker_obstacle(MyDatabaseId, &wake_role) != NULL)
		wake_role = InvalidOid;
}

/* worker_hindrance: why the last worker that this process wanted for runs did not come, or NULL. */
const char *
worker_hindrance(void)
{
	switch (wake_outcome)
	{
		case LAUNCH_DONE:
			break;
		case LAUNCH_ALL_BUSY:
			return "all workers are busy (flohsync.max_workers)";
		case LAUNCH_NO_PROCESS:
			return worker_no_process;
	}
	return NULL;
}

/* worker_wake has a worker look for due runs in a database after commit. */
void
worker_wake(Oid database)
{
	MemoryContext caller;

	wake_register();
	caller = MemoryContextSwitchTo(TopTransactionContext);
	wake_databases = list_append_unique_oid(wake_databases, database);
	MemoryContextSwitchTo(caller);
}

/* worker_wake_cache starts an invalidator for this database after commit. */
void
worker_wake_cache(void)
{
	if (wake_cache)
		return;
	wake_register();
	wake_cache = true;
}
