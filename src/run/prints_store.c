/*
 * prints_store.c
 *	  The statements about fingerprints: which there are, what is noted of records, and the rows
 *	  of pages that were taken.  prints.c says what they are for.
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
#include "base/flohsync.h"
#include "base/guc.h"
#include "run/prints.h"

/* prints_free: one of those who have a fingerprint does not need it any more. */
void
prints_free(PagePrint *print)
{
	char *texts[] = {print->cursor,	 print->next_cursor, print->read_from,
					 print->read_to, print->etag,		 print->last_modified};

	if (--print->uses > 0)
		return;
	for (size_t i = 0; i < lengthof(texts); i++)
		if (texts[i])
			pfree(texts[i]);
	pfree(print);
}

/* prints_ahead_suffices: are many left of those that were read ahead, or all that there are? */
bool
prints_ahead_suffices(const Prints *prints)
{
	return prints->pass == 0 || prints->no_more || prints->nahead > PRINTS_READ / 2;
}

/* prints_read_ahead reads ahead when few are left; in a transaction. */
void
prints_read_ahead(Run *run)
{
	static DbQuery query = {
		"select p.id, p.page, p.pass_id, p.cursor, p.next_cursor, p.digest, p.bytes, p.records,"
		" p.unchanged, p.total_estimate, p.read_from, p.read_to,"
		" p.etag, p.last_modified, p.list_id is not null, p.filtered, p.truncated"
		" from _flohsync.page_print p where p.config_id = $1 and p.pass_id <= $2"
		" and (p.page, p.pass_id) > ($3, $4) order by p.page, p.pass_id limit $5",
		5,
		{UUIDOID, INT8OID, INT4OID, INT8OID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum	v[5] = {UUIDPGetDatum(&prints->config), Int64GetDatum(prints->pass),
					Int32GetDatum(prints->last_page), Int64GetDatum(prints->last_pass),
					Int64GetDatum(PRINTS_READ)};
	int		n;

	if (prints_ahead_suffices(prints))
		return;
	n = (int) db_execute(&query, v, NULL);
	prints->no_more = n < PRINTS_READ;
	for (int i = 0; i < n; i++)
	{
		PagePrint *print = MemoryContextAllocZero(run->context, sizeof(PagePrint));
		bool	   isnull;
		bytea	  *digest;

		print->id = db_int64(i, 1, 0);
		print->page = prints->last_page = (int) db_int64(i, 2, 0);
		print->pass = prints->last_pass = db_int64(i, 3, 0);
		print->cursor = db_get_text(i, 4, run->context);
		print->next_cursor = db_get_text(i, 5, run->context);
		digest = DatumGetByteaPP(db_value(i, 6, &isnull));
		print->has_digest = VARSIZE_ANY_EXHDR(digest) == CRYPTO_SHA256_BYTES;
		if (print->has_digest)
			memcpy(print->digest, VARDATA_ANY(digest), CRYPTO_SHA256_BYTES);
		print->bytes = db_int64(i, 7, -1);
		print->records = (int) db_int64(i, 8, 0);
		print->unchanged = (int) db_int64(i, 9, 0);
		print->total_estimate = db_int64(i, 10, -1);
		print->read_from = db_get_text(i, 11, run->context);
		print->read_to = db_get_text(i, 12, run->context);
		print->etag = db_get_text(i, 13, run->context);
		print->last_modified = db_get_text(i, 14, run->context);
		print->has_list = db_bool(i, 15);
		print->filtered = (int) db_int64(i, 16, 0);
		print->truncated = (int) db_int64(i, 17, 0);
		print->uses = 1;
		prints->ahead[prints->nahead++] = print;
	}
}

/*
 * prints_begin notes that a full pass begins, or goes on, and which fingerprints it
 * may use; in its transaction.
 */
void
prints_begin(Run *run)
{
	static DbQuery query = {"select p.config_id, p.pass_id, p.open_pass, p.last_complete from"
							" _flohsync.begin_page_prints($1, $2, $3) p",
							3,
							{INT8OID, BOOLOID, TEXTOID}};
	Datum		   v[3] = {Int64GetDatum(run->id),
						   BoolGetDatum(flohsync_page_fingerprints && source_knows_pages(&run->setup.spec)),
						   CStringGetTextDatum(FLOHSYNC_VERSION)};
	Datum		   config;
	bool		   isnull;
	MemoryContext  old;
	Prints		  *prints;

	run->prints = NULL;
	run->scope.not_dirty = strcmp(run->setup.strategy, "full") == 0;
	run->scope.pass = 0;
	db_execute(&query, v, NULL);
	config = db_value(0, 1, &isnull);
	if (isnull)
		return;
	run->prints = prints = MemoryContextAllocZero(run->context, sizeof(Prints));
	old = MemoryContextSwitchTo(run->context);
	prints->known = known_create();
	MemoryContextSwitchTo(old);
	prints->config = *DatumGetUUIDP(config);
	prints->pass = db_int64(0, 2, 0);
	prints->open_pass = db_int64(0, 3, 0);
	prints->last_complete = db_int64(0, 4, 0);
	prints->noted = true;
	prints->last_page = Max(0, run->setup.last_page - PRINTS_BEHIND);
	run->scope.not_dirty = prints->pass == 0;
	run->scope.pass = prints->open_pass;
	prints_read_ahead(run);
}

/* A value of the first row, a bytea, as bytes; without data when it is null. */
static Slice
prints_bytes(int column)
{
	bool   isnull;
	Datum  value = db_value(0, column, &isnull);
	bytea *bytes = isnull ? NULL : DatumGetByteaPP(value);

	return isnull ? (Slice){NULL, 0} : (Slice){VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)};
}

/* prints_read_list reads the list of a fingerprint, which may have none. */
void
prints_read_list(Run *run, const PagePrint *print)
{
	static DbQuery query = {"select l.id, l.came, p.came from _flohsync.page_print p join"
							" _flohsync.page_list l on l.id = p.list_id where p.id = $1",
							1,
							{INT8OID},
							.plan_as = PLAN_BY_INDEX};
	Prints		  *prints = run->prints;
	Datum		   v = Int64GetDatum(print->id);
	KnownText	   text = {0};

	if (print->has_list && db_execute(&query, &v, NULL) == 1)
	{
		text.base = db_int64(0, 1, 0);
		text.whole = prints_bytes(2);
		text.changes = prints_bytes(3);
	}
	(void) known_add_list(prints->known, print->id, &text);
	prints->known_page = print->page;
	prints->known_pass = print->pass;
}

/* prints_store_list stores a list as a whole, and returns what it is called. */
int64
prints_store_list(const Run *run, bytea *list)
{
	static DbQuery query = {
		"insert into _flohsync.page_list (config_id, came) values ($1, $2) returning id",
		2,
		{UUIDOID, BYTEAOID}};
	Datum v[2] = {UUIDPGetDatum(&run->prints->config), PointerGetDatum(list)};

	db_execute(&query, v, NULL);
	return db_int64(0, 1, 0);
}

#define PRINTS_NAME(name, ...) #name,

/*
 * The ledger's rows of taken pages: counters are those of the fingerprint, or 0.  What they have
 * seen stays with that (sql/64_ledger).
 */
static char *
prints_statement(void)
{
	static const char *const counters[] = {PAGE_COUNTERS(PRINTS_NAME)};
	static const char *const kept[] = {"unchanged", "filtered", "truncated"};
	StringInfoData			 names;
	StringInfoData			 values;
	char					*sql;

	initStringInfo(&names);
	initStringInfo(&values);
	for (size_t i = 0; i < lengthof(counters); i++)
	{
		bool is_kept = false;

		for (size_t k = 0; k < lengthof(kept); k++)
			is_kept |= strcmp(counters[i], kept[k]) == 0;
		appendStringInfo(&names, ", %s", counters[i]);
		appendStringInfo(&values, is_kept ? ", p.%s" : ", 0", counters[i]);
	}
	sql = psprintf(
		"insert into flohsync.sync_run_page (run_id, page, cursor, next_cursor, fetched_at,"
		" records, bytes, fetch_ms, apply_ms, total_estimate, print%s)"
		" select $1, u.page, p.cursor, p.next_cursor, u.fetched_at, p.records, u.bytes,"
		" u.fetch_ms, u.apply_ms, p.total_estimate, p.id%s"
		" from unnest($2, $3, $4, $5, $6, $7) u(id, page, fetched_at, bytes, fetch_ms, apply_ms)"
		" join _flohsync.page_print p on p.id = u.id",
		names.data, values.data);
	return MemoryContextStrdup(TopMemoryContext, sql);
}

/* Of a page that came in spite of a condition, and is the same: what to ask with next time. */
static void
prints_note_validators(const TakenPage *page)
{
	static DbQuery query = {"update _flohsync.page_print p set etag = nullif($2, ''),"
							" last_modified = nullif($3, '') where p.id = $1",
							3,
							{INT8OID, TEXTOID, TEXTOID},
							.plan_as = PLAN_BY_INDEX};
	Datum		   v[3] = {Int64GetDatum(page->print->id), CStringGetTextDatum(page->etag),
						   CStringGetTextDatum(page->last_modified)};

	db_execute(&query, v, NULL);
}

/* By a statement, which leaves out what has no fingerprint any more; returns how many were written. */
static int
prints_state_rows(const Run *run)
{
	static DbQuery query = {NULL,
							7,
							{INT8OID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
							 FLOAT4ARRAYOID, FLOAT4ARRAYOID},
							.plan_as = PLAN_BY_INDEX};
	const Prints  *prints = run->prints;
	int			   n = prints->ntaken;
	Datum		   columns[6][PRINTS_GROUP];
	Datum		   v[7] = {Int64GetDatum(run->id)};

	if (query.sql == NULL)
		query.sql = prints_statement();
	for (int i = 0; i < n; i++)
	{
		const TakenPage *page = &prints->taken[i];

		columns[0][i] = Int64GetDatum(page->print->id);
		columns[1][i] = Int32GetDatum(page->page);
		columns[2][i] = TimestampTzGetDatum(page->fetched_at);
		columns[3][i] = Int64GetDatum(page->bytes);
		columns[4][i] = Float4GetDatum((float4) page->fetch_ms);
		columns[5][i] = Float4GetDatum((float4) page->apply_ms);
	}
	for (int k = 0; k < 6; k++)
	{
		static const Oid types[6] = {INT8OID, INT4OID,	 TIMESTAMPTZOID,
									 INT8OID, FLOAT4OID, FLOAT4OID};
		bool			 wide = types[k] != INT4OID && types[k] != FLOAT4OID;

		v[k + 1] = PointerGetDatum(construct_array(columns[k], n, types[k], wide ? 8 : 4,
												   wide ? FLOAT8PASSBYVAL : true,
												   wide ? TYPALIGN_DOUBLE : TYPALIGN_INT));
	}
	return (int) db_execute(&query, v, NULL);
}

static void
prints_flush_work(void *arg)
{
	Run		  *run = arg;
	Prints	  *prints = run->prints;
	instr_time t;

	INSTR_TIME_SET_CURRENT(t);
	if (!pass_begin_page(run))
		return;
	run->timings.commit_us += run_microseconds(&t);
	INSTR_TIME_SET_CURRENT(t);
	if (!prints_stand(run) || (!prints_put_rows(run) && prints_state_rows(run) != prints->ntaken))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("fingerprints of pages were removed during the run")));
	for (int i = 0; i < prints->ntaken; i++)
		if (prints->taken[i].etag)
			prints_note_validators(&prints->taken[i]);
	run->timings.ledger_us += run_microseconds(&t);
	INSTR_TIME_SET_CURRENT(t);
	db_commit_async();
	run->timings.commit_us += run_microseconds(&t);
}

/* prints_store_taken writes what was taken, unless the run must not go on. */
void
prints_store_taken(Run *run)
{
	db_retry(prints_flush_work, run);
}

/* prints_store writes the fingerprint of a page that was read, in its transaction. */
void
prints_store(const Run *run, const SourceAnswer *answer, const UpstreamPage *page,
			 const PageEntry *entry)
{
	static DbQuery query = {
		"insert into _flohsync.page_print (config_id, pass_id, page, cursor, next_cursor, digest,"
		" bytes, records, unchanged, filtered, truncated, total_estimate, seen, read_from, read_to,"
		" etag, last_modified, list_id, came)"
		" values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
		" nullif($16, ''), nullif($17, ''), nullif($18, 0), $19)",
		19,
		{UUIDOID, INT8OID, INT4OID, TEXTOID, TEXTOID, BYTEAOID, INT8OID, INT4OID, INT4OID, INT4OID,
		 INT4OID, INT8OID, BYTEAOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, BYTEAOID},
		.plan_as = PLAN_GENERIC};
	const Prints	 *prints = run->prints;
	const PageCounts *c = &entry->counts;
	bytea			 *changes;
	int64			  list = prints_list(run, page, &changes);
	int				  digest_len = prints->hashed ? CRYPTO_SHA256_BYTES : 0;
	bytea			 *digest = palloc(VARHDRSZ + CRYPTO_SHA256_BYTES);
	Datum			  v[19];
	char			  nulls[19];

	SET_VARSIZE(digest, VARHDRSZ + digest_len);
	memcpy(VARDATA(digest), prints->digest, digest_len);
	memset(nulls, ' ', sizeof(nulls));
	v[0] = UUIDPGetDatum(&prints->config);
	v[1] = Int64GetDatum(prints->open_pass);
	v[2] = Int32GetDatum(entry->page);
	nulls[3] = entry->cursor ? ' ' : 'n';
	v[3] = entry->cursor ? CStringGetTextDatum(entry->cursor) : (Datum) 0;
	nulls[4] = entry->next_cursor ? ' ' : 'n';
	v[4] = entry->next_cursor ? CStringGetTextDatum(entry->next_cursor) : (Datum) 0;
	v[5] = PointerGetDatum(digest);
	v[6] = Int64GetDatum(entry->bytes);
	v[7] = Int32GetDatum(entry->records);
	v[8] = Int32GetDatum(c->added + c->updated + c->unchanged + c->restored);
	v[9] = Int32GetDatum(c->filtered);
	v[10] = Int32GetDatum(c->truncated);
	nulls[11] = entry->total_estimate >= 0 ? ' ' : 'n';
	v[11] = Int64GetDatum(entry->total_estimate);
	v[12] = PointerGetDatum(entry->ledger);
	v[13] = CStringGetTextDatum(prints->read_from);
	v[14] = CStringGetTextDatum(prints->read_to);
	v[15] = CStringGetTextDatum(answer->etag);
	v[16] = CStringGetTextDatum(answer->last_modified);
	v[17] = Int64GetDatum(list);
	nulls[18] = changes ? ' ' : 'n';
	v[18] = PointerGetDatum(changes);
	db_execute(&query, v, nulls);
}
