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
 * Of a page that is read, records may be known by themselves: prints_known.c.
 *
 * What it costs.  A row of some 300 bytes a page that is read, written with it; for a page that
 * may be equal, SHA-256 and a short transaction.  One that keeps changing is not hashed: when it
 * is as it was for the first time, it is read once more, record by record.  Taken pages share a transaction, up
 * to 64 of them or for a second: a crash loses no more, and these cost little.  They
 * are written before a page is read, and when an answer does not come at once.
 *
 * What is not noticed of taken pages: their ids.  So an upstream that goes in circles
 * behind such a page is found out some pages later, and repeated records are counted
 * only if that decides whether the pass is complete (pages_repeated).
 */
#include "postgres.h"

#include "base/compat.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "run/prints.h"

#define PRINTS_GROUP_MS 1000 /* for which the first of the taken pages waits */
#define PRINTS_WAIT_MS	20	 /* so long an answer is waited for with pages that are not written */

/* Does the pass stand where it stood before the page of a fingerprint?  In the list, that is. */
static bool
prints_stands_before(const Run *run, const PagePrint *print)
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
	return !run->prints->noted || prints_check(run, print);
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

/* prints_pass_over: pages mostly come in the order in which they came, and this one is the i-th. */
void
prints_pass_over(Prints *prints, int i)
{
	int n = i - PRINTS_BEHIND;

	if (n <= 0)
		return;
	for (int k = 0; k < n; k++)
		prints_free(prints->ahead[k]);
	prints->nahead -= n;
	memmove(prints->ahead, prints->ahead + n, sizeof(PagePrint *) * prints->nahead);
}

/* prints_end: the fingerprints are of no use any more. */
void
prints_end(Prints *prints)
{
	prints->pass = 0;
	prints->no_more = true;
	known_clear(prints->known);
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
	prints_pass_over(prints, i);
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
 * likely if the list stands as it did then before the page at hand.
 */
const char *
prints_foresee(void *arg, const char *cursor)
{
	Run	   *run = arg;
	Prints *prints = run->prints;
	int		i;

	if (prints == NULL || !prints->stands)
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

/*
 * prints_likely_next: where the list goes on behind the answer at hand, if that is likely to be
 * equal: not modified, or of the same size, behind one that was.  NULL: that is not known, or
 * what is read of the answer depends on what was asked for last.  The next page is to be asked
 * for conditionally, if it could be in its turn.
 */
const char *
prints_likely_next(Run *run, const SourceAnswer *answer)
{
	const Prints	*prints = run->prints;
	const PagePrint *print = prints ? prints->candidate : NULL;

	if (print == NULL || !prints->taken_last || !run->source->spec.kind->reads_alone ||
		run->source->concurrency > 1 || run->source->spec.one_at_a_time ||
		!(answer->not_modified ? prints_is_not_modified(answer, print) :
								 print->has_digest && (int64) answer->len == print->bytes) ||
		!prints_stands_before(run, print) || print->next_cursor == NULL ||
		source_shows_secret(run->source, print->next_cursor))
		return NULL;
	source_set_condition(run->source, source_foreseen_condition(run->source, print->next_cursor));
	return print->next_cursor;
}

/*
 * prints_equal: is the answer at hand that of its fingerprint, and are its records
 * stored as it has them?  Then it has been read.
 */
bool
prints_equal(Run *run, const SourceAnswer *answer)
{
	Prints	  *prints = run->prints;
	PagePrint *print;
	instr_time t;
	bool	   clean;

	if (prints == NULL)
		return false;
	INSTR_TIME_SET_CURRENT(t);
	print = prints->candidate;
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
	else if (strcmp(prints->read_from, print->read_from) != 0 || !print->has_digest ||
			 (int64) answer->len != print->bytes || !prints_hash(prints, answer) ||
			 memcmp(prints->digest, print->digest, CRYPTO_SHA256_BYTES) != 0)
		return false;
	clean = prints_check(run, print);
	prints->ms = run_microseconds(&t) / 1000.0;
	return clean && source_read_as_before(run->source, print->read_to, print->next_cursor);
}

/* prints_was_read: the answer at hand was read. */
void
prints_was_read(Run *run)
{
	Prints *prints = run->prints;

	if (prints == NULL)
		return;
	prints->taken_last = false;
	prints->restless = prints->candidate && prints->candidate->pass == prints->last_complete;
	if (prints->read_from)
		prints->read_to = source_read_to(run->source);
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
		.print = print,
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
	print->uses++;
	prints->any = prints->taken_last = true;
	known_clear(prints->known);
	prints->known_page = print->page;
	prints->known_pass = print->pass;
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

/* prints_drop forgets what was taken: it is written, or the pass begins again. */
void
prints_drop(Run *run)
{
	Prints *prints = run->prints;

	if (prints == NULL)
		return;
	for (int i = 0; i < prints->ntaken; i++)
	{
		TakenPage *page = &prints->taken[i];

		prints_free(page->print);
		if (page->etag == NULL)
			continue;
		pfree(page->etag);
		pfree(page->last_modified);
	}
	prints->ntaken = 0;
}

/* prints_flush writes what was taken; false when the run must not go on, and has been failed. */
bool
prints_flush(Run *run)
{
	if (run->prints == NULL || run->prints->ntaken == 0)
		return true;
	prints_store_taken(run);
	prints_drop(run);
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

/*
 * A page that has changed again since the last pass is likely to be another one in the next
 * pass, too.  Its records are known by its list.
 */
static bool
prints_needs_no_digest(const Run *run, const UpstreamPage *page)
{
	return run->prints->restless && page->nknown < page->received && prints_has_list(run, page);
}

/* prints_note makes the fingerprint of a page that was read, in its transaction. */
void
prints_note(Run *run, const SourceAnswer *answer, const UpstreamPage *page, const PageEntry *entry)
{
	Prints			 *prints = run->prints;
	const PageCounts *c = &entry->counts;

	if (prints == NULL || prints->read_from == NULL || prints->read_to == NULL)
		return;
	if (page->nfaults > 0 || page->duplicates > 0 || page->ndeleted > 0 || page->gone > 0 ||
		page->partial || page->list_start || page->cut || page->loop || page->incomplete ||
		page->unread || page->keep_link || entry->incomplete || entry->unread || c->ignored > 0 ||
		entry->nseen != c->added + c->updated + c->unchanged + c->restored ||
		(!prints_needs_no_digest(run, page) && !prints_hash(prints, answer)))
		return;
	prints_store(run, answer, page, entry);
	/* Their ids are not looked at again in the pass, as those of pages that were taken. */
	prints->any |= page->nknown > 0;
}
