/*
 * pages.c
 *	  The pages of a pass in the ledger.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/db_value.h"
#include "record/ledger.h"
#include "run/pages.h"

#define PAGES_NAME(name, ...)  #name,
#define PAGES_VALUE(name, ...) Int32GetDatum(e->counts.name),

static const char *const counters[] = {PAGE_COUNTERS(PAGES_NAME)};

/* The statement of pages_add: the counters come as one array. */
static char *
pages_statement(void)
{
	StringInfoData names;
	StringInfoData values;
	char		  *sql;

	initStringInfo(&names);
	initStringInfo(&values);
	for (size_t i = 0; i < lengthof(counters); i++)
	{
		appendStringInfo(&names, ", %s", counters[i]);
		appendStringInfo(&values, ", $16[%d]", (int) i + 1);
	}
	sql = psprintf(
		"insert into flohsync.sync_run_page (run_id, page, cursor, next_cursor, fetched_at,"
		" records, bytes, fetch_ms, apply_ms, total_estimate, seen, deleted, changed, incomplete,"
		" link, unread%s)"
		" values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
		" $16[%d] = 1%s)",
		names.data, (int) lengthof(counters) + 1, values.data);
	return MemoryContextStrdup(TopMemoryContext, sql);
}

/* pages_add writes the ledger's row of a page. */
void
pages_add(int64 run, PageEntry *e)
{
	static DbQuery query = {NULL,
							16,
							{INT8OID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT8OID,
							 FLOAT4OID, FLOAT4OID, INT8OID, BYTEAOID, TEXTARRAYOID, UUIDARRAYOID,
							 TEXTOID, TEXTOID, INT4ARRAYOID},
							.plan_as = PLAN_GENERIC};
	Datum		   counts[] = {PAGE_COUNTERS(PAGES_VALUE) Int32GetDatum(e->unread)};
	Datum		   v[16];
	char		   nulls[16];

	if (query.sql == NULL)
		query.sql = pages_statement();
	memset(nulls, ' ', sizeof(nulls));
	v[0] = Int64GetDatum(run);
	v[1] = Int32GetDatum(e->page);
	nulls[2] = e->cursor ? ' ' : 'n';
	v[2] = e->cursor ? CStringGetTextDatum(e->cursor) : (Datum) 0;
	nulls[3] = e->next_cursor ? ' ' : 'n';
	v[3] = e->next_cursor ? CStringGetTextDatum(e->next_cursor) : (Datum) 0;
	v[4] = TimestampTzGetDatum(e->fetched_at);
	v[5] = Int32GetDatum(e->records);
	v[6] = Int64GetDatum(e->bytes);
	v[7] = Float4GetDatum((float4) e->fetch_ms);
	v[8] = Float4GetDatum((float4) e->apply_ms);
	nulls[9] = e->total_estimate >= 0 ? ' ' : 'n';
	v[9] = Int64GetDatum(e->total_estimate);
	e->ledger = ledger_encode(e->seen, e->nseen);
	v[10] = PointerGetDatum(e->ledger);
	nulls[11] = e->ndeleted > 0 ? ' ' : 'n';
	v[11] = e->ndeleted > 0 ? db_text_array(e->deleted, e->ndeleted) : (Datum) 0;
	nulls[12] = e->nchanged > 0 ? ' ' : 'n';
	v[12] = e->nchanged > 0 ? db_uuid_array(e->changed, e->nchanged) : (Datum) 0;
	nulls[13] = e->incomplete ? ' ' : 'n';
	v[13] = e->incomplete ? CStringGetTextDatum(e->incomplete) : (Datum) 0;
	nulls[14] = e->link ? ' ' : 'n';
	v[14] = e->link ? CStringGetTextDatum(e->link) : (Datum) 0;
	v[15] = PointerGetDatum(
		construct_array(counts, lengthof(counts), INT4OID, 4, true, TYPALIGN_INT));
	db_execute(&query, v, nulls);
}

/*
 * pages_overlap tells why a pass may have missed records though all its pages came; NULL: it
 * has not.
 */
char *
pages_overlap(int64 run, MemoryContext context)
{
	static DbQuery query = {"select _flohsync.pass_overlap($1)", 1, {INT8OID}};
	Datum		   value = Int64GetDatum(run);

	db_execute(&query, &value, NULL);
	return db_get_text(0, 1, context);
}

/*
 * pages_had_several: has there been a pass of the same definition and settings, with more
 * than one page?
 */
bool
pages_had_several(int64 run)
{
	static DbQuery query = {
		"select true from flohsync.sync_run r join flohsync.sync_run o on o.connector_id ="
		" r.connector_id"
		" and o.resource_type = r.resource_type and o.fingerprint = r.fingerprint and"
		" o.pass_pages > 1"
		" where r.id = $1 limit 1",
		1,
		{INT8OID}};
	Datum value = Int64GetDatum(run);

	return db_execute(&query, &value, NULL) > 0;
}

/* pages_repeated: how many times a stored record came on one more page of a pass. */
int64
pages_repeated(int64 pass)
{
	static DbQuery query = {"select _flohsync.ledger_repeats(pg_catalog.array_agg(p.seen)) from"
							" _flohsync.pass_pages($1) p where p.seen is not null",
							1,
							{INT8OID}};
	Datum		   v = Int64GetDatum(pass);

	db_execute(&query, &v, NULL);
	return db_int64(0, 1, 0);
}

/* pages_seen_cursors: hashes of the cursors that a pass has been through. */
int
pages_seen_cursors(int64 pass, uint64 **hashes, MemoryContext context)
{
	static DbQuery query = {
		"select pg_catalog.hashtextextended(p.next_cursor collate \"C\", 0) from"
		" _flohsync.pass_pages($1) p where p.next_cursor is not null",
		1,
		{INT8OID}};
	Datum v = Int64GetDatum(pass);
	int	  n = (int) db_execute(&query, &v, NULL);

	*hashes = MemoryContextAlloc(context, sizeof(uint64) * (n + 64));
	for (int i = 0; i < n; i++)
		(*hashes)[i] = (uint64) db_int64(i, 1, 0);
	return n;
}
