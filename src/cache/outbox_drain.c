/*
 * outbox_drain.c
 *	  Statements of the invalidator; see outbox.c for the tables.
 *
 * Only the invalidator deletes from the outbox and changes epochs, and there is
 * one per database (it holds a lock).  SPI must be connected.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/db_lock.h"
#include "base/wait.h"
#include "cache/cache.h"
#include "record/outbox.h"
#include "shared/cache.h"

#define ACTIVATE_ATTEMPTS 200
#define ACTIVATE_WAIT_MS  10

static int64
outbox_random(void)
{
	int64 number;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not get random bytes")));
	return number;
}

/* outbox_waiting: is there anything in the outbox?  If not, that is published to readers. */
bool
outbox_waiting(void)
{
	static DbQuery query = {"select exists (select from _flohsync.cache_outbox)"};
	uint64		   writes = shmem_cache_writes();
	bool		   waiting;

	db_execute(&query, NULL, NULL);
	waiting = db_bool(0, 1);
	if (!waiting)
		shmem_cache_clean(writes);
	return waiting;
}

/* outbox_server: the Redis that the cache is in, 0: none. */
uint64
outbox_server(void)
{
	static DbQuery query = {"select s.server from _flohsync.cache_state s where s.timeline = $1",
							1,
							{INT4OID}};
	Datum		   v = Int32GetDatum((int32) compat_timeline());

	return db_execute(&query, &v, NULL) == 0 ? 0 : (uint64) db_int64(0, 1, 0);
}

/*
 * outbox_settle does what needs no Redis: rows that stand for all of a type or
 * a connector become a new epoch, and rows that it covers go.  Returns how
 * many there were.
 */
int64
outbox_settle(void)
{
	static DbQuery query = {
		"with wide as (delete from _flohsync.cache_outbox o where o.external_id = '' returning"
		" o.connector_id, o.resource_type),"
		" fresh as (insert into _flohsync.cache_epoch (connector_id, resource_type, epoch)"
		" select w.connector_id, w.resource_type, ('x' ||"
		" pg_catalog.left(pg_catalog.replace(pg_catalog.gen_random_uuid()::pg_catalog.text,"
		" '-', ''), 12)"
		" || pg_catalog.right(pg_catalog.gen_random_uuid()::pg_catalog.text,"
		" 4))::pg_catalog.bit(64)::pg_catalog.int8"
		" from (select distinct x.connector_id, x.resource_type from wide x) w"
		" on conflict (connector_id, resource_type) do update set epoch = excluded.epoch"
		" returning 1)"
		" select (select pg_catalog.count(*) from wide), (select pg_catalog.count(*) from fresh)"};
	static DbQuery any = {
		"select exists (select from _flohsync.cache_outbox o where o.external_id = '')"};

	db_execute(&any, NULL, NULL);
	if (!db_bool(0, 1))
		return 0;
	outbox_touch();
	db_execute(&query, NULL, NULL);
	return db_int64(0, 1, 0);
}

/* outbox_batch reads rows for single keys. */
void
outbox_batch(OutboxBatch *batch, int limit, MemoryContext context)
{
	static DbQuery query = {"select o.connector_id, o.resource_type::pg_catalog.text,"
							" o.external_id::pg_catalog.text, o.seq"
							" from _flohsync.cache_outbox o where o.external_id <> '' limit $1",
							1,
							{INT8OID}};
	Datum		   v = Int64GetDatum(limit);
	int			   n = (int) db_execute(&query, &v, NULL);
	MemoryContext  old = MemoryContextSwitchTo(context);
	Datum		  *columns[4];

	memset(batch, 0, sizeof(*batch));
	batch->n = n;
	batch->keys = palloc(sizeof(char *) * Max(n, 1));
	batch->key_len = palloc(sizeof(size_t) * Max(n, 1));
	for (int c = 0; c < 4; c++)
		columns[c] = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool isnull;

		for (int c = 0; c < 4; c++)
			columns[c][i] = db_value(i, c + 1, &isnull);
		batch->keys[i] = cache_key_text(DatumGetUUIDP(columns[0][i]), DatumGetTextPP(columns[1][i]),
										DatumGetTextPP(columns[2][i]), &batch->key_len[i]);
	}
	batch->connectors = PointerGetDatum(
		construct_array(columns[0], n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	batch->types = PointerGetDatum(
		construct_array(columns[1], n, TEXTOID, -1, false, TYPALIGN_INT));
	batch->ids = PointerGetDatum(construct_array(columns[2], n, TEXTOID, -1, false, TYPALIGN_INT));
	batch->seqs = PointerGetDatum(
		construct_array(columns[3], n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	MemoryContextSwitchTo(old);
}

/* outbox_done removes the rows of a batch: what came for the same keys since stays. */
void
outbox_done(const OutboxBatch *batch)
{
	static DbQuery query = {
		"delete from _flohsync.cache_outbox o using unnest($1, $2, $3, $4) u(connector_id,"
		" resource_type, external_id, seq)"
		" where o.connector_id = u.connector_id and o.resource_type = u.resource_type collate \"C\""
		" and o.external_id = u.external_id collate \"C\" and o.seq = u.seq",
		4,
		{UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID},
		.plan_as = PLAN_BY_INDEX};
	Datum v[4] = {batch->connectors, batch->types, batch->ids, batch->seqs};

	db_execute(&query, v, NULL);
}

/*
 * outbox_bound keeps the outbox small while Redis is away: a key needs one row
 * only, and a connector with more than max gets a new epoch instead.
 */
int64
outbox_bound(int64 max)
{
	static DbQuery twice = {
		"delete from _flohsync.cache_outbox o using (select x.connector_id, x.resource_type,"
		" x.external_id, pg_catalog.max(x.seq) as last"
		" from _flohsync.cache_outbox x group by 1, 2, 3 having pg_catalog.count(*) > 1) t"
		" where o.connector_id = t.connector_id and o.resource_type = t.resource_type and"
		" o.external_id = t.external_id and o.seq < t.last"};
	static DbQuery many = {
		"with large as (select x.connector_id from _flohsync.cache_outbox x group by 1 having"
		" pg_catalog.count(*) > $1),"
		" gone as (delete from _flohsync.cache_outbox o using large l where o.connector_id ="
		" l.connector_id)"
		" insert into _flohsync.cache_outbox (connector_id) select l.connector_id from large l",
		1,
		{INT8OID}};
	Datum v = Int64GetDatum(max);

	outbox_touch();
	db_execute(&twice, NULL, NULL);
	return db_execute(&many, &v, NULL);
}

/*
 * outbox_activate says which Redis the cache is in, and voids whatever values
 * it has.  False when that must wait: a transaction is still writing that saw that
 * there was no cache.
 */
bool
outbox_activate(uint64 server)
{
	static DbQuery query = {
		"with emptied as (delete from _flohsync.cache_outbox)"
		" update _flohsync.cache_state s set server = $1, epoch = $2, timeline = $3,"
		" changed_at = pg_catalog.clock_timestamp()",
		3,
		{INT8OID, INT8OID, INT4OID}};
	Datum v[3] = {Int64GetDatum((int64) server), Int64GetDatum(outbox_random()),
				  Int32GetDatum((int32) compat_timeline())};
	bool  locked = outbox_server() != 0;

	/* No other session must queue behind this one: writers must not wait for readers. */
	for (int i = 0; i < ACTIVATE_ATTEMPTS && !locked; i++)
	{
		locked = db_lock_try(DB_LOCK_CACHE, CACHE_LOCK_STATE, false);
		if (!locked)
			wait_ms(ACTIVATE_WAIT_MS, WAIT_RETRY);
	}
	if (!locked)
		return false;
	outbox_touch();
	db_execute(&query, v, NULL);
	return true;
}

/* outbox_deactivate: there is no cache any more, and nothing is noted for it. */
void
outbox_deactivate(void)
{
	static DbQuery query = {"with emptied as (delete from _flohsync.cache_outbox)"
							" update _flohsync.cache_state s set server = null, changed_at ="
							" pg_catalog.clock_timestamp() where s.server is not null"};

	outbox_touch();
	db_execute(&query, NULL, NULL);
}
