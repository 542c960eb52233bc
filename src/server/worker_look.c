/*
 * worker_look.c
 *	  What a worker does next: it queues what is due, and claims the oldest run.
 *
 * While runs are known to wait, what has become due meanwhile is looked for once a second:
 * it would be younger than those.  All configurations are read once a minute (sql/43_due.sql).
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/db_lock.h"
#include "run/queue.h"
#include "server/worker.h"
#include "shared/hindrance.h"
#include "shared/shmem.h"

#define WORKER_LOCKED_MS   500
#define WORKER_LOOK_DUE_MS 1000

/* When what is due was last looked for. */
static TimestampTz looked_at = 0;

/* Has this process claimed a run? */
static bool worked = false;

/*
 * worker_claim takes the lock of an open run, the oldest whose lock is free,
 * and tells whether there is work for others.
 */
static bool
worker_claim(RunCandidate *claimed, bool *more, MemoryContext context)
{
	const RunCandidate *run;
	bool				found = false;

	db_begin("looking for runs");
	queue_begin();
	while (!found && (run = queue_next_open_run()) != NULL)
	{
		bool queued;

		if (!db_lock_run(run->connector_id, run->resource_type, true))
			continue;
		if (!queue_is_open(run, &queued))
		{
			db_unlock_run(run->connector_id, run->resource_type);
			continue;
		}
		claimed->id = run->id;
		claimed->connector_id = MemoryContextStrdup(context, run->connector_id);
		claimed->resource_type = MemoryContextStrdup(context, run->resource_type);
		found = true;
	}
	*more = found && queue_more_wait();
	db_commit();
	worked |= found;
	return found;
}

/*
 * worker_look_for_due queues what is due.  All: reads all configurations, whenever that was
 * done last.  Returns how many runs were queued.
 */
static int
worker_look_for_due(bool all, TimestampTz *next_due)
{
	int n = 0;

	db_begin("looking for what is due");
	looked_at = GetCurrentTimestamp();
	*next_due = queue_next_due();
	/* One at a time, so that runs are queued in the order in which they were due. */
	if (db_lock_try(DB_LOCK_SCHEDULE, 0, false))
	{
		all |= shmem_look_at_all(MyDatabaseId);
		if (all || *next_due <= looked_at)
		{
			n = queue_enqueue_due(all);
			*next_due = queue_next_due();
		}
	}
	db_commit();
	/* Due runs that could not be queued are locked by another session. */
	if (*next_due <= GetCurrentTimestamp())
		*next_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORKER_LOCKED_MS);
	return n;
}

/*
 * Queues and claims.  Where more is false or no run was found, next_due is when the next one
 * is due.
 */
static bool
worker_find(RunCandidate *claimed, bool *more, TimestampTz *next_due, MemoryContext context)
{
	TimestampTz began = GetCurrentTimestamp();
	bool		found;

	if (!queue_knows_more() || began < looked_at ||
		began - looked_at >= WORKER_LOOK_DUE_MS * INT64CONST(1000))
		(void) worker_look_for_due(false, next_due);
	found = worker_claim(claimed, more, context);
	if (!*more && looked_at < began)
		*more = worker_look_for_due(false, next_due) > 0;
	/* Who was started for nothing has time to read all configurations. */
	if (!found && !*more && !worked)
		*more = worker_look_for_due(true, next_due) > 0;
	if (!found && *more)
		found = worker_claim(claimed, more, context);
	return found;
}

/*
 * worker_look finds the next run.  When even that fails there is nothing that a worker can do
 * here: it notes why and leaves; the launcher sends another one later.
 */
bool
worker_look(RunCandidate *claimed, bool *more, TimestampTz *next_due, TimestampTz began,
			MemoryContext context)
{
	volatile bool found = false;

	PG_TRY();
	{
		found = worker_find(claimed, more, next_due, context);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		db_abort();
		StartTransactionCommand();
		worker_is_hindered(error->message, false, error->context, error->hint);
		CommitTransactionCommand();
		proc_exit(0);
	}
	PG_END_TRY();
	shmem_hindrance_forget(MyDatabaseId, began);
	return found;
}
