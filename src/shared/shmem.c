/*
 * shmem.c
 *	  Shared memory: which databases are due, which workers there are.
 *
 * It only serves wake-ups: after a crash it is empty, the launcher takes
 * every database for due, and the tables give the state back.  Nothing in it
 * points into a process.  It exists only under shared_preload_libraries;
 * without it every function here answers "no launcher, no limit".
 *
 * A worker's slot is reserved by whoever launches it, taken over by the worker
 * (slot number and generation match), and freed by the worker at exit, or by
 * the launcher when the worker never came.
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
#include "shared/shmem.h"
#include "shared/token.h"

#define MAX_DATABASES		1024
#define ATTACH_TIMEOUT_MS	30000
#define RELAUNCH_DELAY_MS	1000
#define MAX_DELAY_MS		8000
#define MAX_LEFT_RUNS		64
#define CLEAR_MS			10000
#define CACHE_WORKERS		4
#define CACHE_DELAY_MS		500
#define CACHE_MAX_DELAY_MS	30000

typedef struct DatabaseSlot
{
	Oid			database;		/* InvalidOid: free */
	uint32		wake_seq[WORKER_KINDS];
	TimestampTz next_due[WORKER_KINDS]; /* DT_NOEND: nothing known */
	TimestampTz hold_until;		/* no launch before */
	int			failures;		/* launches in a row that came to nothing */
	TimestampTz cache_hold_until;	/* Redis did not answer: leave it alone until then */
	int			cache_failures;
	bool		listed;
} DatabaseSlot;

typedef struct WorkerSlot
{
	bool		in_use;
	WorkerKind	kind;			/* never changes */
	uint32		generation;
	Oid			database;
	pid_t		pid;			/* 0: launched, not yet there */
	int			proc;			/* proc number, once it is there */
	TimestampTz launched_at;
	int64		run;			/* that it is at; 0: none */
} WorkerSlot;

/* A run whose worker ended by an error, or was told to: it did not crash. */
typedef struct LeftRun
{
	Oid			database;
	int64		run;
} LeftRun;

typedef struct SharedState
{
	LWLock	   *lock;
	int			launcher;		/* proc number, -1: none */
	int			nworkers;		/* slots: flohsync.max_workers, and those for the cache */
	ConditionVariable run_finished;
	DatabaseSlot databases[MAX_DATABASES];
	LeftRun		left[MAX_LEFT_RUNS];	/* the last ones */
	int			nleft;
	WorkerSlot	workers[FLEXIBLE_ARRAY_MEMBER];
} SharedState;

static SharedState *shared = NULL;
static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;
static WorkerTicket my_ticket = {.slot = -1};

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
	RequestAddinShmemSpace(add_size(add_size(shmem_size(), shmem_cache_size()), add_size(shmem_token_size(), shmem_hindrance_size())));
	RequestNamedLWLockTranche("flohsync", 4);
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_startup_hook)
		prev_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("flohsync", shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, shmem_size());
		shared->lock = &GetNamedLWLockTranche("flohsync")->lock;
		shared->launcher = -1;
		shared->nworkers = flohsync_max_workers + CACHE_WORKERS;
		for (int i = flohsync_max_workers; i < shared->nworkers; i++)
			shared->workers[i].kind = WORKER_CACHE;
		ConditionVariableInit(&shared->run_finished);
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
	return shared != NULL;
}

static DatabaseSlot *
shmem_find_database(Oid database, bool create)
{
	DatabaseSlot *unused = NULL;

	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DatabaseSlot *d = &shared->databases[i];

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
static void
shmem_poke_launcher(void)
{
	if (shared->launcher >= 0)
		SetLatch(&ProcGlobal->allProcs[shared->launcher].procLatch);
}

static void
shmem_launcher_detach(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->launcher == compat_my_proc_number())
		shared->launcher = -1;
	LWLockRelease(shared->lock);
}

void
shmem_launcher_attach(void)
{
	before_shmem_exit(shmem_launcher_detach, (Datum) 0);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = compat_my_proc_number();
	LWLockRelease(shared->lock);
}

/*
 * shmem_sync_databases takes over the list of databases that there are; new
 * ones are due at once, those that are gone are forgotten.  Returns how many
 * found no room.
 */
int
shmem_sync_databases(const Oid *databases, int n)
{
	int			missing = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		shared->databases[i].listed = false;
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
		if (!shared->databases[i].listed)
			shared->databases[i].database = InvalidOid;
	LWLockRelease(shared->lock);
	return missing;
}

/* shmem_all_due makes every database due. */
void
shmem_all_due(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		if (OidIsValid(shared->databases[i].database))
			shared->databases[i].next_due[WORKER_RUNS] = DT_NOBEGIN;
	LWLockRelease(shared->lock);
}

/* Is a worker there, so that another need not be started?  Called with the lock held. */
static bool
shmem_worker_underway(Oid database, WorkerKind kind)
{
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerSlot *w = &shared->workers[i];

		if (w->in_use && w->kind == kind && w->database == database && (w->pid == 0 || kind == WORKER_CACHE))
			return true;
	}
	return false;
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
	bool		room = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerSlot *w = &shared->workers[i];

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
		DatabaseSlot *d = &shared->databases[i];
		TimestampTz at;
		bool		underway;

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
		best->next_due[kind] = DT_NOEND;	/* until its worker says otherwise */
	}
	LWLockRelease(shared->lock);
	return best != NULL;
}

/* shmem_others_wait: is another database due, and no slot free for its worker? */
bool
shmem_others_wait(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		room = false;
	bool		waiting = false;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
		room |= shared->workers[i].kind == WORKER_RUNS && !shared->workers[i].in_use;
	for (int i = 0; i < MAX_DATABASES && !room && !waiting; i++)
	{
		DatabaseSlot *d = &shared->databases[i];

		waiting = d->listed && OidIsValid(d->database) && d->database != database &&
			d->next_due[WORKER_RUNS] <= now && d->hold_until <= now;
	}
	LWLockRelease(shared->lock);
	return waiting;
}

/* shmem_launch_failed makes a database due again, for the launcher later each time. */
void
shmem_launch_failed(Oid database, WorkerKind kind)
{
	DatabaseSlot *d;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL)
	{
		TimestampTz now = GetCurrentTimestamp();

		/* A worker that is about to leave has not seen what this one left behind. */
		d->wake_seq[kind]++;
		d->next_due[kind] = Min(d->next_due[kind], now);
		d->hold_until = Max(d->hold_until,
							TimestampTzPlusMilliseconds(now, Min(MAX_DELAY_MS, RELAUNCH_DELAY_MS << Min(d->failures, 6))));
		d->failures++;
	}
	LWLockRelease(shared->lock);
}

/* shmem_reserve_worker returns a slot, or -1 when all are taken, or the one that may be there is. */
int
shmem_reserve_worker(Oid database, WorkerKind kind, uint32 *generation)
{
	int			slot = -1;
	DatabaseSlot *d;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (kind == WORKER_CACHE && (d = shmem_find_database(database, false)) != NULL &&
		GetCurrentTimestamp() < d->cache_hold_until)
	{
		LWLockRelease(shared->lock);
		return -1;
	}
	for (int i = 0; i < shared->nworkers && slot < 0; i++)
	{
		WorkerSlot *w = &shared->workers[i];

		if (w->in_use || w->kind != kind || (kind == WORKER_CACHE && shmem_worker_underway(database, kind)))
			continue;
		w->in_use = true;
		w->generation++;
		w->database = database;
		w->pid = 0;
		w->run = 0;
		w->launched_at = GetCurrentTimestamp();
		*generation = w->generation;
		slot = i;
	}
	LWLockRelease(shared->lock);
	return slot;
}

void
shmem_release_worker(int slot, uint32 generation)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->workers[slot].in_use && shared->workers[slot].generation == generation)
		shared->workers[slot].in_use = false;
	LWLockRelease(shared->lock);
}

/*
 * shmem_note_run: this worker is at a run, or (0) at none any more.  True: the
 * worker that was at it before left it by an error.
 */
bool
shmem_note_run(int64 run)
{
	bool		left = false;

	if (my_ticket.slot < 0 || shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->workers[my_ticket.slot].run = run;
	for (int i = 0; i < MAX_LEFT_RUNS && run != 0; i++)
	{
		LeftRun    *l = &shared->left[i];

		if (l->run == run && l->database == my_ticket.database)
		{
			left = true;
			l->run = 0;
		}
	}
	LWLockRelease(shared->lock);
	return left;
}

/* A worker that goes without shmem_worker_done left work behind. */
static void
shmem_worker_exit(int code, Datum arg)
{
	if (my_ticket.slot < 0)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->workers[my_ticket.slot].run != 0)
		shared->left[shared->nleft++ % MAX_LEFT_RUNS] = (LeftRun) {my_ticket.database, shared->workers[my_ticket.slot].run};
	shared->workers[my_ticket.slot].run = 0;
	LWLockRelease(shared->lock);
	shmem_release_worker(my_ticket.slot, my_ticket.generation);
	shmem_launch_failed(my_ticket.database, my_ticket.kind);
	LWLockAcquire(shared->lock, LW_SHARED);
	shmem_poke_launcher();
	LWLockRelease(shared->lock);
	my_ticket.slot = -1;
}

/*
 * shmem_worker_attach: false when the slot is not this worker's any more.  What
 * is due in the database so far is for this worker: no other need be started.
 */
bool
shmem_worker_attach(const WorkerTicket *ticket)
{
	DatabaseSlot *d;
	bool		mine;

	if (ticket->slot < 0 || shared == NULL)
		return true;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	mine = ticket->slot < shared->nworkers &&
		shared->workers[ticket->slot].in_use &&
		shared->workers[ticket->slot].generation == ticket->generation;
	if (mine)
	{
		shared->workers[ticket->slot].pid = MyProcPid;
		shared->workers[ticket->slot].proc = compat_my_proc_number();
		if ((d = shmem_find_database(ticket->database, false)) != NULL)
			d->next_due[ticket->kind] = DT_NOEND;
	}
	LWLockRelease(shared->lock);
	if (mine)
	{
		my_ticket = *ticket;
		before_shmem_exit(shmem_worker_exit, (Datum) 0);
	}
	return mine;
}

/* shmem_wake_seq: read it before looking for work. */
uint32
shmem_wake_seq(Oid database, WorkerKind kind)
{
	DatabaseSlot *d;
	uint32		seq = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, true)) != NULL)
		seq = d->wake_seq[kind];
	LWLockRelease(shared->lock);
	return seq;
}

/*
 * shmem_publish_due says when the database is next due, for a worker that
 * continues to work; nothing is done if the database was woken since seq.
 */
void
shmem_publish_due(Oid database, uint32 seq, TimestampTz next_due)
{
	DatabaseSlot *d;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, true)) != NULL && d->wake_seq[WORKER_RUNS] == seq)
	{
		d->next_due[WORKER_RUNS] = next_due;
		shmem_poke_launcher();
	}
	LWLockRelease(shared->lock);
}

/*
 * shmem_worker_done says when the database is next due and gives the slot
 * back.  False, and nothing done, if the database was woken since seq was
 * read: look again.
 */
bool
shmem_worker_done(const WorkerTicket *ticket, uint32 seq, TimestampTz next_due)
{
	DatabaseSlot *d;
	bool		done = true;

	if (shared == NULL)
		return true;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(ticket->database, true)) != NULL)
	{
		if (d->wake_seq[ticket->kind] != seq)
			done = false;
		else
		{
			d->next_due[ticket->kind] = next_due;
			d->failures = 0;
			if (ticket->kind == WORKER_CACHE)
				d->cache_failures = 0;
		}
	}
	if (done)
	{
		if (my_ticket.slot >= 0)
			shared->workers[my_ticket.slot].in_use = false;
		my_ticket.slot = -1;
		shmem_poke_launcher();
	}
	LWLockRelease(shared->lock);
	return done;
}

/*
 * shmem_cache_pause gives the slot of a worker for the cache back: Redis does
 * not answer, and is not asked again for a while, longer each time.  True
 * the first time.
 */
bool
shmem_cache_pause(const WorkerTicket *ticket)
{
	DatabaseSlot *d;
	bool		first = true;

	if (shared == NULL)
		return first;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(ticket->database, true)) != NULL)
	{
		d->cache_hold_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														  Min(CACHE_MAX_DELAY_MS, CACHE_DELAY_MS << Min(d->cache_failures, 6)));
		first = d->cache_failures == 0;
		d->cache_failures++;
		d->next_due[WORKER_CACHE] = d->cache_hold_until;
	}
	if (my_ticket.slot >= 0)
		shared->workers[my_ticket.slot].in_use = false;
	my_ticket.slot = -1;
	shmem_poke_launcher();
	LWLockRelease(shared->lock);
	return first;
}

/* shmem_cache_resume ends such a pause: a process has reached Redis. */
void
shmem_cache_resume(Oid database)
{
	DatabaseSlot *d;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL)
		d->cache_hold_until = 0;
	LWLockRelease(shared->lock);
}

/*
 * shmem_wake_database makes a database due.  Called from a commit callback:
 * must not raise.
 */
void
shmem_wake_database(Oid database, WorkerKind kind)
{
	DatabaseSlot *d;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, true)) != NULL)
	{
		d->wake_seq[kind]++;
		d->next_due[kind] = DT_NOBEGIN;
		/* During a pause the launcher knows when it ends. */
		if (kind == WORKER_RUNS ||
			(!shmem_worker_underway(database, kind) && GetCurrentTimestamp() >= d->cache_hold_until))
			shmem_poke_launcher();
		for (int i = 0; i < shared->nworkers && kind == WORKER_CACHE; i++)
		{
			WorkerSlot *w = &shared->workers[i];

			if (w->in_use && w->kind == kind && w->database == database && w->pid != 0)
				SetLatch(&ProcGlobal->allProcs[w->proc].procLatch);
		}
	}
	LWLockRelease(shared->lock);
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
	TimestampTz held = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL)
	{
		held = d->hold_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CLEAR_MS);
		/* A worker that is still on its way finds its slot taken away. */
		for (int i = 0; i < shared->nworkers; i++)
		{
			WorkerSlot *w = &shared->workers[i];

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
	LWLockRelease(shared->lock);
	shmem_cache_forget(database);
	return held;
}

/* shmem_cleared_database: workers may be started again, unless another command needs the database. */
void
shmem_cleared_database(Oid database, TimestampTz held)
{
	DatabaseSlot *d;

	if (held == 0)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL && d->hold_until == held)
	{
		d->hold_until = 0;
		shmem_poke_launcher();
	}
	LWLockRelease(shared->lock);
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

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(MyDatabaseId, false)) != NULL)
		d->wake_seq[WORKER_RUNS]++;
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&shared->run_finished);
}

/* shmem_wait_run_finished returns when some run has ended, or after the timeout. */
void
shmem_wait_run_finished(long timeout_ms)
{
	if (shared == NULL)
	{
		wait_latch(Min(timeout_ms, 50), WAIT_RUN);
		return;
	}
	/* Without this, the first sleep only prepares and returns at once. */
	ConditionVariablePrepareToSleep(&shared->run_finished);
	ConditionVariableTimedSleep(&shared->run_finished, timeout_ms, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}
