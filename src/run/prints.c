/*
 * prints.c
 *	  Fingerprints of pages: a page that comes as it came in the last complete full
 *	  pass, byte for byte, is not read, and its records are not looked up.
 *
 *	  ask --> answer --> equal? --> take .. take --> flush
 *	                        |
 *	                        +--> read --> apply, with a new fingerprint (note)
 *
 * Why that is right.  What comes of a page follows from its bytes, its cursor, the
 * settings, what the kind of connector says its reading goes by besides (source_reads_from),
 * and the stored records.  A page with a fingerprint was read under all that: every
 * record of it that is in scope was stored as the page has it, and is still, unless
 * somebody has noted that he wrote one (sql/63_page_print).  This is looked up after
 * the request was sent, as that of a page that is read would be.  So its records are
 * unchanged, and what it would have written is its row in the ledger.
 *
 * No fingerprint is made of a page with anything that does not follow from these: records
 * set aside, older than what is stored, or deleted, duplicates, changes only, another
 * list's beginning, a reason to be incomplete.
 *
 * Of pages that are asked for before their turn (concurrency) all this is looked at in
 * their turn.  Such a request may be conditional as well, by the fingerprint of its own
 * cursor (prints_foresee).  If that page cannot be taken as it was when its turn comes,
 * a 304 is of no use, and the page is asked for in any case.
 *
 * What it costs.  A row of some 300 bytes a page that is read, written with it; for a page that
 * may be equal, SHA-256 and a short transaction.  Taken pages share a transaction, up
 * to 64 of them or for a second: a crash loses no more, and these cost little.  They
 * are written before a page is read, and when an answer does not come at once.
 *
 * What is not noticed of taken pages: their ids.  So an upstream that goes in circles
 * behind such a page is found out some pages later, and repeated records are counted
 * only if that decides whether the pass is complete (pages_repeated).
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
#include "net/crypto.h"
#include "run/state.h"

#define PRINTS_GROUP	64	 /* pages of one transaction */
#define PRINTS_GROUP_MS 1000 /* for which the first of them waits */
#define PRINTS_WAIT_MS	20	 /* so long an answer is waited for with pages that are not written */
#define PRINTS_READ		128 /* fingerprints read ahead at once; so many cover all lanes (ahead.c) */
#define PRINTS_BEHIND	16	/* that were passed over, and may still come */

typedef struct PagePrint
{
	int64		  id;
	char		 *cursor; /* NULL: the first page */
	char		 *next_cursor;
	unsigned char digest[CRYPTO_SHA256_BYTES];
	int64		  bytes;
	int			  records;
	int			  unchanged;
	int64		  total_estimate;
	char		 *read_from;
	char		 *read_to;
	char		 *etag; /* of these two at most one */
	char		 *last_modified;
} PagePrint;

/* A page that was taken, and not written yet. */
typedef struct TakenPage
{
	int64		id;
	int			page;
	TimestampTz fetched_at;
	int64		bytes;
	double		fetch_ms;
	double		apply_ms;
	char	   *etag; /* not NULL: this and the next are not those of the fingerprint */
	char	   *last_modified;
} TakenPage;

typedef struct Prints
{
	pg_uuid_t config;
	int64	  open_pass;
	int64	  pass; /* fingerprints up to this one can be used; 0: none */
	/* read ahead in the order of pages, as far as (last_page, last_pass) */
	PagePrint *ahead[2 * PRINTS_READ];
	int		   nahead;
	int		   last_page;
	int64	   last_pass;
	bool	   no_more;
	bool	   noted;	  /* there were notes of records when it was looked last */
	PagePrint *candidate; /* of the page that was asked for last */
	bool	   stands;	  /* before it, the list stands as it did then */
	bool	   in_vain;	  /* the last 304 was of no use */
	/* of the page at hand */
	char		 *read_from; /* NULL: no fingerprint is made of it */
	char		 *read_to;
	bool		  hashed;
	double		  ms; /* so long it was compared */
	unsigned char digest[CRYPTO_SHA256_BYTES];
	TakenPage	  taken[PRINTS_GROUP];
	int			  ntaken;
	TimestampTz	  taken_since;
	bool		  any; /* a page was taken */
} Prints;

static void
prints_free(PagePrint *print)
{
	char *texts[] = {print->cursor,	 print->next_cursor, print->read_from,
					 print->read_to, print->etag,		 print->last_modified};

	for (size_t i = 0; i < lengthof(texts); i++)
		if (texts[i])
			pfree(texts[i]);
	pfree(print);
}

/* Reads ahead when few are left.  In a transaction. */
static void
prints_read_ahead(Run *run)
{
	static DbQuery query = {
		"select p.id, p.page, p.pass_id, p.cursor, p.next_cursor, p.digest, p.bytes, p.records,"
		" p.unchanged, p.total_estimate, p.read_from, p.read_to,"
		" p.etag, p.last_modified"
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

	if (prints->pass == 0 || prints->no_more || prints->nahead > PRINTS_READ / 2)
		return;
	n = (int) db_execute(&query, v, NULL);
	prints->no_more = n < PRINTS_READ;
	for (int i = 0; i < n; i++)
	{
		PagePrint *print = MemoryContextAllocZero(run->context, sizeof(PagePrint));
		bool	   isnull;
		bytea	  *digest;

		print->id = db_int64(i, 1, 0);
		prints->last_page = (int) db_int64(i, 2, 0);
		prints->last_pass = db_int64(i, 3, 0);
		print->cursor = db_get_text(i, 4, run->context);
		print->next_cursor = db_get_text(i, 5, run->context);
		digest = DatumGetByteaPP(db_value(i, 6, &isnull));
		if (VARSIZE_ANY_EXHDR(digest) == CRYPTO_SHA256_BYTES)
			memcpy(print->digest, VARDATA_ANY(digest), CRYPTO_SHA256_BYTES);
		print->bytes = db_int64(i, 7, -1);
		print->records = (int) db_int64(i, 8, 0);
		print->unchanged = (int) db_int64(i, 9, 0);
		print->total_estimate = db_int64(i, 10, -1);
		print->read_from = db_get_text(i, 11, run->context);
		print->read_to = db_get_text(i, 12, run->context);
		print->etag = db_get_text(i, 13, run->context);
		print->last_modified = db_get_text(i, 14, run->context);
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
	static DbQuery query = {"select p.config_id, p.pass_id, p.open_pass from"
							" _flohsync.begin_page_prints($1, $2, $3) p",
							3,
							{INT8OID, BOOLOID, TEXTOID}};
	Datum		   v[3] = {Int64GetDatum(run->id),
						   BoolGetDatum(flohsync_page_fingerprints && source_knows_pages(&run->setup.spec)),
						   CStringGetTextDatum(FLOHSYNC_VERSION)};
	Datum		   config;
	bool		   isnull;
	Prints		  *prints;

	run->prints = NULL;
	run->scope.not_dirty = strcmp(run->setup.strategy, "full") == 0;
	run->scope.pass = 0;
	db_execute(&query, v, NULL);
	config = db_value(0, 1, &isnull);
	if (isnull)
		return;
	run->prints = prints = MemoryContextAllocZero(run->context, sizeof(Prints));
	prints->config = *DatumGetUUIDP(config);
	prints->pass = db_int64(0, 2, 0);
	prints->open_pass = db_int64(0, 3, 0);
	prints->noted = true;
	prints->last_page = Max(0, run->setup.last_page - PRINTS_BEHIND);
	run->scope.not_dirty = prints->pass == 0;
	run->scope.pass = prints->open_pass;
	prints_read_ahead(run);
}

typedef struct CheckWork
{
	Run				*run;
	const PagePrint *print;
	bool			 clean;
} CheckWork;

/* Are the records of a fingerprint as it left them?  Reads ahead by the way. */
static void
prints_check_work(void *arg)
{
	static DbQuery query = {
		"select s.pass_id, d.nums is not null, d.nums is not null and"
		" _flohsync.ledger_meets(_flohsync.ledger_union(d.nums), p.seen)"
		" from _flohsync.page_print_scope s join _flohsync.page_print p on p.id = $2"
		" cross join lateral (select pg_catalog.array_agg(x.nums) as nums"
		" from _flohsync.dirty_record x where x.connector_id = $3 and x.resource_type = $4) d"
		" where s.config_id = $1",
		4,
		{UUIDOID, INT8OID, UUIDOID, TEXTOID},
		.plan_as = PLAN_BY_INDEX};
	CheckWork *work = arg;
	Run		  *run = work->run;
	Prints	  *prints = run->prints;
	Datum	   v[4] = {UUIDPGetDatum(&prints->config), Int64GetDatum(work->print->id),
					   run->scope.connector, run->scope.resource_type};

	db_begin("comparing a page");
	/* Whoever has removed the scope has removed what was noted of it. */
	if (db_execute(&query, v, NULL) == 0 || db_int64(0, 1, 0) != prints->pass)
	{
		work->clean = false;
		prints->pass = 0;
		prints->no_more = true;
	}
	else
	{
		prints->noted = db_bool(0, 2);
		work->clean = !db_bool(0, 3);
	}
	prints_read_ahead(run);
	db_commit();
}

/* Does the pass stand where it stood before the page of a fingerprint?  In the list, that is. */
static bool
prints_stands_before(Run *run, const PagePrint *print)
{
	return run->prints->pass != 0 && run->page < pass_max_pages(run) &&
		(print->records > 0 || print->next_cursor == NULL) &&
		(print->next_cursor == NULL || !pass_knows_cursor(run, print->next_cursor));
}

/* Are two texts of what a reading goes by the same but for what comes with the answer? */
static bool
prints_same_state(const char *a, const char *b)
{
	size_t n = strcspn(a, "\n");

	return n == strcspn(b, "\n") && memcmp(a, b, n) == 0;
}

/* Is there something that has come with the answer? */
static bool
prints_has_links(const char *read_from)
{
	const char *line = strchr(read_from, '\n');

	return line != NULL && line[1] != '\0';
}

/*
 * By what can the page of a fingerprint be asked for if it has changed?  Where links are
 * apart from pages, a full page stays the same when another one comes to stand behind it.
 */
static const char *
prints_validator(const Run *run, const PagePrint *print)
{
	if (!run->source->conditional || run->prints->pass == 0 ||
		(print->next_cursor == NULL && run->source->links_apart &&
		 print->records >= run->source->page_size))
		return NULL;
	return print->etag ? print->etag : print->last_modified;
}

/* What is noted from now on is found when the answer is there. */
static bool
prints_is_clean(Run *run, const PagePrint *print)
{
	CheckWork work = {run, print, true};

	if (run->prints->noted)
		db_retry(prints_check_work, &work);
	return work.clean;
}

/* The place of the fingerprint of a cursor among those that were read ahead; or their number. */
static int
prints_find(const Prints *prints, const char *cursor)
{
	int i = 0;

	while (i < prints->nahead &&
		   !(cursor && prints->ahead[i]->cursor ? strcmp(cursor, prints->ahead[i]->cursor) == 0 :
												  cursor == prints->ahead[i]->cursor))
		i++;
	return i;
}

/*
 * prints_look: which fingerprint may the page of a cursor have?  Before it is asked for;
 * conditionally, if the page could be taken as it was.
 */
void
prints_look(Run *run, const char *cursor)
{
	Prints	   *prints = run->prints;
	const char *state;
	int			i;

	source_set_condition(run->source, NULL);
	if (prints == NULL)
		return;
	prints->candidate = NULL;
	prints->stands = false;
	i = prints_find(prints, cursor);
	if (i == prints->nahead)
		return;
	prints->candidate = prints->ahead[i];
	/* Cursors mostly come in the order in which they came. */
	if (i > PRINTS_BEHIND)
	{
		for (int k = 0; k < i - PRINTS_BEHIND; k++)
			prints_free(prints->ahead[k]);
		prints->nahead -= i - PRINTS_BEHIND;
		memmove(prints->ahead, prints->ahead + i - PRINTS_BEHIND,
				sizeof(PagePrint *) * prints->nahead);
	}
	if (!run->source->conditional || !prints_stands_before(run, prints->candidate))
		return;
	state = source_reads_from(run->source, false);
	prints->stands = state && prints_same_state(state, prints->candidate->read_from);
	if (prints->stands && prints_validator(run, prints->candidate) &&
		prints_is_clean(run, prints->candidate))
		source_set_condition(run->source, prints_validator(run, prints->candidate));
}

/*
 * prints_foresee: by which validator may the page of a cursor be asked for before its
 * turn; NULL: by none.  That the pages until there are as they were is not known, but
 * likely if the list stands as it did then; after a 304 in vain, it is not any more
 * until a page is as it was.
 */
const char *
prints_foresee(void *arg, const char *cursor)
{
	Run	   *run = arg;
	Prints *prints = run->prints;
	int		i;

	if (prints == NULL || !prints->stands || prints->in_vain)
		return NULL;
	i = prints_find(prints, cursor);
	if (i == prints->nahead)
		return NULL;
	return prints_validator(run, prints->ahead[i]) && prints_is_clean(run, prints->ahead[i]) ?
		prints_validator(run, prints->ahead[i]) :
		NULL;
}

static bool
prints_hash(Prints *prints, const SourceAnswer *answer)
{
	if (!prints->hashed)
		prints->hashed = crypto_sha256(answer->body, answer->len, prints->digest);
	return prints->hashed;
}

/* Does an answer say that the page of a fingerprint is as it was? */
static bool
prints_is_not_modified(const SourceAnswer *answer, const PagePrint *print)
{
	const char *validator = print->etag ? print->etag : print->last_modified;

	return validator && strcmp(answer->condition, validator) == 0;
}

static bool
prints_compare(Run *run, const SourceAnswer *answer)
{
	Prints	  *prints = run->prints;
	PagePrint *print = prints->candidate;
	CheckWork  work = {run, print, false};
	instr_time t;

	INSTR_TIME_SET_CURRENT(t);
	prints->read_from = source_reads_from(run->source, true);
	if (print == NULL || prints->read_from == NULL || !prints_stands_before(run, print))
		return false;
	if (answer->not_modified)
	{
		/* Links need not come with it. */
		if (!prints_is_not_modified(answer, print) ||
			!prints_same_state(prints->read_from, print->read_from) ||
			(prints_has_links(prints->read_from) &&
			 strcmp(prints->read_from, print->read_from) != 0))
			return false;
	}
	else if (strcmp(prints->read_from, print->read_from) != 0 ||
			 (int64) answer->len != print->bytes || !prints_hash(prints, answer) ||
			 memcmp(prints->digest, print->digest, CRYPTO_SHA256_BYTES) != 0)
		return false;
	db_retry(prints_check_work, &work);
	prints->ms = run_microseconds(&t) / 1000.0;
	return work.clean && source_read_as_before(run->source, print->read_to, print->next_cursor);
}

/*
 * prints_equal: is the answer at hand that of its fingerprint, and are its records
 * stored as it has them?  Then it has been read.
 */
bool
prints_equal(Run *run, const SourceAnswer *answer)
{
	bool equal = run->prints && prints_compare(run, answer);

	if (run->prints && (equal || answer->not_modified))
		run->prints->in_vain = !equal;
	return equal;
}

/* prints_was_read: the answer at hand was read. */
void
prints_was_read(Run *run)
{
	if (run->prints && run->prints->read_from)
		run->prints->read_to = source_read_to(run->source);
}

/* prints_next_cursor: where the list goes on behind a page that is equal. */
const char *
prints_next_cursor(const Run *run)
{
	return run->prints->candidate->next_cursor;
}

/* prints_take counts an equal page; its row in the ledger is written later. */
void
prints_take(Run *run, const SourceAnswer *answer)
{
	Prints	  *prints = run->prints;
	PagePrint *print = prints->candidate;

	if (prints->ntaken == 0)
		prints->taken_since = GetCurrentTimestamp();
	prints->taken[prints->ntaken++] = (TakenPage){
		.id = print->id,
		.page = run->page,
		.fetched_at = answer->started_at,
		.bytes = (int64) answer->len,
		.fetch_ms = answer->ms,
		.apply_ms = prints->ms,
	};
	if (run->source->conditional && !answer->not_modified &&
		(strcmp(answer->etag, print->etag ? print->etag : "") != 0 ||
		 strcmp(answer->last_modified, print->last_modified ? print->last_modified : "") != 0))
	{
		TakenPage *page = &prints->taken[prints->ntaken - 1];

		page->etag = MemoryContextStrdup(run->context, answer->etag);
		page->last_modified = MemoryContextStrdup(run->context, answer->last_modified);
	}
	prints->any = true;
	run->setup.received += print->records;
	run->setup.passed += print->unchanged;
	run->setup.total_estimate = Max(run->setup.total_estimate, print->total_estimate);
}

/* prints_were_taken: was there a page that was not read? */
bool
prints_were_taken(const Run *run)
{
	return run->prints && run->prints->any;
}

/* prints_drop forgets what was taken: the pass begins again. */
void
prints_drop(Run *run)
{
	if (run->prints)
		run->prints->ntaken = 0;
}

#define PRINTS_NAME(name, ...) #name,

/* The ledger's rows of taken pages: counters are those of the fingerprint, or 0. */
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
		" records, bytes, fetch_ms, apply_ms, total_estimate, seen, print%s)"
		" select $1, u.page, p.cursor, p.next_cursor, u.fetched_at, p.records, u.bytes,"
		" u.fetch_ms, u.apply_ms, p.total_estimate, p.seen, p.id%s"
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
	Datum		   v[3] = {Int64GetDatum(page->id), CStringGetTextDatum(page->etag),
						   CStringGetTextDatum(page->last_modified)};

	db_execute(&query, v, NULL);
}

static void
prints_flush_work(void *arg)
{
	static DbQuery query = {NULL,
							7,
							{INT8OID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
							 FLOAT4ARRAYOID, FLOAT4ARRAYOID},
							.plan_as = PLAN_BY_INDEX};
	Run			  *run = arg;
	Prints		  *prints = run->prints;
	int			   n = prints->ntaken;
	Datum		   columns[6][PRINTS_GROUP];
	Datum		   v[7] = {Int64GetDatum(run->id)};
	instr_time	   t;

	INSTR_TIME_SET_CURRENT(t);
	if (!pass_begin_page(run))
		return;
	run->timings.commit_us += run_microseconds(&t);
	INSTR_TIME_SET_CURRENT(t);
	if (query.sql == NULL)
		query.sql = prints_statement();
	for (int i = 0; i < n; i++)
	{
		const TakenPage *page = &prints->taken[i];

		columns[0][i] = Int64GetDatum(page->id);
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
	if (db_execute(&query, v, NULL) != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("fingerprints of pages were removed during the run")));
	for (int i = 0; i < n; i++)
		if (prints->taken[i].etag)
			prints_note_validators(&prints->taken[i]);
	run->timings.ledger_us += run_microseconds(&t);
	INSTR_TIME_SET_CURRENT(t);
	db_commit_async();
	run->timings.commit_us += run_microseconds(&t);
}

/* prints_flush writes what was taken; false when the run must not go on, and has been failed. */
bool
prints_flush(Run *run)
{
	if (run->prints == NULL || run->prints->ntaken == 0)
		return true;
	db_retry(prints_flush_work, run);
	for (int i = 0; i < run->prints->ntaken; i++)
	{
		if (run->prints->taken[i].etag == NULL)
			continue;
		pfree(run->prints->taken[i].etag);
		pfree(run->prints->taken[i].last_modified);
	}
	run->prints->ntaken = 0;
	return run->status == NULL;
}

/* prints_flush_old likewise, when it is time. */
bool
prints_flush_old(Run *run)
{
	Prints *prints = run->prints;

	if (prints->ntaken < PRINTS_GROUP &&
		!TimestampDifferenceExceeds(prints->taken_since, GetCurrentTimestamp(), PRINTS_GROUP_MS))
		return true;
	return prints_flush(run);
}

/*
 * prints_await: an answer is awaited, of which nothing is known yet.  If it takes a while,
 * what was taken is written before; false when the run has failed by that.
 */
bool
prints_await(Run *run)
{
	Prints *prints = run->prints;

	if (prints == NULL)
		return true;
	prints->read_from = prints->read_to = NULL;
	prints->hashed = false;
	return prints->ntaken == 0 || source_ready(run->source, PRINTS_WAIT_MS) || prints_flush(run);
}

/* prints_note makes the fingerprint of a page that was read, in its transaction. */
void
prints_note(Run *run, const SourceAnswer *answer, const UpstreamPage *page, const PageEntry *entry)
{
	static DbQuery query = {
		"insert into _flohsync.page_print (config_id, pass_id, page, cursor, next_cursor, digest,"
		" bytes, records, unchanged, filtered, truncated, total_estimate, seen, read_from, read_to,"
		" etag, last_modified)"
		" select $3, $4, p.page, p.cursor, p.next_cursor, $5, p.bytes, p.records,"
		" p.added + p.updated + p.unchanged + p.restored, p.filtered, p.truncated,"
		" p.total_estimate, p.seen, $6, $7, nullif($8, ''), nullif($9, '')"
		" from flohsync.sync_run_page p where p.run_id = $1 and p.page = $2",
		9,
		{INT8OID, INT4OID, UUIDOID, INT8OID, BYTEAOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID},
		.plan_as = PLAN_BY_INDEX};
	Prints			 *prints = run->prints;
	const PageCounts *c = &entry->counts;
	Datum			  v[9];
	bytea			 *digest;

	if (prints == NULL || prints->read_from == NULL || prints->read_to == NULL)
		return;
	if (page->nfaults > 0 || page->duplicates > 0 || page->ndeleted > 0 || page->gone > 0 ||
		page->partial || page->list_start || page->cut || page->loop || page->incomplete ||
		page->unread || page->keep_link || entry->incomplete || entry->unread || c->ignored > 0 ||
		entry->nseen != c->added + c->updated + c->unchanged + c->restored ||
		!prints_hash(prints, answer))
		return;
	digest = palloc(VARHDRSZ + CRYPTO_SHA256_BYTES);
	SET_VARSIZE(digest, VARHDRSZ + CRYPTO_SHA256_BYTES);
	memcpy(VARDATA(digest), prints->digest, CRYPTO_SHA256_BYTES);
	v[0] = Int64GetDatum(run->id);
	v[1] = Int32GetDatum(entry->page);
	v[2] = UUIDPGetDatum(&prints->config);
	v[3] = Int64GetDatum(prints->open_pass);
	v[4] = PointerGetDatum(digest);
	v[5] = CStringGetTextDatum(prints->read_from);
	v[6] = CStringGetTextDatum(prints->read_to);
	v[7] = CStringGetTextDatum(answer->etag);
	v[8] = CStringGetTextDatum(answer->last_modified);
	db_execute(&query, v, NULL);
}
