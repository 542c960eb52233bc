/*
 * run.c
 *	  One run: the pass over the upstream and its end.
 *
 *	  start --> fetch <-----------------------------+
 *	              | answer          (retry, wait)   |
 *	              v                                 |
 *	            read --> ask for the next --> apply +--> settle --> purge --> end
 *	              |                            |            |
 *	              +--------- failure ----------+            +--> held
 *
 * fetch and the waits before a retry hold no transaction; apply, settle and
 * each batch of purge are one transaction each, so that at any moment the
 * tables tell how far the run is: a page's records, its faults and its row in
 * the ledger (with the cursor of the next page) become visible together.
 * A run that is found "running" with nobody behind it is therefore simply
 * started again, and goes on behind its last page.
 *
 * The next page is asked for before the current one is applied; it is
 * judged (fetched_at) by the time of the asking, so a write that comes between
 * wins over it.
 *
 * Who calls holds the lock of the run.
 */
#include "postgres.h"

#include "compat.h"

#include <math.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "apply.h"
#include "db.h"
#include "guc.h"
#include "http.h"
#include "page.h"
#include "run.h"
#include "shmem.h"
#include "source.h"
#include "store.h"
#include "wait.h"

#define RUN_MAX_PAGES			100000
#define RUN_MAX_EMPTY_PAGES		100
#define RUN_APPLY_ATTEMPTS		10
#define RUN_LOCK_ATTEMPTS		100
#define RUN_PURGE_BATCH			5000

typedef struct Run
{
	int64		id;
	MemoryContext context;		/* of the whole run */
	MemoryContext page_context; /* reset for each page */
	RunSetup	setup;
	Source	   *source;
	PageParser *parser;
	ApplyScope	scope;
	RunTimings	timings;
	int			page;			/* being worked on, from 1 */
	bool		first_answer;	/* no page of this run has come yet */
	int			empty_pages;	/* in a row */
	uint64	   *cursors;		/* hashes of those that the pass has been through */
	int			ncursors;
	int			cursors_room;
	int64		skew_s;			/* how far the upstream's clock is behind ours */
	/* how it ended */
	const char *status;			/* NULL while it goes on */
	const char *error_class;
	char	   *error;
	bool		complete;
	char	   *reason;			/* why not complete */
} Run;

static int64
run_microseconds(instr_time *since)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *since);
	return INSTR_TIME_GET_MICROSEC(now);
}

static void pg_attribute_printf(3, 4)
run_fail(Run *run, const char *error_class, const char *format,...)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	char		message[1024];
	va_list		args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	run->status = strcmp(error_class, "cancelled") == 0 ? "cancelled" : "error";
	run->error_class = error_class;
	run->error = pstrdup(message);
	run->reason = pstrdup(message);
	run->complete = false;
	MemoryContextSwitchTo(old);
}

static void pg_attribute_printf(2, 3)
run_incomplete(Run *run, const char *format,...)
{
	char		message[512];
	va_list		args;

	if (!run->complete)
		return;					/* the first reason stays */
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	run->complete = false;
	run->reason = MemoryContextStrdup(run->context, message);
}

static void
run_error_context(void *arg)
{
	Run		   *run = arg;

	if (run->setup.connector_name == NULL)
		errcontext("flohsync run " INT64_FORMAT, run->id);
	else
		errcontext("flohsync run " INT64_FORMAT " of connector \"%s\", resource type \"%s\", page %d",
				   run->id, run->setup.connector_name, run->setup.resource_type, run->page);
}

/* Notes a cursor; false when the pass has been there before. */
static bool
run_new_cursor(Run *run, const char *cursor)
{
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) cursor, strlen(cursor), 0));

	for (int i = 0; i < run->ncursors; i++)
		if (run->cursors[i] == hash)
			return false;
	if (run->ncursors >= run->cursors_room)
	{
		run->cursors_room = run->cursors_room * 2 + 64;
		run->cursors = repalloc(run->cursors, sizeof(uint64) * run->cursors_room);
	}
	run->cursors[run->ncursors++] = hash;
	return true;
}

/* run_start: false when there is nothing to do. */
static bool
run_start(Run *run)
{
	StartOutcome outcome;

	db_begin("starting a run");
	outcome = store_start_run(run->id, &run->setup, run->context);
	if (outcome == START_RUN)
	{
		run->ncursors = store_load_seen_cursors(run->setup.pass_id, &run->cursors, run->context);
		run->cursors_room = run->ncursors + 64;
	}
	db_commit();
	if (outcome != START_RUN)
	{
		if (outcome == START_REFUSED)
			shmem_run_finished();
		return false;
	}

	run->setup.spec.page_size = flohsync_page_size;
	filter_prepare(&run->setup.filter);
	run->scope.connector = DirectFunctionCall1(uuid_in, CStringGetDatum(run->setup.connector_id));
	run->scope.resource_type = CStringGetTextDatum(run->setup.resource_type);
	run->parser = page_parser_create((const char *const *) run->setup.hash_ignore, run->setup.nhash_ignore);
	run->source = source_open(&run->setup.spec);
	run->page = run->setup.last_page + 1;
	run->first_answer = true;
	run->complete = true;
	return true;
}

/* How long to wait before the next attempt at a page; -1: give up. */
static int64
run_retry_delay(const SourceAnswer *answer, int attempt)
{
	double		delay;

	if (attempt >= flohsync_http_max_attempts)
		return -1;
	if (answer->retry_after_ms >= 0)
		return answer->retry_after_ms > (int64) flohsync_http_max_retry_wait * 1000 ? -1 : answer->retry_after_ms;
	delay = Min(flohsync_http_retry_delay * pow(2, attempt - 1), 60000.0);
	return (int64) (delay * (0.8 + 0.4 * pg_prng_double(&pg_global_prng_state)));
}

/* The upstream does not take the cursor of an earlier run: begin the pass anew. */
static void
run_restart_pass(Run *run)
{
	ereport(LOG,
			(errmsg("upstream refuses the cursor of an earlier run; the pass begins again")));
	db_begin("restarting a pass");
	run->setup.pass_started_at = store_restart_pass(run->id);
	db_commit();
	run->setup.pass_id = run->id;
	run->setup.resumed = false;
	run->setup.cursor = NULL;
	run->setup.last_page = 0;
	run->setup.passed = run->setup.received = run->setup.unidentified = 0;
	run->page = 1;
	run->ncursors = 0;
	source_ask(run->source, NULL);
}

/*
 * run_fetch gets the page that was asked for, with as many attempts as it
 * takes.  False when the run has failed, or begins again (then *again).
 */
static bool
run_fetch(Run *run, SourceAnswer *answer, UpstreamPage *page, bool *again)
{
	*again = false;
	for (int attempt = 1;; attempt++)
	{
		instr_time	t;
		const char *problem = NULL;
		int64		delay;
		bool		refused;

		INSTR_TIME_SET_CURRENT(t);
		source_answer(run->source, answer);
		run->timings.fetch_us += run_microseconds(&t);

		if (answer->error_class == NULL)
		{
			INSTR_TIME_SET_CURRENT(t);
			if (!page_parse(run->parser, answer->body, answer->len, page, &problem))
			{
				/* A cut or garbled answer; maybe the next one is whole. */
				answer->error_class = "protocol";
				answer->retryable = true;
				snprintf(answer->message, sizeof(answer->message), "upstream's answer cannot be read: %s", problem);
			}
			else if (!page->success)
			{
				answer->error_class = "upstream";
				answer->cursor_refused = true;
				snprintf(answer->message, sizeof(answer->message), "upstream reported an error: %s",
						 page->upstream_error ? page->upstream_error : "(no message)");
			}
			run->timings.read_us += run_microseconds(&t);
		}
		if (answer->error_class == NULL)
			return true;

		refused = answer->cursor_refused && run->setup.resumed && run->first_answer && run->setup.cursor != NULL;
		if (refused)
		{
			run_restart_pass(run);
			*again = true;
			return false;
		}
		delay = answer->retryable ? run_retry_delay(answer, attempt) : -1;
		if (delay < 0)
		{
			if (answer->retry_after_ms > 0 && answer->retryable && attempt < flohsync_http_max_attempts)
				run_fail(run, answer->error_class, "%s (asks to wait " INT64_FORMAT " s)", answer->message, answer->retry_after_ms / 1000);
			else if (attempt > 1)
				run_fail(run, answer->error_class, "%s (after %d attempts)", answer->message, attempt);
			else
				run_fail(run, answer->error_class, "%s", answer->message);
			return false;
		}
		ereport(DEBUG1, (errmsg_internal("attempt %d failed, next in %ld ms: %s", attempt, (long) delay, answer->message)));
		wait_ms((long) delay, WAIT_RETRY);
		source_ask(run->source, run->setup.cursor);
	}
}

static int
run_compare_position(const void *a, const void *b)
{
	uint32		x = (*(const Record *const *) a)->position;
	uint32		y = (*(const Record *const *) b)->position;

	return (x > y) - (x < y);
}

/* Keeps the first max records in the order of the answer. */
static int
run_cut(Record *records, int n, int64 max)
{
	const Record **order;
	uint32		limit;
	int			kept = 0;

	if (n <= max)
		return n;
	if (max <= 0)
		return 0;
	order = palloc(sizeof(Record *) * n);
	for (int i = 0; i < n; i++)
		order[i] = &records[i];
	qsort(order, n, sizeof(Record *), run_compare_position);
	limit = order[max - 1]->position;
	for (int i = 0; i < n; i++)
		if (records[i].position <= limit)
			records[kept++] = records[i];
	return kept;
}

/*
 * run_apply_once is the transaction of a page.  False when the run must not go
 * on; it has then been failed, and nothing was written.
 */
static bool
run_apply_once(Run *run, const SourceAnswer *answer, const UpstreamPage *page, PageEntry *entry)
{
	Record	   *records = palloc(sizeof(Record) * Max(page->nrecords, 1));
	int			n = page->nrecords;
	int			in_scope;
	instr_time	t0,
				t;

	INSTR_TIME_SET_CURRENT(t0);
	db_begin("applying a page");
	switch (store_guard_run(&run->setup))
	{
		case RUN_GO_ON:
			break;
		case RUN_CANCELLED:
			run_fail(run, "cancelled", "run was cancelled");
			break;
		case RUN_CONFIG_GONE:
			run_fail(run, "configuration", "the configuration was deleted during the run");
			break;
		case RUN_FILTER_CHANGED:
			run_incomplete(run, "the filter rules were changed during the run");
			break;
	}
	if (run->status != NULL)
	{
		db_commit();
		return false;
	}

	run->scope.observed_at = answer->started_at;
	run->scope.lookup_us = run->scope.write_us = 0;
	memset(&entry->counts, 0, sizeof(entry->counts));
	memcpy(records, page->records, sizeof(Record) * n);
	in_scope = apply_filter(&run->setup.filter, &run->scope, run->parser, records, n);
	entry->counts.filtered = n - in_scope;
	n = in_scope;
	if (run->setup.filter.max_records > 0)
	{
		n = run_cut(records, n, run->setup.filter.max_records - run->setup.passed);
		if (n < in_scope || (run->setup.passed + n >= run->setup.filter.max_records && page->next_cursor != NULL))
			run_incomplete(run, "maxRecords (" INT64_FORMAT ") was reached", run->setup.filter.max_records);
		entry->counts.filtered += in_scope - n;
	}

	entry->seen = palloc(sizeof(int64) * (n + page->nfaults + 1));
	entry->nseen = 0;
	apply_records(&run->scope, records, n, &entry->counts, entry->seen, &entry->nseen, NULL);
	if (page->nfaults > 0)
	{
		apply_known_faults(&run->scope, page->faults, page->nfaults, entry->seen, &entry->nseen);
		store_add_faults(run->id, entry->page, page->faults, page->nfaults);
		for (int i = 0; i < page->nfaults; i++)
			if (page->faults[i].external_id.data == NULL)
				entry->counts.unidentified++;
	}
	entry->counts.errored = page->nfaults;
	entry->counts.duplicates = page->duplicates;
	entry->counts.truncated = page->truncated;
	entry->apply_ms = run_microseconds(&t0) / 1000.0;

	INSTR_TIME_SET_CURRENT(t);
	store_add_page(run->id, entry);
	run->timings.ledger_us += run_microseconds(&t);
	INSTR_TIME_SET_CURRENT(t);
	db_commit_unsynced();
	run->timings.commit_us += run_microseconds(&t);
	run->timings.lookup_us += run->scope.lookup_us;
	run->timings.write_us += run->scope.write_us;
	run->setup.passed += n;
	pfree(records);
	return true;
}

/* Is an error of a page's transaction worth another try? */
static bool
run_apply_retryable(const ErrorData *edata, int attempt)
{
	switch (edata->sqlerrcode)
	{
		case ERRCODE_UNIQUE_VIOLATION:	/* somebody inserted one of the records meanwhile */
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
			return attempt < RUN_APPLY_ATTEMPTS;
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return attempt < RUN_LOCK_ATTEMPTS;
	}
	return false;
}

/* One attempt at a page; false, and *again, when it is worth another. */
static bool
run_apply_attempt(Run *run, const SourceAnswer *answer, const UpstreamPage *page, PageEntry *entry,
				  int attempt, bool *again)
{
	volatile bool applied = false;
	bool		was_complete = run->complete;

	*again = false;
	PG_TRY();
	{
		applied = run_apply_once(run, answer, page, entry);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(run->page_context);
		edata = CopyErrorData();
		if (!run_apply_retryable(edata, attempt))
			PG_RE_THROW();
		FlushErrorState();
		db_abort();
		run->complete = was_complete;
		*again = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(run->page_context);
	return applied;
}

static bool
run_apply(Run *run, const SourceAnswer *answer, const UpstreamPage *page, PageEntry *entry)
{
	for (int attempt = 1;; attempt++)
	{
		bool		again;
		bool		applied = run_apply_attempt(run, answer, page, entry, attempt, &again);

		if (!again)
			return applied;
		wait_ms(Min(1000, 20L << Min(attempt, 6)), WAIT_RETRY);
	}
}

/* run_pass walks over the upstream; afterwards run->status is set on failure. */
static void
run_pass(Run *run)
{
	int64		total_estimate = -1;

	/* A run that died after its last page has nothing left to fetch. */
	if (run->setup.last_page > 0 && run->setup.cursor == NULL)
		return;
	source_ask(run->source, run->setup.cursor);
	for (;;)
	{
		SourceAnswer answer;
		UpstreamPage page;
		PageEntry	entry = {0};
		bool		again;
		bool		loop = false;
		bool		last;

		MemoryContextReset(run->page_context);
		MemoryContextSwitchTo(run->page_context);
		if (!run_fetch(run, &answer, &page, &again))
		{
			if (again)
				continue;
			return;
		}
		if (run->first_answer && answer.date > 0)
			run->skew_s = timestamptz_to_time_t(answer.started_at) - answer.date;
		run->first_answer = false;

		if (page.next_cursor && !run_new_cursor(run, page.next_cursor))
			loop = true;
		run->empty_pages = page.received == 0 ? run->empty_pages + 1 : 0;
		last = page.next_cursor == NULL || loop || run->page >= RUN_MAX_PAGES ||
			run->empty_pages > RUN_MAX_EMPTY_PAGES;
		if (!last && run->setup.filter.max_records == 0)
			source_ask(run->source, page.next_cursor);

		entry.page = run->page;
		entry.cursor = run->setup.cursor;
		entry.next_cursor = page.next_cursor;
		entry.fetched_at = answer.started_at;
		entry.records = page.received;
		entry.bytes = (int64) answer.len;
		entry.fetch_ms = answer.ms;
		entry.total_estimate = page.total_estimate;
		entry.deleted = page.deleted;
		entry.ndeleted = page.ndeleted;
		if (!run_apply(run, &answer, &page, &entry))
			return;

		run->setup.received += page.received;
		run->setup.unidentified += entry.counts.unidentified;
		if (page.total_estimate >= 0)
			total_estimate = page.total_estimate;
		if (loop)
		{
			run_fail(run, "pagination_loop", "upstream repeated the cursor \"%.100s\" on page %d", page.next_cursor, run->page);
			return;
		}
		if (page.next_cursor != NULL && run->page >= RUN_MAX_PAGES)
		{
			run_fail(run, "pagination_loop", "upstream does not come to an end: %d pages", run->page);
			return;
		}
		if (run->empty_pages > RUN_MAX_EMPTY_PAGES)
		{
			run_fail(run, "pagination_loop", "upstream sent %d empty pages in a row", run->empty_pages);
			return;
		}
		if (page.next_cursor == NULL || (run->setup.filter.max_records > 0 && run->setup.passed >= run->setup.filter.max_records))
			break;
		if (run->setup.cursor)
			pfree(run->setup.cursor);
		run->setup.cursor = MemoryContextStrdup(run->context, page.next_cursor);
		if (run->setup.filter.max_records > 0)
			source_ask(run->source, run->setup.cursor);
		run->page++;
	}

	if (run->setup.unidentified > 0)
		run_incomplete(run, INT64_FORMAT " records had no usable externalId: they could be any that were not seen", run->setup.unidentified);
	if (total_estimate >= 0 && run->setup.received < total_estimate * 9 / 10)
		run_incomplete(run, "upstream said there are " INT64_FORMAT " records, and sent " INT64_FORMAT,
					   total_estimate, run->setup.received);
}

/* run_settle ends a pass that came through: what it did not see goes stale, and old stale records go. */
static void
run_settle(Run *run)
{
	SettleResult result;
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	MemoryContextSwitchTo(run->context);
	db_begin("settling a pass");
	if (store_guard_run(&run->setup) == RUN_CONFIG_GONE)
	{
		run_fail(run, "configuration", "the configuration was deleted during the run");
		db_commit();
		return;
	}
	if (store_guard_run(&run->setup) == RUN_FILTER_CHANGED)
		run_incomplete(run, "the filter rules were changed during the run");
	store_settle_pass(run->id, run->complete, &result, run->context);
	db_commit();
	run->status = "success";
	if (result.held)
	{
		run->status = "held";
		run->error_class = "safeguard";
		run->error = result.message;
	}
	else if (run->complete)
	{
		int64		n;

		do
		{
			db_begin("purging stale records");
			n = store_purge_run(run->id, RUN_PURGE_BATCH);
			db_commit();
		} while (n >= RUN_PURGE_BATCH);
	}
	run->timings.settle_us += run_microseconds(&t);
}

static void
run_finish(Run *run)
{
	TimestampTz watermark = 0;
	char	   *summary;

	/* Changes made upstream while its clock is behind ours must not fall before the watermark. */
	if (run->setup.pass_started_at != 0)
		watermark = run->setup.pass_started_at - (run->skew_s > 2 ? run->skew_s * USECS_PER_SEC : 0);
	MemoryContextSwitchTo(run->context);
	db_begin("finishing a run");
	store_set_timings(run->id, &run->timings);
	store_finish_run(run->id, run->status, run->complete, run->reason, run->error, run->error_class, watermark);
	summary = store_run_summary(run->id, run->context);
	db_commit();
	shmem_run_finished();
	if (flohsync_log_runs && run->setup.connector_name)
	{
		if (run->error)
			ereport(LOG,
					(errmsg("sync of %s/%s: run " INT64_FORMAT " %s: %s", run->setup.connector_name,
							run->setup.resource_type, run->id, run->status, run->error),
					 summary ? errdetail_internal("%s", summary) : 0, errhidecontext(true)));
		else
			ereport(LOG,
					(errmsg("sync of %s/%s: run " INT64_FORMAT " %s", run->setup.connector_name,
							run->setup.resource_type, run->id, run->status),
					 summary ? errdetail_internal("%s", summary) : 0, errhidecontext(true)));
	}
}

/* Turns an error that was raised into the end of the run. */
static void
run_caught(Run *run)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(run->context);
	edata = CopyErrorData();
	FlushErrorState();
	db_abort();
	run->status = NULL;
	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
		run_fail(run, "cancelled", "run was cancelled");
	else
	{
		run_fail(run, ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INTERNAL_ERROR ? "internal" : "database",
				 "%s%s%s", edata->message ? edata->message : "unknown error",
				 edata->detail ? ": " : "", edata->detail ? edata->detail : "");
		ereport(LOG,
				(errmsg("flohsync run " INT64_FORMAT " failed: %s", run->id, edata->message),
				 edata->context ? errdetail_internal("%s", edata->context) : 0, errhidecontext(true)));
	}
}

/*
 * run_execute does a run.  Raises only when not even the end of the run could
 * be written; the run is then found and gone on with later.
 */
void
run_execute(int64 id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "flohsync run", ALLOCSET_DEFAULT_SIZES);
	Run		   *run = MemoryContextAllocZero(context, sizeof(Run));
	ErrorContextCallback callback;
	volatile bool started = false;

	run->id = id;
	run->context = context;
	run->page_context = AllocSetContextCreate(context, "flohsync page", ALLOCSET_DEFAULT_SIZES);
	callback.callback = run_error_context;
	callback.arg = run;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		started = run_start(run);
		if (started)
		{
			run_pass(run);
			if (run->status == NULL)
				run_settle(run);
		}
	}
	PG_CATCH();
	{
		run_caught(run);
		started = true;
	}
	PG_END_TRY();
	error_context_stack = callback.previous;

	source_close(run->source);
	run->source = NULL;
	if (started)
		run_finish(run);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}
