/*
 * search_page.c
 *	  One page of a search, and its total.
 *
 * The total is exact up to SEARCH_EXACT hits; beyond, it is an estimate.  A page is
 * always exact.  How it is found depends on how many hits there are, which a sample
 * of the table tells, whatever is known to the planner:
 *
 * - Hits that are many are close together: the list is walked in its order until
 *   the page is full, and the total is that of the sample.
 * - Otherwise the rows that the indexes of enable_search() name are visited, in the
 *   order of the table, and the first ones of the list are kept.  All are counted
 *   up to SEARCH_EXACT.  After that, only those are looked at that could be on the
 *   page: few, as the ids of the page are soon known to be small.
 * - A short list, or one without an index, is read from end to end.
 * - If the index names so few rows that a sample would take longer than they do, there
 *   is no sample.
 *
 * A walk that takes much longer than the sample promised, since the hits are far
 * behind, is given up for the index.
 */
#include "postgres.h"

#include <math.h>

#include "base/compat.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "record/search_rows.h"

/* A list of no more rows is read from end to end. */
#define SEARCH_SHORT 20000

/*
 * The hits of a sample are proof that there are more than SEARCH_EXACT, if they are so many
 * standard deviations above what these would bring, and are in so many blocks.
 */
#define SEARCH_SURE_DEVIATIONS 7
#define SEARCH_SURE_BLOCKS	   16

/* Rows that are visited in less time than a sample takes; and what may be spent to find that out. */
#define SEARCH_FEW		2000
#define SEARCH_COST_FEW (1000 * 1000)

/* Costs in nanoseconds: of a row on a walk, and of whatever an index is asked. */
#define SEARCH_COST_STEP  500
#define SEARCH_COST_INDEX (1000 * 1000)

/* A walk may take so many times what is expected; after that many hits expected it is looked at. */
#define SEARCH_WALK_PATIENCE 2
#define SEARCH_WALK_LOOK	 20

typedef struct SearchPage
{
	const SearchAsk *ask;
	int64			 skip;	 /* hits to be passed over before the page */
	int64			 wanted; /* first hits of the list that are kept */
	bool			 counting;
	bool			 may_estimate;
	int64			 steps; /* that a walk may take; -1: any number */
	double			 share; /* of hits that it is expected to find */
	int64			 rows;
	int64			 tested;
	int64			 hits;
	/* Found, in the order of the list when it is walked; else the first ones so far, and others. */
	SearchKey	 *keys;
	int64		  n;
	int64		  allocated;
	bool		  bounded; /* nothing behind the last one of the first "wanted" is kept */
	SearchKey	  bound;
	MemoryContext memory;
} SearchPage;

static int
search_compare_keys(const text *id_a, int type_a, const text *id_b, int type_b)
{
	int la = VARSIZE_ANY_EXHDR(id_a);
	int lb = VARSIZE_ANY_EXHDR(id_b);
	int c = memcmp(VARDATA_ANY(id_a), VARDATA_ANY(id_b), Min(la, lb));

	if (c == 0)
		c = la - lb;
	return c != 0 ? c : type_a - type_b;
}

static int
search_key_order(const void *a, const void *b)
{
	const SearchKey *x = a;
	const SearchKey *y = b;

	return search_compare_keys(x->external_id, x->type, y->external_id, y->type);
}

/* Is it behind the key that the page begins behind? */
static bool
search_is_behind(const SearchAsk *ask, const text *id, int type)
{
	int c;

	if (ask->after_id == NULL)
		return true;
	c = search_compare_keys(id, 0, ask->after_id, 0);
	if (c == 0)
		c = search_compare_keys(ask->types[type], 0, ask->after_type, 0);
	return c > 0;
}

static void
search_keep(SearchPage *page, const text *id, int type)
{
	MemoryContext old = MemoryContextSwitchTo(page->memory);

	if (page->n == page->allocated)
	{
		page->allocated = Max(page->allocated * 2, 256);
		page->keys = page->keys ?
			repalloc_huge(page->keys, sizeof(SearchKey) * page->allocated) :
			MemoryContextAllocHuge(page->memory, sizeof(SearchKey) * page->allocated);
	}
	page->keys[page->n].external_id = cstring_to_text_with_len(VARDATA_ANY(id),
															   VARSIZE_ANY_EXHDR(id));
	page->keys[page->n].type = type;
	page->n++;
	MemoryContextSwitchTo(old);
}

/* search_trim forgets what is not among the first ones. */
static void
search_trim(SearchPage *page)
{
	qsort(page->keys, page->n, sizeof(SearchKey), search_key_order);
	while (page->n > page->wanted)
		pfree(page->keys[--page->n].external_id);
	if (page->n == page->wanted)
	{
		page->bounded = true;
		page->bound = page->keys[page->n - 1];
	}
}

static bool
search_visit_in_order(SearchRows *rows, TupleTableSlot *slot, int type, void *state)
{
	SearchPage *page = state;
	text	   *id;

	if (page->steps >= 0 &&
		(page->rows == page->steps ||
		 (page->rows * page->share > SEARCH_WALK_LOOK &&
		  page->hits < page->rows * page->share / 4)))
		return false;
	page->rows++;
	if (!search_row_found(rows, slot))
		return true;
	page->hits++;
	if (page->n == page->ask->limit)
		return page->counting;
	id = search_row_id(rows, slot);
	if (!search_is_behind(page->ask, id, type))
		return true;
	if (page->skip > 0)
		page->skip--;
	else
		search_keep(page, id, type);
	return page->counting || page->n < page->ask->limit;
}

static bool
search_visit_in_any_order(SearchRows *rows, TupleTableSlot *slot, int type, void *state)
{
	SearchPage *page = state;
	text	   *id;
	bool		may_be_kept;

	id = search_row_id(rows, slot);
	page->rows++;
	may_be_kept = (!page->bounded ||
				   search_compare_keys(id, type, page->bound.external_id, page->bound.type) < 0) &&
		search_is_behind(page->ask, id, type);
	if (!page->counting && !may_be_kept)
		return true;
	page->tested += page->counting;
	if (!search_row_found(rows, slot))
		return true;
	if (page->counting)
	{
		page->hits++;
		/* Without the index there is no need for an estimate: the texts are at hand. */
		page->counting = page->hits <= SEARCH_EXACT || !page->may_estimate;
	}
	if (may_be_kept)
	{
		search_keep(page, id, type);
		if (page->n >= 2 * page->wanted + 1000)
			search_trim(page);
	}
	return true;
}

/* search_begin forgets what was found. */
static void
search_begin(SearchPage *page, const SearchAsk *ask, MemoryContext memory)
{
	memset(page, 0, sizeof(*page));
	page->ask = ask;
	page->skip = ask->after_id ? 0 : ask->before;
	page->wanted = page->skip + ask->limit;
	page->steps = -1;
	page->memory = memory;
}

/* search_answer takes the page out of the first hits of the list. */
static void
search_answer(SearchPage *page, SearchAnswer *answer)
{
	if (page->n > 0)
		search_trim(page);
	if (page->n > page->skip)
	{
		answer->keys = page->keys + page->skip;
		answer->n = page->n - page->skip;
	}
	/* All hits were kept. */
	if (page->n < page->wanted && page->ask->after_id == NULL)
	{
		answer->total = page->n;
		answer->estimated = false;
	}
}

/*
 * search_counted: the total, of what was counted; beyond SEARCH_EXACT with the share of
 * hits among the rows until then.
 */
static void
search_counted(const SearchPage *page, SearchAnswer *answer)
{
	answer->total = page->hits;
	answer->estimated = !page->counting;
	if (answer->estimated)
		answer->total += (double) (page->rows - page->tested) * page->hits / page->tested;
}

/* What it costs to visit all rows that the index names. */
static double
search_index_cost(const SearchProbes *probes)
{
	return SEARCH_COST_INDEX + probes->cost +
		probes->candidates * (SEARCH_COST_CANDIDATE + probes->cost_each);
}

/* search_try_walk: does a walk fill the page, as the sample promises? */
static bool
search_try_walk(SearchRows *rows, SearchPage *page, const SearchSample *sample,
				const SearchProbes *probes, SearchAnswer *answer)
{
	double steps;
	bool   ended;

	page->share = (sample->hits + 1.0) / (sample->rows + 1.0);
	steps = page->wanted / page->share;
	if (probes->n > 0)
	{
		if (steps * SEARCH_COST_STEP > search_index_cost(probes))
			return false;
		page->steps = steps * SEARCH_WALK_PATIENCE + 1000;
	}
	ended = search_walk(rows, true, search_visit_in_order, page);
	if (!ended && page->n < page->ask->limit)
		return false;
	answer->keys = page->keys;
	answer->n = page->n;
	if (ended && page->ask->after_id == NULL)
	{
		answer->total = page->hits;
		answer->estimated = false;
	}
	return true;
}

/*
 * search_is_sure: are there certainly more hits than SEARCH_EXACT?  Hits of which many are
 * in one block and none in others vary more from sample to sample, as they do from block to
 * block.
 */
static bool
search_is_sure(const SearchAsk *ask, const SearchSample *sample)
{
	double expected = (double) sample->rows * SEARCH_EXACT / Max(ask->base, 1);
	double dispersion;

	if (sample->blocks_with_hits < SEARCH_SURE_BLOCKS)
		return false;
	dispersion = (sample->squares - (double) sample->hits * sample->hits / sample->blocks) /
		sample->hits;
	return sample->hits > expected + SEARCH_SURE_DEVIATIONS * sqrt(expected * Max(dispersion, 1));
}

/* search_by_index finds a page among the rows that the index names, if they are not more than "most". */
static bool
search_by_index(SearchRows *rows, SearchPage *page, SearchProbes *probes, int64 most,
				SearchAnswer *answer)
{
	page->counting = answer->total < 0;
	page->may_estimate = true;
	if (!search_candidates(rows, probes, most, search_visit_in_any_order, page))
	{
		page->counting = false;
		return false;
	}
	if (answer->total < 0)
		search_counted(page, answer);
	search_answer(page, answer);
	return true;
}

/* search_long finds a page of a long list. */
static void
search_long(SearchRows *rows, SearchPage *page, SearchAnswer *answer)
{
	const SearchAsk *ask = page->ask;
	MemoryContext	 memory = page->memory;
	SearchSample	 sample;
	SearchProbes	 probes;
	double			 hits;
	double			 all_cost = (double) ask->scope * SEARCH_COST_STEP;

	answer->total = ask->total;
	answer->estimated = ask->total_is_estimate;
	search_probes(rows, &probes);
	if (probes.candidates <= SEARCH_FEW && probes.cost <= SEARCH_COST_FEW &&
		search_read_lists(&probes) && search_by_index(rows, page, &probes, SEARCH_FEW, answer))
		return;
	search_sample(rows, &sample);
	if (probes.nrows < 0)
		probes.candidates = Max(probes.candidates,
								(double) sample.all_hits * sample.table_blocks /
									Max(sample.blocks, 1));
	hits = (double) sample.hits / Max(sample.rows, 1) * ask->base;
	if (answer->total < 0 && search_is_sure(ask, &sample))
	{
		answer->total = hits;
		answer->estimated = true;
	}
	if (answer->total >= 0 && search_try_walk(rows, page, &sample, &probes, answer))
		return;

	search_begin(page, ask, memory);
	if (probes.n > 0 && search_index_cost(&probes) < all_cost &&
		search_by_index(rows, page, &probes, all_cost / SEARCH_COST_CANDIDATE, answer))
		return;
	page->counting = answer->total < 0;
	page->may_estimate = probes.n > 0;
	if (ask->matches && ask->stale == SEARCH_STALE)
		(void) search_walk_stale(rows, search_visit_in_any_order, page);
	else if (sample.rows >= sample.all_rows / 3)
		search_all(rows, search_visit_in_any_order, page);
	else
		(void) search_walk(rows, false, search_visit_in_any_order, page);
	if (answer->total < 0)
		search_counted(page, answer);
	search_answer(page, answer);
}

void
search_page(const SearchAsk *ask, SearchAnswer *answer)
{
	SearchRows rows;
	SearchPage page;

	memset(answer, 0, sizeof(*answer));
	search_rows_open(&rows, ask);
	search_begin(&page, ask, CurrentMemoryContext);
	if (ask->scope <= SEARCH_SHORT)
	{
		page.counting = true;
		if (ask->matches && ask->stale == SEARCH_STALE)
			(void) search_walk_stale(&rows, search_visit_in_order, &page);
		else
			(void) search_walk(&rows, false, search_visit_in_order, &page);
		answer->keys = page.keys;
		answer->n = page.n;
		answer->total = page.hits;
	}
	else
		search_long(&rows, &page, answer);
	search_rows_close(&rows);

	/* An estimate is not less than what was seen, and a page that is not full tells the end. */
	if (answer->estimated)
	{
		int64 seen = Max(ask->before, 0) + answer->n;

		if (answer->n < ask->limit && ask->before >= 0)
		{
			answer->total = seen;
			answer->estimated = false;
		}
		else
			answer->total = Max(Min(answer->total, ask->scope), Max(seen, SEARCH_EXACT + 1));
	}
}
