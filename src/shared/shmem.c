/*
 * shmem.c
 *	  Shared memory: which databases are due, which workers there are.
 *
 * It only serves wake-ups: after a crash it is empty, the launcher takes
 * every database for due, and the tables give the state back.  Nothing in it
 * points into a process.  It exists only under shared_preload_libraries;
 * without it every function here answers "no launcher, no limit".
 *
 * No wake-up is lost: a worker reads wake_seq before it last looks for work,
 * and may leave only if wake_seq is still the same (shmem_worker_done).
 *
 * There are two kinds of workers, for runs and for the cache's invalidations.
 * They have slots, due times and wake-ups of their own; of the second there is
 * one in a database at most, and it is woken where it waits.
 */
#include "postgres.h"

#include "base/compat.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/wait.h"
#include "shared/cache.h"
#include "shared/hindrance.h"
#include "shared/private.h"
#include "shared/shmem.h"
#include "shared/token.h"

#define ATTACH_TIMEOUT_MS 30000
#define RELAUNCH_DELAY_MS 1000
#define MAX_DELAY_MS	  8000
#define CLEAR_MS		  10000
#define CACHE_WORKERS	  4

SharedState					  *shmem_state = NULL;
static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;

static Size
shmem_size(void)
{
	return add_size(offsetof(SharedState, workers),
					mul_size(flohsync_max_workers + CACHE_WORKERS, sizeof(WorkerSlot)));
}

static void
shmem_request(void)
{
	if (prev_request_hook)
		prev_request_hook();
	RequestAddinShmemSpace(add_size(add_size(shmem_size(), shmem_cache_size()),
									add_size(shmem_token_size(), shmem_hindrance_size())));
	RequestNamedLWLockTranche("flohsync", 4);
}

static void
shmem_startup(void)
{
	bool found;

	if (prev_startup_hook)
		prev_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shmem_state = ShmemInitStruct("flohsync", shmem_size(), &found);
	if (!found)
	{
		memset(shmem_state, 0, shmem_size());
		shmem_state->lock = &GetNamedLWLockTranche("flohsync")->lock;
		shmem_state->launcher = -1;
		shmem_state->nworkers = flohsync_max_workers + CACHE_WORKERS;
		for (int i = flohsync_max_workers; i < shmem_state->nworkers; i++)
			shmem_state->workers[i].kind = WORKER_CACHE;
		ConditionVariableInit(&shmem_state->run_finished);
	}
	shmem_cache_startup(&GetNamedLWLockTranche("flohsync")[1].lock);
	shmem_token_startup(&GetNamedLWLockTranche("flohsync")[2].lock);
	shmem_hindrance_startup(&GetNamedLWLockTranche("flohsync")[3].lock);
	LWLockRelease(AddinShmemInitLock);
}

/* shmem_init is called while the postmaster loads the library. */
void
shmem_init(void)
{
	prev_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

bool
shmem_available(void)
{
	return shmem_state != NULL;
}

DatabaseSlot *
shmem_find_database(Oid database, bool create)
{
	DatabaseSlot *unused = NULL;

	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DatabaseSlot *d = &shmem_state->databases[i];

		if (d->database == database)
			return d;
		if (d->database == InvalidOid && unused == NULL)
			unused = d;
	}
	if (create && unused != NULL)
	{
		memset(unused, 0, sizeof(*unused));
		unused->database = database;
		unused->listed = true;
		for (int k = 0; k < WORKER_KINDS; k++)
			unused->next_due[k] = DT_NOEND;
		return unused;
	}
	return NULL;
}

/* Called with the lock held. */
void
shmem_poke_launcher(void)
{
	if (shmem_state->launcher >= 0)
		SetLatch(&ProcGlobal->allProcs[shmem_state->launcher].procLatch);
}

static void
shmem_launcher_detach(int code, Datum arg)
{
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if (shmem_state->launcher == compat_my_proc_number())
		shmem_state->launcher = -1;
	LWLockRelease(shmem_state->lock);
}

void
shmem_launcher_attach(void)
{
	before_shmem_exit(shmem_launcher_detach, (Datum) 0);
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	shmem_state->launcher = compat_my_proc_number();
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_sync_databases takes over the list of databases that there are; new
 * ones are due at once, those that are gone are forgotten.  Returns how many
 * found no room.
 */
int
shmem_sync_databases(const Oid *databases, int n)
{
	int missing = 0;

	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		shmem_state->databases[i].listed = false;
	for (int i = 0; i < n; i++)
	{
		DatabaseSlot *d = shmem_find_database(databases[i], false);

		if (d == NULL && (d = shmem_find_database(databases[i], true)) != NULL)
			d->next_due[WORKER_RUNS] = DT_NOBEGIN;
		if (d != NULL)
			d->listed = true;
		else
			missing++;
	}
	for (int i = 0; i < MAX_DATABASES; i++)
		if (!shmem_state->databases[i].listed)
			shmem_state->databases[i].database = InvalidOid;
	LWLockRelease(shmem_state->lock);
	return missing;
}

/* shmem_all_due makes every database due. */
void
shmem_all_due(void)
{
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		if (OidIsValid(shmem_state->databases[i].database))
			shmem_state->databases[i].next_due[WORKER_RUNS] = DT_NOBEGIN;
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_next_database finds the database that has been due longest and has no
 * worker on its way.  False: there is none before *wake_at, which the caller
 * has set to the latest time that it would wait for.
 */
bool
shmem_next_database(WorkerKind kind, TimestampTz now, Oid *database, TimestampTz *wake_at)
{
	DatabaseSlot *best = NULL;
	bool		  room = false;

	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shmem_state->nworkers; i++)
	{
		WorkerSlot *w = &shmem_state->workers[i];

		if (w->kind != kind)
			continue;
		/* The postmaster could not start it, or it died before it came here. */
		if (w->in_use && w->pid == 0 &&
			TimestampDifferenceExceeds(w->launched_at, now, ATTACH_TIMEOUT_MS))
		{
			DatabaseSlot *d = shmem_find_database(w->database, false);

			w->in_use = false;
			if (d != NULL)
			{
				d->wake_seq[kind]++;
				d->next_due[kind] = Min(d->next_due[kind], now);
			}
		}
		room |= !w->in_use;
	}
	/* With all slots taken, the exit of a worker is what wakes us. */
	for (int i = 0; i < MAX_DATABASES && room; i++)
	{
		DatabaseSlot *d = &shmem_state->databases[i];
		TimestampTz	  at;
		bool		  underway;

		if (d->database == InvalidOid || d->next_due[kind] == DT_NOEND)
			continue;
		/* No pause is that long: the clock was set back. */
		if (d->hold_until > TimestampTzPlusMilliseconds(now, 2 * CLEAR_MS))
			d->hold_until = now;
		if (d->cache_hold_until > TimestampTzPlusMilliseconds(now, 2 * CACHE_MAX_DELAY_MS))
			d->cache_hold_until = now;
		at = Max(d->next_due[kind], d->hold_until);
		if (kind == WORKER_CACHE)
			at = Max(at, d->cache_hold_until);
		underway = shmem_worker_underway(d->database, kind);
		if (at > now || underway)
		{
			*wake_at = Min(*wake_at, underway ? TimestampTzPlusMilliseconds(now, 1000) : at);
			continue;
		}
		if (best == NULL || d->next_due[kind] < best->next_due[kind])
			best = d;
	}
	if (best != NULL)
	{
		*database = best->database;
		best->next_due[kind] = DT_NOEND; /* until its worker says otherwise */
	}
	LWLockRelease(shmem_state->lock);
	return best != NULL;
}

/* shmem_others_wait: is another database due, and no slot free for its worker? */
bool
shmem_others_wait(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		room = false;
	bool		waiting = false;

	if (shmem_state == NULL)
		return false;
	LWLockAcquire(shmem_state->lock, LW_SHARED);
	for (int i = 0; i < shmem_state->nworkers; i++)
		room |= shmem_state->workers[i].kind == WORKER_RUNS && !shmem_state->workers[i].in_use;
	for (int i = 0; i < MAX_DATABASES && !room && !waiting; i++)
	{
		DatabaseSlot *d = &shmem_state->databases[i];

		waiting = d->listed && OidIsValid(d->database) && d->database != database &&
			d->next_due[WORKER_RUNS] <= now && d->hold_until <= now;
	}
	LWLockRelease(shmem_state->lock);
	return waiting;
}

/* shmem_launch_failed makes a database due again, for the launcher later each time. */
void
shmem_launch_failed(Oid database, WorkerKind kind)
{
	DatabaseSlot *d;

	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL)
	{
		TimestampTz now = GetCurrentTimestamp();

		/* A worker that is about to leave has not seen what this one left behind. */
		d->wake_seq[kind]++;
		d->next_due[kind] = Min(d->next_due[kind], now);
		d->hold_until = Max(d->hold_until,
							TimestampTzPlusMilliseconds(
								now, Min(MAX_DELAY_MS, RELAUNCH_DELAY_MS << Min(d->failures, 6))));
		d->failures++;
	}
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_wake_database makes a database due.  Called from a commit callback:
 * must not raise.
 */
void
shmem_wake_database(Oid database, WorkerKind kind)
{
	DatabaseSlot *d;

	if (shmem_state == NULL)
		return;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, true)) != NULL)
	{
		d->wake_seq[kind]++;
		d->next_due[kind] = DT_NOBEGIN;
		/* During a pause the launcher knows when it ends. */
		if (kind == WORKER_RUNS ||
			(!shmem_worker_underway(database, kind) &&
			 GetCurrentTimestamp() >= d->cache_hold_until))
			shmem_poke_launcher();
		for (int i = 0; i < shmem_state->nworkers && kind == WORKER_CACHE; i++)
		{
			WorkerSlot *w = &shmem_state->workers[i];

			if (w->in_use && w->kind == kind && w->database == database && w->pid != 0)
				SetLatch(&ProcGlobal->allProcs[w->proc].procLatch);
		}
	}
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_clear_database tells the workers in a database to go and lets the
 * launcher start none there for a while, until the time that it returns; what
 * they leave is due afterwards.
 */
TimestampTz
shmem_clear_database(Oid database)
{
	DatabaseSlot *d;
	TimestampTz	  held = 0;

	if (shmem_state == NULL)
		return 0;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL)
	{
		held = d->hold_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CLEAR_MS);
		/* A worker that is still on its way finds its slot taken away. */
		for (int i = 0; i < shmem_state->nworkers; i++)
		{
			WorkerSlot *w = &shmem_state->workers[i];

			if (!w->in_use || w->database != database)
				continue;
			d->wake_seq[w->kind]++;
			d->next_due[w->kind] = DT_NOBEGIN;
			if (w->pid != 0)
				kill(w->pid, SIGTERM);
			else
				w->in_use = false;
		}
	}
	LWLockRelease(shmem_state->lock);
	shmem_cache_forget(database);
	return held;
}

/*
 * shmem_cleared_database: workers may be started again, unless another command needs the
 * database.
 */
void
shmem_cleared_database(Oid database, TimestampTz held)
{
	DatabaseSlot *d;

	if (held == 0)
		return;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL && d->hold_until == held)
	{
		d->hold_until = 0;
		shmem_poke_launcher();
	}
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_run_finished tells those who wait for a run, and other workers in the
 * database: what they read of when it is next due may be older than the end of
 * this run, which can be due for another try.
 */
void
shmem_run_finished(void)
{
	DatabaseSlot *d;

	if (shmem_state == NULL)
		return;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(MyDatabaseId, false)) != NULL)
		d->wake_seq[WORKER_RUNS]++;
	LWLockRelease(shmem_state->lock);
	ConditionVariableBroadcast(&shmem_state->run_finished);
}

/* shmem_wait_run_finished returns when some run has ended, or after the timeout. */
void
shmem_wait_run_finished(long timeout_ms)
{
	if (shmem_state == NULL)
	{
		wait_latch(Min(timeout_ms, 50), WAIT_RUN);
		return;
	}
	/* Without this, the first sleep only prepares and returns at once. */
	ConditionVariablePrepareToSleep(&shmem_state->run_finished);
	ConditionVariableTimedSleep(&shmem_state->run_finished, timeout_ms, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}
