/*
 * queue.c
 *	  What is due, what is queued, and what is old.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/db_value.h"
#include "run/queue.h"

#define QUEUE_HISTORY_BATCH 1000 /* of _flohsync.forget_history() */

/*
 * The open runs that were read last, oldest first.  A process reads some of them at a time
 * and works these off for a second at most: to read all of them for each run would cost the
 * square of their number.
 *
 * That is right since what is queued meanwhile is younger than what was read.  Whether a run
 * is still open is read again when its lock is held, since another process may have done it.
 */
#define QUEUE_BATCH	  64
#define QUEUE_KEEP_MS 1000

static RunCandidate	 batch[QUEUE_BATCH];
static MemoryContext batch_context = NULL;
static int			 nbatch = 0;
static int			 batch_next = 0;	  /* not given out yet */
static bool			 batch_cut = false;	  /* there are younger ones */
static bool			 batch_fresh = false; /* read since queue_begin */
static TimestampTz	 batch_read_at = 0;

/* Reads open runs, from the oldest one or behind the last one of the batch. */
static void
queue_read_batch(bool go_on)
{
	/* By the index of the open ones, and each connector by its key. */
	static DbQuery query = {
		"select r.id, r.connector_id::pg_catalog.text, r.resource_type::pg_catalog.text,"
		" (r.status = 'queued')::int4, r.requested_at from flohsync.sync_run r"
		" where r.status in ('queued', 'running') and (r.requested_at, r.id) > ($1, $2)"
		" and exists (select from flohsync.connector_definition d where d.id = r.connector_id"
		" and d.home = (select _flohsync.home()) offset 0)"
		" order by r.requested_at, r.id limit $3",
		3,
		{TIMESTAMPTZOID, INT8OID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	const RunCandidate *last = go_on ? &batch[nbatch - 1] : NULL;
	Datum				v[3] = {TimestampTzGetDatum(last ? last->requested_at : DT_NOBEGIN),
								Int64GetDatum(last ? last->id : 0), Int64GetDatum(QUEUE_BATCH + 1)};
	int					n = (int) db_execute(&query, v, NULL);
	bool				isnull;

	if (batch_context == NULL)
		batch_context = AllocSetContextCreate(TopMemoryContext, "flohsync open runs",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(batch_context);
	batch_cut = n > QUEUE_BATCH;
	nbatch = Min(n, QUEUE_BATCH);
	batch_next = 0;
	for (int i = 0; i < nbatch; i++)
	{
		batch[i].id = db_int64(i, 1, 0);
		batch[i].connector_id = db_get_text(i, 2, batch_context);
		batch[i].resource_type = db_get_text(i, 3, batch_context);
		batch[i].queued = db_int64(i, 4, 0) != 0;
		batch[i].requested_at = DatumGetTimestampTz(db_value(i, 5, &isnull));
	}
	batch_fresh = true;
	batch_read_at = GetCurrentTimestamp();
}

/* queue_begin begins a look for an open run. */
void
queue_begin(void)
{
	TimestampTz now = GetCurrentTimestamp();

	batch_fresh = false;
	if (now < batch_read_at || now - batch_read_at > QUEUE_KEEP_MS * INT64CONST(1000))
		batch_next = nbatch;
}

/*
 * queue_next_open_run: the oldest open run that this look has not given out; NULL: there is
 * none.  It may be open no more (queue_is_open).
 */
const RunCandidate *
queue_next_open_run(void)
{
	if (batch_next == nbatch && !batch_fresh)
		queue_read_batch(false);
	else if (batch_next == nbatch && batch_cut)
		queue_read_batch(true);
	return batch_next < nbatch ? &batch[batch_next++] : NULL;
}

/* queue_is_open: is a run queued, or does it say that it is running, at this moment? */
bool
queue_is_open(const RunCandidate *run, bool *queued)
{
	static DbQuery query = {"select (r.status = 'queued')::int4 from flohsync.sync_run r where"
							" r.id = $1 and r.status in ('queued', 'running')",
							1,
							{INT8OID},
							.plan_as = PLAN_BY_INDEX};
	Datum		   v = Int64GetDatum(run->id);

	if (db_execute(&query, &v, NULL) == 0)
		return false;
	*queued = db_int64(0, 1, 0) != 0;
	return true;
}

/* queue_more_wait: are there queued runs behind those that were given out? */
bool
queue_more_wait(void)
{
	bool queued;

	for (int i = batch_next; i < nbatch; i++)
		if (batch[i].queued && queue_is_open(&batch[i], &queued) && queued)
			return true;
	return batch_cut;
}

/* queue_knows_more: likewise, as far as it is known without asking. */
bool
queue_knows_more(void)
{
	return batch_next < nbatch || batch_cut;
}

/*
 * queue_enqueue_due queues what is due, and returns how many runs that were.  All: read all
 * configurations, for due times that cannot be right.
 */
int
queue_enqueue_due(bool all)
{
	static DbQuery query = {"select _flohsync.enqueue_due($1)", 1, {BOOLOID}};
	Datum		   v = BoolGetDatum(all);

	db_execute(&query, &v, NULL);
	return (int) db_int64(0, 1, 0);
}

/* queue_next_due: when a schedule is next due; DT_NOEND: none is. */
TimestampTz
queue_next_due(void)
{
	/* The first by the index of what is due. */
	static DbQuery query = {
		"select least(c.next_run_at, c.next_full_run_at, c.retry_at)"
		" from flohsync.connector_sync_config c where c.enabled and not c.parked"
		" and least(c.next_run_at, c.next_full_run_at, c.retry_at) is not null"
		" and exists (select from flohsync.connector_definition d where d.id = c.connector_id"
		" and d.enabled and d.home = (select _flohsync.home()) offset 0)"
		" order by 1 limit 1",
		.plan_as = PLAN_BY_INDEX};
	bool  isnull;
	Datum value;

	if (db_execute(&query, NULL, NULL) == 0)
		return DT_NOEND;
	value = db_value(0, 1, &isnull);
	return DatumGetTimestampTz(value);
}

/*
 * queue_purge_history forgets some runs and jobs that ended longer ago than the retention;
 * false: all of them, as far as runs go.
 */
bool
queue_purge_history(int retention_s)
{
	static DbQuery query = {"select _flohsync.forget_history(k.r), _flohsync.forget_webhooks(k.r),"
							" _flohsync.forget_page_prints() from"
							" pg_catalog.make_interval(secs => $1) k(r)",
							1,
							{FLOAT8OID}};
	Datum		   v = Float8GetDatum((float8) retention_s);

	db_execute(&query, &v, NULL);
	return db_int64(0, 1, 0) >= QUEUE_HISTORY_BATCH;
}
