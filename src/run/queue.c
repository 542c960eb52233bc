/*
 * queue.c
 *	  What is due, what is queued, and what is old.
 */
#include "postgres.h"

#include "base/compat.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "run/queue.h"

/* queue_open_runs lists what is queued, or says it is running, oldest first. */
RunCandidate *
queue_open_runs(int *n)
{
	static DbQuery query = {
		"select r.id, r.connector_id::pg_catalog.text, r.resource_type::pg_catalog.text,"
		" (r.status = 'queued')::int4 from flohsync.sync_run r"
		" join flohsync.connector_definition d on d.id = r.connector_id and d.home ="
		" _flohsync.home()"
		" where r.status in ('queued', 'running') order by r.requested_at, r.id"};
	RunCandidate *candidates;

	*n = (int) db_execute(&query, NULL, NULL);
	candidates = palloc(sizeof(RunCandidate) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		candidates[i].id = db_int64(i, 1, 0);
		candidates[i].connector_id = db_text(i, 2);
		candidates[i].resource_type = db_text(i, 3);
		candidates[i].queued = db_int64(i, 4, 0) != 0;
	}
	return candidates;
}

void
queue_enqueue_due(void)
{
	static DbQuery query = {"select _flohsync.enqueue_due()"};

	db_execute(&query, NULL, NULL);
}

/* queue_next_due: when a schedule is next due; DT_NOEND: none is. */
TimestampTz
queue_next_due(void)
{
	static DbQuery query = {
		"select pg_catalog.min(_flohsync.next_due(c)) from flohsync.connector_sync_config c"
		" join flohsync.connector_definition d on d.id = c.connector_id where d.enabled and"
		" d.home = _flohsync.home()"};
	bool  isnull;
	Datum value;

	db_execute(&query, NULL, NULL);
	value = db_value(0, 1, &isnull);
	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

/* queue_purge_history forgets runs and jobs that ended longer ago than the retention. */
void
queue_purge_history(int retention_s)
{
	static DbQuery query = {"select _flohsync.forget_history(k.r), _flohsync.forget_webhooks(k.r),"
							" _flohsync.forget_page_prints() from"
							" pg_catalog.make_interval(secs => $1) k(r)",
							1,
							{FLOAT8OID}};
	Datum		   v = Float8GetDatum((float8) retention_s);

	db_execute(&query, &v, NULL);
}
