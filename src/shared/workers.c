/*
 * workers.c
 *	  Shared memory: the slots of workers, of whom shmem.c says when they are due.
 *
 * A slot is reserved by whoever launches a worker, taken over by the worker
 * (slot number and generation match), and freed by the worker at exit, or by
 * the launcher when the worker never came.
 */
#include "postgres.h"

#include "base/compat.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "shared/private.h"

#define CACHE_DELAY_MS 500

static WorkerTicket my_ticket = {.slot = -1};

/* Is a worker there, so that another need not be started?  Called with the lock held. */
bool
shmem_worker_underway(Oid database, WorkerKind kind)
{
	for (int i = 0; i < shmem_state->nworkers; i++)
	{
		WorkerSlot *w = &shmem_state->workers[i];

		if (w->in_use && w->kind == kind && w->database == database &&
			(w->pid == 0 || kind == WORKER_CACHE))
			return true;
	}
	return false;
}

/*
 * shmem_reserve_worker returns a slot, or -1 when all are taken, or the one that may be
 * there is.
 */
int
shmem_reserve_worker(Oid database, WorkerKind kind, uint32 *generation)
{
	int			  slot = -1;
	DatabaseSlot *d;

	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if (kind == WORKER_CACHE && (d = shmem_find_database(database, false)) != NULL &&
		GetCurrentTimestamp() < d->cache_hold_until)
	{
		LWLockRelease(shmem_state->lock);
		return -1;
	}
	for (int i = 0; i < shmem_state->nworkers && slot < 0; i++)
	{
		WorkerSlot *w = &shmem_state->workers[i];

		if (w->in_use || w->kind != kind ||
			(kind == WORKER_CACHE && shmem_worker_underway(database, kind)))
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
	LWLockRelease(shmem_state->lock);
	return slot;
}

void
shmem_release_worker(int slot, uint32 generation)
{
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if (shmem_state->workers[slot].in_use && shmem_state->workers[slot].generation == generation)
		shmem_state->workers[slot].in_use = false;
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_note_run: this worker is at a run, or (0) at none any more.  True: the
 * worker that was at it before left it by an error.
 */
bool
shmem_note_run(int64 run)
{
	bool left = false;

	if (my_ticket.slot < 0 || shmem_state == NULL)
		return false;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	shmem_state->workers[my_ticket.slot].run = run;
	for (int i = 0; i < MAX_LEFT_RUNS && run != 0; i++)
	{
		LeftRun *l = &shmem_state->left[i];

		if (l->run == run && l->database == my_ticket.database)
		{
			left = true;
			l->run = 0;
		}
	}
	LWLockRelease(shmem_state->lock);
	return left;
}

/* A worker that goes without shmem_worker_done left work behind. */
static void
shmem_worker_exit(int code, Datum arg)
{
	if (my_ticket.slot < 0)
		return;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if (shmem_state->workers[my_ticket.slot].run != 0)
		shmem_state->left[shmem_state->nleft++ % MAX_LEFT_RUNS] =
			(LeftRun){my_ticket.database, shmem_state->workers[my_ticket.slot].run};
	shmem_state->workers[my_ticket.slot].run = 0;
	LWLockRelease(shmem_state->lock);
	shmem_release_worker(my_ticket.slot, my_ticket.generation);
	shmem_launch_failed(my_ticket.database, my_ticket.kind);
	LWLockAcquire(shmem_state->lock, LW_SHARED);
	shmem_poke_launcher();
	LWLockRelease(shmem_state->lock);
	my_ticket.slot = -1;
}

/*
 * shmem_worker_attach: false when the slot is not this worker's any more.  What
 * is due in the database so far is for this worker: nobody else need start.
 */
bool
shmem_worker_attach(const WorkerTicket *ticket)
{
	DatabaseSlot *d;
	bool		  mine;

	if (ticket->slot < 0 || shmem_state == NULL)
		return true;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	mine = ticket->slot < shmem_state->nworkers && shmem_state->workers[ticket->slot].in_use &&
		shmem_state->workers[ticket->slot].generation == ticket->generation;
	if (mine)
	{
		shmem_state->workers[ticket->slot].pid = MyProcPid;
		shmem_state->workers[ticket->slot].proc = compat_my_proc_number();
		if ((d = shmem_find_database(ticket->database, false)) != NULL)
			d->next_due[ticket->kind] = DT_NOEND;
	}
	LWLockRelease(shmem_state->lock);
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
	uint32		  seq = 0;

	if (shmem_state == NULL)
		return 0;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, true)) != NULL)
		seq = d->wake_seq[kind];
	LWLockRelease(shmem_state->lock);
	return seq;
}

/*
 * shmem_publish_due says when the database is next due, for a worker that
 * goes on to work; nothing is done if somebody woke the database since seq.
 */
void
shmem_publish_due(Oid database, uint32 seq, TimestampTz next_due)
{
	DatabaseSlot *d;

	if (shmem_state == NULL)
		return;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, true)) != NULL && d->wake_seq[WORKER_RUNS] == seq)
	{
		d->next_due[WORKER_RUNS] = next_due;
		shmem_poke_launcher();
	}
	LWLockRelease(shmem_state->lock);
}

/*
 * shmem_look_at_all: is it time to read all configurations of a database once more?  Once a
 * minute; then it counts as done.
 */
bool
shmem_look_at_all(Oid database)
{
	static TimestampTz looked_at_all = 0; /* where there is no shared memory */
	DatabaseSlot	  *d;
	TimestampTz		  *last = &looked_at_all;
	TimestampTz		   now = GetCurrentTimestamp();
	bool			   due;

	if (shmem_state)
	{
		LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
		if ((d = shmem_find_database(database, true)) != NULL)
			last = &d->looked_at_all;
	}
	due = now < *last || now - *last >= LOOK_AT_ALL_MS * INT64CONST(1000);
	if (due)
		*last = now;
	if (shmem_state)
		LWLockRelease(shmem_state->lock);
	return due;
}

/*
 * shmem_worker_done says when the database is next due and gives the slot
 * back.  False, and nothing done, if somebody woke the database since seq was
 * read: look again.
 */
bool
shmem_worker_done(const WorkerTicket *ticket, uint32 seq, TimestampTz next_due)
{
	DatabaseSlot *d;
	bool		  done = true;

	if (shmem_state == NULL)
		return true;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
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
			shmem_state->workers[my_ticket.slot].in_use = false;
		my_ticket.slot = -1;
		shmem_poke_launcher();
	}
	LWLockRelease(shmem_state->lock);
	return done;
}

/*
 * shmem_cache_pause gives the slot of a worker for the cache back: Redis does
 * not answer, and nobody asks it again for a while, longer each time.  True
 * the first time.
 */
bool
shmem_cache_pause(const WorkerTicket *ticket)
{
	DatabaseSlot *d;
	bool		  first = true;

	if (shmem_state == NULL)
		return first;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(ticket->database, true)) != NULL)
	{
		d->cache_hold_until = TimestampTzPlusMilliseconds(
			GetCurrentTimestamp(),
			Min(CACHE_MAX_DELAY_MS, CACHE_DELAY_MS << Min(d->cache_failures, 6)));
		first = d->cache_failures == 0;
		d->cache_failures++;
		d->next_due[WORKER_CACHE] = d->cache_hold_until;
	}
	if (my_ticket.slot >= 0)
		shmem_state->workers[my_ticket.slot].in_use = false;
	my_ticket.slot = -1;
	shmem_poke_launcher();
	LWLockRelease(shmem_state->lock);
	return first;
}

/* shmem_cache_resume ends such a pause: somebody has reached Redis. */
void
shmem_cache_resume(Oid database)
{
	DatabaseSlot *d;

	if (shmem_state == NULL)
		return;
	LWLockAcquire(shmem_state->lock, LW_EXCLUSIVE);
	if ((d = shmem_find_database(database, false)) != NULL)
		d->cache_hold_until = 0;
	LWLockRelease(shmem_state->lock);
}
