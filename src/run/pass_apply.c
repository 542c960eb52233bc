/*
 * pass_apply.c
 *	  One page of a pass is written: within the limit of maxRecords, in one transaction
 *	  with its row in the ledger.
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
#include "page/known.h"
#include "record/faults.h"
#include "record/merge.h"
#include "run/state.h"

static int
pass_compare_position(const void *a, const void *b)
{
	uint32 x = (*(const Record *const *) a)->position;
	uint32 y = (*(const Record *const *) b)->position;

	return (x > y) - (x < y);
}

void
pass_capped(Run *run)
{
	run->unread = true;
	run_incomplete(run, "maxRecords (" INT64_FORMAT ") was reached", run->setup.filter.max_records);
}

/*
 * pass_everything: did the pass ask for everything?  Then what the upstream says
 * of its total is about this list, and a list that has moved may have lost more
 * than what changed lately.  Where only changes were asked for, the next such
 * pass, or a full one, makes up for it.
 */
bool
pass_everything(const Run *run)
{
	return run->setup.spec.modified_since == NULL && run->setup.spec.kept_link == NULL;
}

/* Keeps the first max records in the order of the answer. */
static int
pass_cut(Record *records, int n, int64 max)
{
	const Record **order;
	uint32		   limit;
	int			   kept = 0;

	if (n <= max)
		return n;
	if (max <= 0)
		return 0;
	order = palloc(sizeof(Record *) * n);
	for (int i = 0; i < n; i++)
		order[i] = &records[i];
	qsort(order, n, sizeof(Record *), pass_compare_position);
	limit = order[max - 1]->position;
	for (int i = 0; i < n; i++)
		if (records[i].position <= limit)
			records[kept++] = records[i];
	return kept;
}

/* Adds to the ids that a page has changed so far; these outlive a part of it. */
static void
pass_add_changes(Run *run, PageEntry *entry, const ApplyChanges *changes)
{
	int		   n = changes->n[0] + changes->n[1] + changes->n[2];
	pg_uuid_t *ids;

	if (n == 0)
		return;
	ids = MemoryContextAlloc(run->page_context, sizeof(pg_uuid_t) * (entry->nchanged + n));
	if (entry->nchanged > 0)
		memcpy(ids, entry->changed, sizeof(pg_uuid_t) * entry->nchanged);
	for (int k = 0; k < 3; entry->nchanged += changes->n[k++])
		if (changes->n[k] > 0)
			memcpy(ids + entry->nchanged, changes->ids[k], sizeof(pg_uuid_t) * changes->n[k]);
	entry->changed = ids;
}

static void
pass_make_merger(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	if (run->merger == NULL)
		run->merger = page_parser_create((const char *const *) run->setup.hash_ignore,
										 run->setup.nhash_ignore, &run->memory);
	MemoryContextSwitchTo(old);
}

/*
 * Applies the records of a page, or of a part of one; entry has what the parts
 * before brought, and room for what is seen.  With only_changes, what the filter
 * leaves out becomes stale.  Returns how many are in scope.
 */
static int
pass_apply_records(Run *run, const UpstreamPage *page, bool only_changes, bool goes_on,
				   int64 passed, PageEntry *entry)
{
	int			 n = page->nrecords;
	Record		*records = palloc_extended(sizeof(Record) * Max(n, 1), MCXT_ALLOC_HUGE);
	int			 in_scope;
	ApplyChanges changes = {0};
	int64 *nums = page->came ? palloc_extended(sizeof(int64) * Max(n, 1), MCXT_ALLOC_HUGE) : NULL;
	ApplyOutcome *outcomes = page->came ?
		palloc_extended(sizeof(ApplyOutcome) * Max(n, 1), MCXT_ALLOC_HUGE) :
		NULL;

	run->scope.nums = nums;
	run->scope.changes = run->setup.note_changes ? &changes : NULL;
	run->scope.heaviest = page->heaviest;
	if (n > 0)
		memcpy(records, page->records, sizeof(Record) * n);
	in_scope = apply_filter(&run->setup.filter, &run->scope, run->scope.parser, records, n);
	entry->counts.filtered += n - in_scope;
	if (only_changes)
		pass_out_of_scope(run, page, records, in_scope, entry);
	n = in_scope;
	if (run->setup.filter.max_records > 0)
	{
		n = pass_cut(records, n, run->setup.filter.max_records - passed);
		if (n < in_scope || (passed + n >= run->setup.filter.max_records && goes_on))
			pass_capped(run);
		entry->counts.filtered += in_scope - n;
	}
	apply_records(&run->scope, records, n, &entry->counts, entry->seen, &entry->nseen, outcomes);
	for (int i = 0; nums && i < n; i++)
	{
		KnownRecord *came = &page->came[records[i].position];

		if (came->num != KNOWN_UNLISTED)
			came->num = nums[i];
		if (outcomes[i] != APPLY_UNCHANGED && nums[i] != 0)
			run->written[run->nwritten++] = nums[i];
	}
	run->scope.nums = NULL;
	pass_add_changes(run, entry, &changes);
	run->scope.changes = NULL;
	pfree(records);
	if (nums)
	{
		pfree(nums);
		pfree(outcomes);
	}
	return n;
}

static void
pass_apply_faults(Run *run, const UpstreamPage *page, PageEntry *entry)
{
	Size bytes = 0;

	if (page->nfaults == 0)
		return;
	/* Of each, what is stored of it is copied, and put into arrays. */
	for (int i = 0; i < page->nfaults; i++)
		bytes += Min(page->faults[i].payload.len, RECORD_FAULT_BYTES) +
			Min(page->faults[i].external_id.len, RECORD_FAULT_BYTES) + 200;
	memory_expect(&run->memory, bytes * 2);
	apply_known_faults(&run->scope, page->faults, page->nfaults, entry->seen, &entry->nseen);
	for (int i = 0; i < page->nfaults; i++)
	{
		Slice *payload = &page->faults[i].payload;

		payload->data = source_redacted(run->source, payload->data,
										Min(payload->len, RECORD_FAULT_BYTES));
		payload->len = strlen(payload->data);
	}
	record_faults_of_page(run->id, entry->page, page->faults, page->nfaults);
	entry->counts.errored += page->nfaults;
	for (int i = 0; i < page->nfaults; i++)
		if (page->faults[i].external_id.data == NULL)
			entry->counts.unidentified++;
}

/*
 * Applies records that hold only what has changed, and those that were asked
 * for because there is nothing to put them together with.  Where that could not
 * be done, the link is forgotten (an empty one says so), so that the next run
 * begins where records are whole.
 */
static int
pass_apply_partial(Run *run, const UpstreamPage *page, PageEntry *entry)
{
	UpstreamPage whole = {.records = page->full,
						  .nrecords = page->nfull,
						  .heaviest = page->heaviest};
	UpstreamPage merged;
	Merge		*merge;
	int			 unknown = 0;
	int			 n = 0;

	pass_make_merger(run);
	merge = merge_begin(&run->scope, run->parser, run->merger, page,
						pass_has_filter(&run->setup.filter));
	run->scope.parser = run->merger;
	n += pass_apply_records(run, &whole, true, page->next_cursor != NULL, run->setup.passed, entry);
	while (merge_next(merge, !page->new_records_full, &merged))
	{
		/* What is needed to write a part is gone before the next one. */
		MemoryContext old = MemoryContextSwitchTo(merge_context(merge));

		n += pass_apply_records(run, &merged, true, page->next_cursor != NULL,
								run->setup.passed + n, entry);
		pass_apply_faults(run, &merged, entry);
		entry->counts.truncated += merged.truncated;
		unknown += merged.unknown;
		MemoryContextSwitchTo(old);
	}
	if (unknown > 0)
	{
		entry->link = "";
		entry->incomplete = psprintf(
			"received only the changes of %d records that are not stored: the next run starts a new pass",
			unknown);
		run_incomplete(run, "%s", entry->incomplete);
	}
	entry->counts.duplicates += merge_duplicates(merge);
	return n;
}

/* Records that came as before are stored as they came.  Returns how many are in scope. */
static int
pass_apply_known(Run *run, const UpstreamPage *page, PageEntry *entry)
{
	int n = page->nknown - page->nknown_out;

	entry->counts.unchanged = n;
	entry->counts.filtered += page->nknown_out;
	for (int i = 0; n > 0 && i < page->received; i++)
		if (page->came[i].known && page->came[i].num != KNOWN_OUT_OF_SCOPE)
			entry->seen[entry->nseen++] = page->came[i].num;
	run->nwritten = 0;
	run->written = page->came ?
		MemoryContextAllocHuge(run->page_context, sizeof(int64) * (page->nrecords + 1)) :
		NULL;
	return n;
}

/*
 * pass_begin_page begins the transaction of a page, or of pages.  False when the run
 * must not go on; it has then been failed, and nothing was written.
 */
bool
pass_begin_page(Run *run)
{
	run_begin(run, "applying a page");
	switch (guard_run(&run->setup))
	{
		case RUN_GO_ON:
			break;
		case RUN_CANCELLED:
			run_fail(run, ERRCLASS_CANCELLED, "run was cancelled");
			break;
		case RUN_CONFIG_GONE:
			run_fail(run, ERRCLASS_CONFIGURATION, "the configuration was deleted during the run");
			break;
		case RUN_FILTER_CHANGED:
			run_unread(run, "the filter rules were changed during the run");
			break;
	}
	if (run->status == NULL)
		return true;
	db_commit();
	return false;
}

/*
 * pass_apply_once is the transaction of a page.  False when the run must not go
 * on; it has then been failed, and nothing was written.
 */
bool
pass_apply_once(Run *run, const SourceAnswer *answer, const UpstreamPage *page, PageEntry *entry)
{
	int		   n;
	instr_time t0, t;

	INSTR_TIME_SET_CURRENT(t0);
	if (!pass_begin_page(run))
		return false;
	run->timings.commit_us += run_microseconds(&t0);
	run->scope.parser = run->parser;
	run->scope.observed_at = answer->started_at;
	run->scope.lookup_us = run->scope.write_us = 0;
	memset(&entry->counts, 0, sizeof(entry->counts));
	entry->counts.filtered = page->gone;
	entry->counts.duplicates = page->duplicates;
	entry->counts.truncated = page->truncated;
	entry->deleted = page->deleted;
	entry->ndeleted = page->ndeleted;
	entry->seen = palloc_extended(
		sizeof(int64) * (page->nrecords + page->nknown + page->nfull + page->nfaults + 1),
		MCXT_ALLOC_HUGE);
	entry->nseen = entry->nchanged = 0;
	n = pass_apply_known(run, page, entry);
	n += page->partial ?
		pass_apply_partial(run, page, entry) :
		pass_apply_records(run, page, false, page->next_cursor != NULL, run->setup.passed, entry);
	pass_apply_faults(run, page, entry);
	entry->apply_ms = run_microseconds(&t0) / 1000.0;

	INSTR_TIME_SET_CURRENT(t);
	/* A definition that has found a second page before is right. */
	if (page->cut && entry->incomplete == NULL && run->page == 1 && !pages_had_several(run->id))
	{
		entry->incomplete = page->cut;
		entry->unread |= pass_everything(run);
		run_incomplete(run, "%s", entry->incomplete);
	}
	pages_add(run->id, entry);
	prints_note(run, answer, page, entry);
	run->timings.ledger_us += run_microseconds(&t);
	INSTR_TIME_SET_CURRENT(t);
	db_commit_async();
	run->timings.commit_us += run_microseconds(&t);
	prints_wrote(run, run->written, run->nwritten);
	run->timings.lookup_us += run->scope.lookup_us;
	run->timings.write_us += run->scope.write_us;
	run->setup.passed += n;
	return true;
}
