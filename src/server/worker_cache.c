/*
 * worker_cache.c
 *	  The invalidator's process: connects to one database, delivers the
 *	  pending invalidations, waits a moment for more, exits.
 *
 * It is started after a commit that leaves rows in the outbox, by a reader that
 * finds one, or by the launcher.  There is one per database: without shared
 * memory a lock ensures that, and one more waits for the lock, so that a row
 * that the first has missed is found.  While Redis does not answer there is
 * none; the launcher starts one now and then (shmem_cache_pause).  With
 * flohsync.enabled off it does not contact Redis, and only limits the outbox.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/db_lock.h"
#include "base/guc.h"
#include "base/wait.h"
#include "cache/invalidator.h"
#include "net/redis.h"
#include "record/outbox.h"
#include "server/worker.h"
#include "shared/shmem.h"

#define LINGER_MS	   1000
#define LINGER_LOOK_MS 100 /* without shared memory there are no wake-ups */
#define WAIT_LOCK_MS   20
#define RELAUNCH_MS	   200

/* Takes the lock of the one that works; false when another is already waiting for it. */
static bool
worker_cache_take_turn(void)
{
	if (db_lock_try_session(DB_LOCK_CACHE, CACHE_LOCK_AT_WORK))
		return true;
	if (!db_lock_try_session(DB_LOCK_CACHE, CACHE_LOCK_NEXT))
		return false;
	while (!db_lock_try_session(DB_LOCK_CACHE, CACHE_LOCK_AT_WORK))
		wait_ms(WAIT_LOCK_MS, WAIT_IDLE);
	db_unlock_session(DB_LOCK_CACHE, CACHE_LOCK_NEXT);
	return true;
}

/* Stays for a while; true when there is more to do. */
static bool
worker_cache_linger(Oid database, uint32 seq)
{
	for (int waited = 0; waited < LINGER_MS; waited += LINGER_LOOK_MS)
	{
		bool more;

		if (shmem_available())
		{
			if (shmem_wake_seq(database, WORKER_CACHE) == seq)
				wait_latch(LINGER_MS, WAIT_IDLE);
			return shmem_wake_seq(database, WORKER_CACHE) != seq;
		}
		wait_ms(LINGER_LOOK_MS, WAIT_IDLE);
		db_begin(NULL);
		more = outbox_waiting();
		db_commit();
		if (more)
			return true;
	}
	return false;
}

void
flohsync_invalidator_main(Datum arg)
{
	WorkerTicket  ticket;
	MemoryContext context;
	uint32		  seq;

	worker_enter(&ticket, "flohsync invalidator");
	context = AllocSetContextCreate(TopMemoryContext, "flohsync invalidator",
									ALLOCSET_DEFAULT_SIZES);
	if (RecoveryInProgress() || !worker_cache_take_turn())
		proc_exit(0);
	for (;;)
	{
		InvalidatorOutcome outcome;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		seq = shmem_wake_seq(ticket.database, WORKER_CACHE);
		if (worker_check_extension())
		{
			bool enabled = flohsync_enabled;

			outcome = enabled ? invalidator_drain() : invalidator_keep_small();
			if (outcome != INVALIDATOR_DONE)
			{
				if (shmem_cache_pause(&ticket) && outcome == INVALIDATOR_NO_REDIS && enabled)
					ereport(
						LOG,
						(errmsg("flohsync could not deliver cache invalidations: Redis: %s",
								redis_problem()),
						 errhint(
							 "Delivery is retried until it succeeds; until then the records are not read from the cache.")));
				break;
			}
			if (worker_cache_linger(ticket.database, seq))
				continue;
		}
		if (shmem_worker_done(&ticket, seq, DT_NOEND))
			break;
	}
	redis_drop();
	proc_exit(0);
}

/* Without shared memory nothing else keeps a process from starting one worker after the other. */
static bool
worker_cache_too_soon(void)
{
	static TimestampTz last = 0;
	TimestampTz		   now = GetCurrentTimestamp();

	if (shmem_available())
		return false;
	if (last != 0 && now >= last && !TimestampDifferenceExceeds(last, now, RELAUNCH_MS))
		return true;
	last = now;
	return false;
}

/* worker_cache_start: raises nothing; good after commit. */
void
worker_cache_start(Oid database, Oid role)
{
	if (OidIsValid(role) && !worker_cache_too_soon())
		(void) worker_launch(database, role, WORKER_CACHE);
	shmem_wake_database(database, WORKER_CACHE);
}

/* worker_cache_now starts an invalidator for this database now: Redis is available. */
void
worker_cache_now(void)
{
	shmem_cache_resume(MyDatabaseId);
	worker_cache_start(MyDatabaseId, get_role_oid(flohsync_worker_role, true));
}
