/*
 * prints_known.c
 *	  Records of pages that have changed: which are as they came in the last complete
 *	  full pass (page/known.c).
 *
 * Beside its fingerprint, a page that was read where there were fingerprints has a list of
 * its records (page_list, and what is different from it, page_print.came).  So a first pass
 * keeps none, nor does a page that never changes.  A list says of each record what the fingerprint says of all: it is
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

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "record/ledger.h"
#include "run/prints.h"

/* So many records that the pass has written are kept. */
#define PRINTS_MAX_WRITTEN 500000

typedef struct WrittenEntry
{
	int64 num;
	char  status; /* of simplehash.h */
} WrittenEntry;

#define SH_PREFIX		  written
#define SH_ELEMENT_TYPE	  WrittenEntry
#define SH_KEY_TYPE		  int64
#define SH_KEY			  num
#define SH_HASH_KEY(t, k) ((uint32) ((uint64) (k) *UINT64CONST(0x9E3779B97F4A7C15) >> 32))
#define SH_EQUAL(t, a, b) ((a) == (b))
#define SH_SCOPE		  static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

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
		prints_read_list(run, prints->candidate);
	while (known->list + 1 >= known->nlists)
	{
		i = prints_behind(prints, prints->known_page, prints->known_pass);
		if (i == prints->nahead)
			break;
		prints_read_list(run, prints->ahead[i]);
		/* Where cursors are not those of before, nobody else passes fingerprints over. */
		if (prints->candidate == NULL)
			prints_pass_over(prints, i);
	}
}

/* Gets ready for the answer at hand: it has come, so what is written from now on is newer. */
static void
prints_prepare_work(void *arg)
{
	Run	   *run = arg;
	Prints *prints = run->prints;

	uint64 ended = db_others_ended();

	db_begin("comparing a page");
	prints_read_own_notes(run);
	if (prints_read_notes(run, ended))
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

/* prints_has_list: is a list kept of a page that was read? */
bool
prints_has_list(const Run *run, const UpstreamPage *page)
{
	return run->prints->pass != 0 && page->came != NULL && page->received <= KNOWN_MAX_RECORDS;
}

/*
 * prints_list is the list of a page that was read: a stored one (0: none is kept), and what is
 * different from that (NULL: nothing).
 */
int64
prints_list(const Run *run, const UpstreamPage *page, bytea **changes)
{
	int	   n = page->received;
	int64  base;
	bytea *text;
	size_t len;

	*changes = NULL;
	if (!prints_has_list(run, page))
		return 0;
	text = palloc(VARHDRSZ + KNOWN_ENCODED_CHANGES(n));
	len = known_encode_changes(page->came, n, VARDATA(text), &base);
	if (len > 0)
	{
		SET_VARSIZE(text, VARHDRSZ + len);
		*changes = text;
		return base;
	}
	pfree(text);
	text = palloc(VARHDRSZ + KNOWN_ENCODED(n));
	SET_VARSIZE(text, VARHDRSZ + known_encode(page->came, n, VARDATA(text)));
	return prints_store_list(run, text);
}
