/*
 * prints_known.c
 *	  Records of pages that have changed: which are as they came in the last complete
 *	  full pass (page/known.c).
 *
 * Beside its fingerprint, a page that was read where there were fingerprints has a list of
 * its records (page_print.came).  So a first pass keeps none, nor does a page that never
 * changes.  A list says of each record what the fingerprint says of all: it is
 * stored as its text has it, unless somebody has noted that he wrote it.
 *
 * Two lists are loaded, or three: that of the page at hand, and those beside it.  Which
 * one is the page's follows from where the page before left off, or else from its cursor.
 *
 * Notes are looked up when the answer is there, as stored rows would be.  What the pass
 * itself writes is kept in memory; what it wrote before it was interrupted has been noted.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "base/db_value.h"
#include "record/ledger.h"
#include "run/prints.h"

/* So many notes of others are looked at for each page; so many records of its own are kept. */
#define PRINTS_MAX_NOTES   200
#define PRINTS_MAX_WRITTEN 500000

/* The pass's own notes are left out: there may be one for each page. */
#define PRINTS_NOTES(which, limit) \
	"select d.nums from _flohsync.dirty_record d where d.connector_id = $2" \
	" and d.resource_type = $3 and d.pass_id " which " limit " limit

typedef struct WrittenEntry
{
	int64 num;
	char  status; /* of simplehash.h */
} WrittenEntry;

#define SH_PREFIX		  written
#define SH_ELEMENT_TYPE	  WrittenEntry
#define SH_KEY_TYPE		  int64
#define SH_KEY			  num
#define SH_HASH_KEY(t, k) ((uint32) ((uint64) (k) * UINT64CONST(0x9E3779B97F4A7C15) >> 32))
#define SH_EQUAL(t, a, b) ((a) == (b))
#define SH_SCOPE		  static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Looks once at what earlier runs of the pass have noted; in a transaction. */
static void
prints_look_back(Run *run)
{
	static DbQuery query = {
		"select _flohsync.ledger_union(pg_catalog.array_agg(x.nums)) from _flohsync.dirty_record x"
		" where x.connector_id = $1 and x.resource_type = $2 and x.pass_id = $3"
		" having pg_catalog.count(*) > 0",
		3,
		{UUIDOID, TEXTOID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum	v[3] = {run->scope.connector, run->scope.resource_type,
					Int64GetDatum(prints->open_pass)};

	if (prints->looked_back)
		return;
	if (db_execute(&query, v, NULL) == 1)
		prints->written_before = db_get_bytea(0, 1, run->context);
	prints->looked_back = true;
}

/* The place among those read ahead of the first one behind a page; or their number. */
static int
prints_behind(const Prints *prints, int page, int64 pass)
{
	int i = 0;

	while (i < prints->nahead &&
		   (prints->ahead[i]->page < page ||
			(prints->ahead[i]->page == page && prints->ahead[i]->pass <= pass)))
		i++;
	return i;
}

/* Loads the list of a fingerprint, which may have none. */
static void
prints_load_list(Run *run, const PagePrint *print)
{
	static DbQuery query = {"select p.came from _flohsync.page_print p where p.id = $1",
							1,
							{INT8OID},
							.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum	v = Int64GetDatum(print->id);
	bytea  *list = NULL;
	bool	isnull = true;

	if (print->has_list && db_execute(&query, &v, NULL) == 1)
		list = (bytea *) DatumGetPointer(db_value(0, 1, &isnull));
	if (!isnull)
		list = DatumGetByteaPP(PointerGetDatum(list));
	(void) known_add_list(prints->known, print->id, isnull ? "" : VARDATA_ANY(list),
						  isnull ? 0 : VARSIZE_ANY_EXHDR(list));
	prints->known_page = print->page;
	prints->known_pass = print->pass;
}

/* Loads what the next page may need: there is always one list ahead of the record that is expected. */
static void
prints_load_lists(Run *run)
{
	Prints *prints = run->prints;
	Known  *known = prints->known;
	int		i;

	if (!known_in_step(known) && prints->candidate)
		known_clear(known);
	else if (!known_in_step(known) && known->nlists > 0)
		known_go_to(known, known->nlists - 1);
	if (known->nlists == 0 && prints->candidate)
		prints_load_list(run, prints->candidate);
	while (known->list + 1 >= known->nlists)
	{
		i = prints_behind(prints, prints->known_page, prints->known_pass);
		if (i == prints->nahead)
			break;
		prints_load_list(run, prints->ahead[i]);
		/* Where cursors are not those of before, nobody else passes fingerprints over. */
		if (prints->candidate == NULL)
			prints_pass_over(prints, i);
	}
}

/* Looks at the notes of others; in a transaction.  False when whatever is stored may have been written. */
static bool
prints_read_notes(Run *run)
{
	static DbQuery any = {"select s.pass_id, exists (" PRINTS_NOTES("is null", "1") ") or exists ("
						  PRINTS_NOTES("< $4", "1") ") or exists (" PRINTS_NOTES("> $4", "1") ")"
						  " from _flohsync.page_print_scope s where s.config_id = $1",
						  4,
						  {UUIDOID, UUIDOID, TEXTOID, INT8OID},
						  .plan_as = PLAN_BY_INDEX};
	static DbQuery all = {
		"select pg_catalog.count(*) <= $5 and pg_catalog.count(*) = pg_catalog.count(x.nums),"
		" _flohsync.ledger_union(pg_catalog.array_agg(x.nums)) from ((" PRINTS_NOTES("is null", "$5 + 1")
		") union all (" PRINTS_NOTES("< $4", "$5 + 1") ") union all (" PRINTS_NOTES("> $4", "$5 + 1") ")) x",
		5,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum	v[5] = {UUIDPGetDatum(&prints->config), run->scope.connector, run->scope.resource_type,
					Int64GetDatum(prints->open_pass), Int64GetDatum(PRINTS_MAX_NOTES)};

	if (prints->noted_by_others)
		pfree(prints->noted_by_others);
	prints->noted_by_others = NULL;
	/* Whoever has removed the scope has removed what was noted of it. */
	if (db_execute(&any, v, NULL) == 0 || db_int64(0, 1, 0) != prints->pass)
	{
		prints_end(prints);
		return false;
	}
	if (!db_bool(0, 2))
		return true;
	if (db_execute(&all, v, NULL) != 1 || !db_bool(0, 1))
		return false;
	prints->noted_by_others = db_get_bytea(0, 2, run->context);
	return true;
}

/* Gets ready for the answer at hand: it has come, so what is written from now on is newer. */
static void
prints_prepare_work(void *arg)
{
	Run	   *run = arg;
	Prints *prints = run->prints;

	db_begin("comparing a page");
	prints_look_back(run);
	if (prints_read_notes(run))
	{
		prints_read_ahead(run);
		prints_load_lists(run);
	}
	else
		known_clear(prints->known);
	db_commit();
}

/* May the stored row of a record be another than it was? */
static bool
prints_doubt(void *arg, int64 num)
{
	const Prints *prints = arg;

	return (prints->noted_by_others && ledger_union_has(prints->noted_by_others, num)) ||
		(prints->written_before && ledger_union_has(prints->written_before, num)) ||
		(prints->written && written_lookup(prints->written, num) != NULL);
}

/* prints_know: the answer at hand is going to be read; which of its records are known? */
void
prints_know(Run *run)
{
	Prints *prints = run->prints;

	page_know(run->parser, NULL);
	if (prints == NULL || prints->pass == 0 || prints->read_from == NULL)
		return;
	db_retry(prints_prepare_work, run);
	if (prints->pass == 0)
		return;
	if (prints->written && prints->written->members > PRINTS_MAX_WRITTEN)
		known_clear(prints->known);
	known_begin(prints->known, prints_doubt, prints);
	page_know(run->parser, prints->known);
}

/* prints_wrote: so many records were written, and that is committed. */
void
prints_wrote(Run *run, const int64 *nums, int n)
{
	Prints *prints = run->prints;
	bool	found;

	if (n == 0 || prints == NULL || prints->pass == 0)
		return;
	if (prints->written == NULL)
		prints->written = written_create(run->context, 1024, NULL);
	for (int i = 0; i < n && prints->written->members <= PRINTS_MAX_WRITTEN; i++)
		(void) written_insert(prints->written, nums[i], &found);
}

/* prints_list is the list of a page that was read; NULL: none is kept. */
bytea *
prints_list(const Run *run, const UpstreamPage *page)
{
	bytea *list;

	if (run->prints->pass == 0 || page->came == NULL || page->received > KNOWN_MAX_RECORDS)
		return NULL;
	list = palloc(VARHDRSZ + KNOWN_ENCODED(page->received));
	SET_VARSIZE(list, VARHDRSZ + known_encode(page->came, page->received, VARDATA(list)));
	return list;
}
