/*
 * refetch.c
 *	  Pages whose records contain only what has changed.
 *
 * Such a record is merged with the stored one (record/merge.c).  If none is
 * stored, the received record may be complete, if it is new, or partial: it does
 * not say which.  Then the full record is requested individually; if that fails
 * it is set aside, and the next run starts where full records are listed.
 *
 * A stored record must include every previous change.  Records that the filter
 * rules put out of scope are not updated, so they become stale, and stale records
 * count as not stored while there are filter rules.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/bytes.h"
#include "base/db.h"
#include "base/wait.h"
#include "record/merge.h"
#include "run/pages.h"
#include "run/state.h"

/* Upper limit of single-record requests per run; beyond it a full restart is cheaper. */
#define WHOLE_MAX 100

bool
pass_has_filter(const Filter *filter)
{
	return filter->name_pattern != NULL || filter->ngroup_ids >= 0 || filter->ndomains >= 0 ||
		filter->member_of_synced_groups || filter->max_records > 0;
}

static int
refetch_compare(const Record *a, const Record *b)
{
	return page_compare_ids(a->external_id.data, a->external_id.len, b->external_id.data,
							b->external_id.len);
}

/* How many records from one on have its id. */
static int
refetch_same(const Record *records, int n, int from)
{
	int i = from + 1;

	while (i < n && refetch_compare(&records[from], &records[i]) == 0)
		i++;
	return i - from;
}

/*
 * Asks for a record, with as many attempts as a page gets.  False: it cannot be
 * had.  That the upstream does not know it says nothing: a replica may lag.
 */
static bool
refetch_ask(Run *run, const Record *part, Record *record, size_t *heaviest)
{
	char		*id = pnstrdup(part->external_id.data, part->external_id.len);
	SourceAnswer answer;
	UpstreamPage page;
	PageParser	*parser;
	char		*body;

	for (int attempt = 1;; attempt++)
	{
		int64 delay;

		pass_forget_early(run);
		source_get(run->source, id, &answer);
		delay = answer.error_class && answer.retryable ? pass_retry_delay(run, &answer, attempt) :
														 -1;
		if (delay < 0)
			break;
		wait_ms((long) delay, WAIT_RETRY);
	}
	if (answer.error_class)
	{
		ereport(DEBUG1, (errmsg_internal("could not fetch a full record: %s", answer.message)));
		return false;
	}
	/* The answer goes with the next request. */
	memory_take(&run->memory, answer.len + 1);
	body = MemoryContextAllocHuge(CurrentMemoryContext, answer.len + 1);
	memcpy(body, answer.body, answer.len);
	body[answer.len] = '\0';
	answer.body = body;
	parser = page_parser_create((const char *const *) run->setup.hash_ignore,
								run->setup.nhash_ignore, &run->memory);
	if (!source_read(run->source, parser, &answer, &page))
	{
		ereport(DEBUG1, (errmsg_internal("could not fetch a full record: %s", answer.message)));
		return false;
	}
	if (page.nfaults > 0 || page.nrecords != 1)
		return false;
	*record = page.records[0];
	*heaviest = Max(*heaviest, page.heaviest);
	/* Its tree goes now, and with it what is left out of it. */
	record->attributes = page_stored_attributes(parser, record);
	page_settle(parser);
	record->attributes_node = 0;
	record->position = part->position;
	return refetch_compare(record, part) == 0;
}

/* Announces the records that will be asked for. */
static void
refetch_expect(const Run *run, const UpstreamPage *page, const bool *known)
{
	char **ids = palloc(sizeof(char *) * WHOLE_MAX);
	int	   n = 0;

	for (int i = 0; i < page->nrecords && run->nfull + n < WHOLE_MAX;
		 i += refetch_same(page->records, page->nrecords, i))
		if (!known[i])
			ids[n++] = pnstrdup(page->records[i].external_id.data,
								page->records[i].external_id.len);
	source_expect(run->source, ids, n);
}

/*
 * pass_refetch requests those records of a page that have no stored one to
 * be merged with, until one request fails.  They move from its records to
 * page->full.  Holds no transaction while it waits.
 */
void
pass_refetch(Run *run, UpstreamPage *page)
{
	MemoryContext context = CurrentMemoryContext;
	bool		 *known;
	Record		 *rest;
	int			  nrest = 0;

	if (!page->partial || page->new_records_full || page->nrecords == 0 || run->nfull >= WHOLE_MAX)
		return;
	db_begin("looking for the records of a page");
	MemoryContextSwitchTo(context);
	known = merge_known(&run->scope, page->records, page->nrecords);
	db_commit();
	MemoryContextSwitchTo(context);
	refetch_expect(run, page, known);
	rest = palloc_extended(sizeof(Record) * page->nrecords, MCXT_ALLOC_HUGE);
	page->full = palloc(sizeof(Record) * WHOLE_MAX);
	for (int i = 0, n; i < page->nrecords; i += n)
	{
		n = refetch_same(page->records, page->nrecords, i);
		if (!known[i] && run->nfull < WHOLE_MAX)
		{
			run->nfull++;
			if (refetch_ask(run, &page->records[i], &page->full[page->nfull], &page->heaviest))
			{
				page->nfull++;
				page->duplicates += n - 1;
				continue;
			}
			/* The next run starts a new pass in any case. */
			run->nfull = WHOLE_MAX;
		}
		memcpy(rest + nrest, page->records + i, sizeof(Record) * n);
		nrest += n;
	}
	page->records = rest;
	page->nrecords = nrest;
}

/* pass_out_of_scope has what the filter rules leave out of a part of such a page become stale. */
void
pass_out_of_scope(Run *run, const UpstreamPage *part, const Record *kept, int nkept,
				  PageEntry *entry)
{
	MemoryContext old;
	Slice		 *gone;
	int			  k = 0;

	if (nkept == part->nrecords)
		return;
	old = MemoryContextSwitchTo(run->page_context);
	gone = palloc_extended(sizeof(Slice) * (entry->ndeleted + part->nrecords), MCXT_ALLOC_HUGE);
	if (entry->ndeleted > 0)
		memcpy(gone, entry->deleted, sizeof(Slice) * entry->ndeleted);
	for (int i = 0; i < part->nrecords; i++)
	{
		Slice id = part->records[i].external_id;

		if (k < nkept && refetch_compare(&kept[k], &part->records[i]) == 0)
			k++;
		else
			gone[entry->ndeleted++] = (Slice){pnstrdup(id.data, id.len), id.len};
	}
	entry->deleted = gone;
	MemoryContextSwitchTo(old);
}
