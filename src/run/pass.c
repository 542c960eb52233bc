/*
 * pass.c
 *	  The walk over the upstream: fetch a page, read it, apply it, go on.
 *
 *	  fetch <-----------------------------+
 *	    | answer          (retry, wait)   |
 *	    v                                 |
 *	  read --> ask for the next --> apply +--> end of the list
 *	    |                            |
 *	    +--------- failure ----------+
 *
 * Fetching and waiting hold no transaction.  A page is one transaction: its
 * records, its faults and its row in the ledger, with the cursor of the next
 * page, become visible together.
 *
 * The next page is asked for before the current one is applied, where it costs
 * nothing to know that it is wanted.  Behind a page that is likely to be as it was, like the
 * one before it, that is before it is even compared (pass_ask_early): so the upstream works
 * meanwhile.  If the list then goes on elsewhere, that request was in vain.  A page is judged
 * (fetched_at) by the time of the asking, so a write that comes between wins over it.
 */
#include "postgres.h"

#include "base/compat.h"

#include <math.h>

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/wait.h"
#include "run/state.h"

#define PASS_MAX_PAGES		 100000
#define PASS_MAX_EMPTY_PAGES 100
#define PASS_MAX_RETRY_MS	 60000

static void
pass_send(Run *run, const char *cursor)
{
	instr_time t;

	INSTR_TIME_SET_CURRENT(t);
	source_ask(run->source, cursor);
	run->timings.fetch_us += run_microseconds(&t);
}

/* pass_forget_early: what was asked for early is asked for again in its turn. */
void
pass_forget_early(Run *run)
{
	if (run->early)
		pfree(run->early);
	run->early = NULL;
}

/* Asks the upstream for a page, unless it is on its way; a source may begin its work here. */
static void
pass_ask(Run *run, const char *cursor)
{
	prints_look(run, cursor);
	if (run->early == NULL || cursor == NULL || strcmp(run->early, cursor) != 0)
		pass_send(run, cursor);
	pass_forget_early(run);
}

/* An answer is there that is likely to be as it was: the page behind it is asked for. */
static void
pass_ask_early(Run *run, const SourceAnswer *answer)
{
	const char *cursor = prints_likely_next(run, answer);

	if (cursor == NULL)
		return;
	run->early = MemoryContextStrdup(run->context, cursor);
	pass_send(run, cursor);
}

typedef struct CursorEntry
{
	uint64 hash;   /* of a cursor */
	char   status; /* of simplehash.h */
} CursorEntry;

#define SH_PREFIX		  cursors
#define SH_ELEMENT_TYPE	  CursorEntry
#define SH_KEY_TYPE		  uint64
#define SH_KEY			  hash
#define SH_HASH_KEY(t, k) ((uint32) (k))
#define SH_EQUAL(t, a, b) ((a) == (b))
#define SH_SCOPE		  static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* pass_know_cursors begins with the cursors that earlier runs of the pass went through. */
void
pass_know_cursors(Run *run, const uint64 *hashes, int n)
{
	bool found;

	run->cursors = cursors_create(run->context, n + 64, NULL);
	for (int i = 0; i < n; i++)
		(void) cursors_insert(run->cursors, hashes[i], &found);
}

/* Notes a cursor; false when the pass has been there before. */
static bool
pass_new_cursor(Run *run, const char *cursor)
{
	uint64 hash = DatumGetUInt64(
		hash_any_extended((const unsigned char *) cursor, strlen(cursor), 0));
	bool found;

	(void) cursors_insert(run->cursors, hash, &found);
	return !found;
}

/* pass_knows_cursor: has the pass been there? */
bool
pass_knows_cursor(const Run *run, const char *cursor)
{
	uint64 hash = DatumGetUInt64(
		hash_any_extended((const unsigned char *) cursor, strlen(cursor), 0));

	return cursors_lookup(run->cursors, hash) != NULL;
}

int
pass_max_pages(const Run *run)
{
	return run->source->max_pages > 0 ? run->source->max_pages : PASS_MAX_PAGES;
}

static int
pass_max_attempts(const Run *run)
{
	return run->source->max_attempts > 0 ? run->source->max_attempts : flohsync_http_max_attempts;
}

/* pass_retry_delay: how long to wait before the next attempt at a page; -1: give up. */
int64
pass_retry_delay(const Run *run, const SourceAnswer *answer, int attempt)
{
	int	   base = run->source->retry_base_ms > 0 ? run->source->retry_base_ms :
												   flohsync_http_retry_delay;
	int	   longest = run->source->retry_max_ms > 0 ? run->source->retry_max_ms : PASS_MAX_RETRY_MS;
	double delay;

	if (attempt >= pass_max_attempts(run))
		return -1;
	if (answer->retry_after_ms >= 0)
		return answer->retry_after_ms > (int64) flohsync_http_max_retry_wait * 1000 ?
			-1 :
			answer->retry_after_ms;
	delay = Min(base * pow(2, attempt - 1), (double) longest);
	return (int64) (delay * (0.8 + 0.4 * pg_prng_double(&pg_global_prng_state)));
}

typedef struct RestartWork
{
	Run *run;
	bool forget_link;
} RestartWork;

static void
pass_restart_work(void *arg)
{
	RestartWork *work = arg;

	run_begin(work->run, "restarting a pass");
	work->run->setup.pass_started_at = store_restart_pass(work->run->id, work->forget_link);
	work->run->setup.last_page = 0;
	prints_begin(work->run);
	db_commit();
}

/* The upstream rejects the cursor: restart the pass. */
static void
pass_restart_pass(Run *run, bool forget_link)
{
	RestartWork work = {run, forget_link};

	ereport(LOG, (errmsg("upstream rejected the cursor; restarting the pass")));
	prints_drop(run);
	db_retry(pass_restart_work, &work);
	run->setup.pass_id = run->id;
	run->restarted = true;
	run->complete = true;
	run->unread = false;
	run->setup.resumed = false;
	run->setup.cursor = NULL;
	run->setup.last_page = 0;
	run->setup.passed = run->setup.received = run->setup.unidentified = 0;
	run->setup.total_estimate = -1;
	run->page = 1;
	run->known_pages = 0;
	run->repeated = 0;
	pass_forget_ids(run);
	cursors_reset(run->cursors);
	pass_ask(run, NULL);
}

/*
 * pass_fetch gets the page that was asked for, with as many attempts as it
 * takes.  False when the run has failed, or begins again (then *again).  What comes
 * as it came before is not read (*equal).
 */
static bool
pass_fetch(Run *run, SourceAnswer *answer, UpstreamPage *page, bool *again, bool *equal)
{
	*again = *equal = false;
	for (int attempt = 1;; attempt++)
	{
		instr_time t;
		int64	   delay;
		bool	   refused;

		if (!prints_await(run))
			return false;
		INSTR_TIME_SET_CURRENT(t);
		source_answer(run->source, answer);
		run->timings.fetch_us += run_microseconds(&t);

		if (answer->error_class == ERRCLASS_NONE)
		{
			pass_ask_early(run, answer);
			INSTR_TIME_SET_CURRENT(t);
			*equal = prints_equal(run, answer);
			/* Somebody has written to its records, or it has other neighbours, since it was asked for. */
			if (!*equal && answer->not_modified)
			{
				pass_forget_early(run);
				source_set_condition(run->source, NULL);
				source_ask(run->source, run->setup.cursor);
				attempt--;
				continue;
			}
			if (!*equal)
			{
				if (!prints_flush(run))
					return false;
				prints_know(run);
				(void) source_read(run->source, run->parser, answer, page);
				prints_was_read(run);
			}
			run->timings.read_us += run_microseconds(&t);
		}
		if (answer->error_class == ERRCLASS_NONE)
			return true;

		/*
		 * A cursor from an earlier run, or one of which the upstream itself
		 * says that it is of no use any more; but once is enough.
		 */
		refused = !run->restarted &&
			(answer->start_again ||
			 (run->setup.cursor != NULL &&
			  ((answer->cursor_refused && run->setup.resumed && run->first_answer) ||
			   answer->cursor_expired)));
		if (refused)
		{
			pass_restart_pass(run, answer->start_again);
			*again = true;
			return false;
		}
		if (!prints_flush(run))
			return false;
		delay = answer->retryable ? pass_retry_delay(run, answer, attempt) : -1;
		page_know(run->parser, NULL);
		if (delay < 0 && source_give_up(run->source, answer) &&
			source_read(run->source, run->parser, answer, page))
			return true;
		if (delay < 0)
		{
			run->retry_after_ms = answer->retry_after_ms;
			if (answer->retry_after_ms > 0 && answer->retryable && attempt < pass_max_attempts(run))
				run_fail(run, answer->error_class, "%s (asks to wait " INT64_FORMAT " s)",
						 answer->message, answer->retry_after_ms / 1000);
			else if (attempt > 1)
				run_fail(run, answer->error_class, "%s (after %d attempts)", answer->message,
						 attempt);
			else
				run_fail(run, answer->error_class, "%s", answer->message);
			return false;
		}
		ereport(DEBUG1,
				(errmsg_internal("attempt %d failed, next in %ld ms: %s", attempt, (long) delay,
								 answer->message)));
		wait_ms((long) delay, WAIT_RETRY);
		pass_ask(run, run->setup.cursor);
	}
}

typedef struct PageWork
{
	Run				   *run;
	const SourceAnswer *answer;
	const UpstreamPage *page;
	PageEntry		   *entry;
	bool				was_complete;
	bool				was_unread;
	bool				applied;
} PageWork;

static void
pass_page_work(void *arg)
{
	PageWork *work = arg;

	work->run->complete = work->was_complete;
	work->run->unread = work->was_unread;
	work->applied = pass_apply_once(work->run, work->answer, work->page, work->entry);
}

static bool
pass_apply(Run *run, const SourceAnswer *answer, const UpstreamPage *page, PageEntry *entry)
{
	PageWork work = {run, answer, page, entry, run->complete, run->unread, false};

	db_retry(pass_page_work, &work);
	return work.applied;
}

typedef struct RepeatedWork
{
	Run	 *run;
	int64 repeated;
} RepeatedWork;

static void
pass_repeated_work(void *arg)
{
	RepeatedWork *work = arg;

	db_begin("counting repeated records");
	work->repeated = pages_repeated(work->run->setup.pass_id);
	db_commit();
}

/* Of pages that were not read, the ids are not known: their ledger tells what came twice. */
static void
pass_count_repeated(Run *run)
{
	RepeatedWork work = {run, 0};

	if (!prints_were_taken(run))
		return;
	db_retry(pass_repeated_work, &work);
	run->repeated = Max(run->repeated, work.repeated);
}

/* pass_check_completeness: does what was received allow to say that the rest is gone? */
static void
pass_check_completeness(Run *run)
{
	int64  total = run->setup.total_estimate;
	double tolerance = run->source->total_tolerance;

	if (total >= 0 && tolerance == 0 && run->setup.received - run->repeated > total)
		pass_count_repeated(run);
	if (run->setup.unidentified > 0)
		run_incomplete(run,
					   INT64_FORMAT
					   " records had no usable externalId: they could be any that were not seen",
					   run->setup.unidentified);
	if (total >= 0 && run->setup.received < total - (int64) ((double) total * tolerance))
	{
		run->unread |= pass_everything(run);
		run_incomplete(run, "upstream reported " INT64_FORMAT " records but sent " INT64_FORMAT,
					   total, run->setup.received);
	}
	/*
	 * Then that number says nothing, either, of whether the list was at its end.  Some may
	 * have come twice.
	 */
	else if (total >= 0 && tolerance == 0 && run->setup.received - run->repeated > total)
		run_incomplete(run,
					   "upstream reported " INT64_FORMAT " records but sent more: " INT64_FORMAT,
					   total, run->setup.received - run->repeated);
}

/* Goes on to a cursor. */
static void
pass_go_to(Run *run, const char *cursor)
{
	if (run->setup.cursor)
		pfree(run->setup.cursor);
	run->setup.cursor = MemoryContextStrdup(run->context, cursor);
}

/* A page that is as it was: the next one is asked for.  False when the run has failed. */
static bool
pass_take(Run *run, const SourceAnswer *answer, bool *last)
{
	const char *next_cursor = prints_next_cursor(run);
	char	   *next = next_cursor ? pstrdup(next_cursor) : NULL;

	prints_take(run, answer);
	run->known_pages = run->empty_pages = 0;
	*last = next == NULL;
	if (!*last)
	{
		(void) pass_new_cursor(run, next);
		pass_ask(run, next);
		pass_go_to(run, next);
	}
	if (*last ? !prints_flush(run) : !prints_flush_old(run))
		return false;
	run->page += !*last;
	return true;
}

/*
 * pass_walk walks over the upstream; afterwards run->status is set on failure.
 *
 * Longer than a screen: the walk is one loop, whose exits are to be seen together.
 */
void
pass_walk(Run *run)
{
	int max_pages = pass_max_pages(run);

	/* A run that died after its last page has nothing left to fetch. */
	if (run->setup.last_page > 0 && run->setup.cursor == NULL)
	{
		if (run->setup.filter.max_records > 0 && run->setup.passed >= run->setup.filter.max_records)
			pass_capped(run);
		pass_check_completeness(run);
		return;
	}
	source_foresee_conditions(run->source, prints_foresee, run);
	pass_ask(run, run->setup.cursor);
	for (;;)
	{
		SourceAnswer answer;
		UpstreamPage page;
		PageEntry	 entry = {0};
		bool		 again;
		bool		 equal;
		bool		 loop = false;
		bool		 last;

		MemoryContextReset(run->page_context);
		MemoryContextSwitchTo(run->page_context);
		memory_page(&run->memory, run->page);
		if (!pass_fetch(run, &answer, &page, &again, &equal))
		{
			if (again)
				continue;
			return;
		}
		if (run->first_answer && answer.date > 0)
			run->skew_s = timestamptz_to_time_t(answer.started_at) - answer.date;
		run->first_answer = false;
		if (equal)
		{
			if (!pass_take(run, &answer, &last))
				return;
			if (last)
				break;
			continue;
		}

		if (page.may_end && run->page >= max_pages)
			page.next_cursor = NULL;
		if (page.next_cursor && !pass_new_cursor(run, page.next_cursor))
			loop = true;
		if (pass_stands_still(run, &page) && page.next_cursor && page.loop == NULL)
			page.loop = psprintf("upstream sent %d pages in a row without a new record",
								 run->known_pages);
		loop |= page.loop != NULL;
		pass_refetch(run, &page);
		run->empty_pages = page.received == 0 && !page.list_start ? run->empty_pages + 1 : 0;
		last = page.next_cursor == NULL || loop || run->page >= max_pages ||
			run->empty_pages > PASS_MAX_EMPTY_PAGES;
		if (!last && run->setup.filter.max_records == 0)
			pass_ask(run, page.next_cursor);

		entry.page = run->page;
		entry.cursor = run->setup.cursor;
		entry.next_cursor = page.next_cursor;
		entry.fetched_at = answer.started_at;
		entry.records = page.received;
		entry.bytes = (int64) answer.len;
		entry.fetch_ms = answer.ms;
		entry.total_estimate = page.total_estimate;
		entry.incomplete = page.incomplete;
		entry.unread = page.unread || (page.incomplete && pass_everything(run));
		entry.link = page.keep_link;
		if (!pass_apply(run, &answer, &page, &entry))
			return;

		run->some_read = true;
		run->setup.received += page.received;
		run->repeated += page.duplicates;
		run->setup.unidentified += entry.counts.unidentified;
		run->unread |= entry.unread;
		if (page.incomplete)
			run_incomplete(run, "%s", page.incomplete);
		/* A total that shrinks on the way does not excuse what did not come. */
		run->setup.total_estimate = Max(run->setup.total_estimate, page.total_estimate);
		if (page.loop)
		{
			run_fail(run, ERRCLASS_PAGINATION_LOOP, "%s", page.loop);
			return;
		}
		if (loop)
		{
			run_fail(run, ERRCLASS_PAGINATION_LOOP,
					 "upstream repeated the cursor \"%s\" on page %d",
					 source_told(run->source, page.next_cursor,
								 /* what is behind the "?" of an address may be secret */
								 strcspn(page.next_cursor, "?"), 100),
					 run->page);
			return;
		}
		if (page.next_cursor != NULL && run->page >= max_pages)
		{
			run_fail(run, ERRCLASS_PAGINATION_LOOP, "upstream did not finish after %d pages",
					 run->page);
			return;
		}
		if (run->empty_pages > PASS_MAX_EMPTY_PAGES)
		{
			run_fail(run, ERRCLASS_PAGINATION_LOOP, "upstream sent %d empty pages in a row",
					 run->empty_pages);
			return;
		}
		if (page.next_cursor == NULL ||
			(run->setup.filter.max_records > 0 &&
			 run->setup.passed >= run->setup.filter.max_records))
			break;
		pass_go_to(run, page.next_cursor);
		if (run->setup.filter.max_records > 0)
			pass_ask(run, run->setup.cursor);
		run->page++;
	}

	pass_check_completeness(run);
}
