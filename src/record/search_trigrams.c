/*
 * search_trigrams.c
 *	  Which of the trigrams of what is searched for the index is asked for.
 *
 * pg_trgm would ask for all of them, also for those that nearly all records have, such as
 * the ones of ".example": each has a list of all records, which is read from end to end.
 * A row that has what is searched for has all of its trigrams, so that any of them name
 * all such rows, and others; these are told apart by their texts, as always.  So only the
 * trigrams are asked for that pay: the rarest one, and others as long as reading their
 * lists takes less time than visiting the rows that they rule out.
 *
 * How many rows have a trigram is about known to the index (search_lists.c).  A wrong
 * number makes a search slow, not wrong.
 *
 * The trigrams are those that pg_trgm takes out of a pattern for LIKE.  Where their lists
 * cannot be read without a scan, it is also pg_trgm that is asked whether a row has all
 * of them; only when the scan begins and asks for the trigrams of its pattern, it is given
 * those that were chosen.
 */
#include "postgres.h"

#include <math.h>

#include "base/compat.h"

#include "access/gin_private.h"
#include "access/relscan.h"

#include "record/search_rows.h"

/* Nanoseconds to read one row of a list. */
#define TRIGRAM_COST 6

typedef struct Trigram
{
	Datum  key;
	double rows;
} Trigram;

/* All trigrams of a pattern; none, if the index cannot serve. */
static int
trigrams_of(Relation index, Datum pattern, Datum **keys)
{
	int32	 n = 0;
	bool	*partial = NULL;
	Pointer *extra = NULL;
	bool	*nulls = NULL;
	int32	 mode = GIN_SEARCH_MODE_DEFAULT;

	*keys = (Datum *) DatumGetPointer(FunctionCall7Coll(
		index_getprocinfo(index, 1, GIN_EXTRACTQUERY_PROC), index->rd_indcollation[0], pattern,
		PointerGetDatum(&n), UInt16GetDatum(SEARCH_LIKE_STRATEGY), PointerGetDatum(&partial),
		PointerGetDatum(&extra), PointerGetDatum(&nulls), PointerGetDatum(&mode)));
	return mode == GIN_SEARCH_MODE_DEFAULT ? Max(n, 0) : 0;
}

static int
trigram_order(const void *a, const void *b)
{
	double x = ((const Trigram *) a)->rows;
	double y = ((const Trigram *) b)->rows;

	return (x > y) - (x < y);
}

/*
 * trigrams_choose chooses what to ask for, out of all, and returns their number.  Trigrams of one
 * text mostly go together: one that a tenth of the rows has does not rule out nine of ten that
 * others have, and the more there are, the less does another one.  So what is reckoned with is
 * the square root of the share of the second one, the fourth root of that of the third, and so on.
 */
static int
trigrams_choose(Trigram *trigrams, int n, double table_rows, SearchProbes *probes)
{
	double likely; /* as many as there are if they do not go together */
	double rows;
	double power = 1;
	int	   chosen = 1;

	qsort(trigrams, n, sizeof(Trigram), trigram_order);
	rows = likely = trigrams[0].rows;
	probes->cost = trigrams[0].rows * TRIGRAM_COST;
	for (; chosen < n; chosen++)
	{
		double share = Min(trigrams[chosen].rows / Max(table_rows, 1), 1);
		double fewer = rows * pow(share, power /= 2);
		double cost = trigrams[chosen].rows * TRIGRAM_COST;

		if ((rows - fewer) * SEARCH_COST_CANDIDATE <= cost)
			break;
		rows = fewer;
		likely *= share;
		probes->cost += cost;
	}
	probes->candidates = likely;
	return chosen;
}

/*
 * search_probe_trigrams makes a probe for the trigrams of a pattern, or none.
 */
bool
search_probe_trigrams(SearchProbes *probes, Oid oid, Datum pattern, double table_rows)
{
	Relation index = index_open(oid, AccessShareLock);
	Datum	*keys;
	int		 n = trigrams_of(index, pattern, &keys);

	if (n > 0)
	{
		Trigram		 *trigrams = palloc(sizeof(Trigram) * n);
		GinState	 *state = palloc(sizeof(GinState));
		SearchChosen *chosen;

		initGinState(state, index);
		for (int i = 0; i < n; i++)
		{
			trigrams[i].key = keys[i];
			trigrams[i].rows = search_list_length(index, state, keys[i]);
		}
		n = trigrams_choose(trigrams, n, table_rows, probes);
		chosen = palloc(offsetof(SearchChosen, trigrams) + sizeof(Datum) * n);
		chosen->n = n;
		for (int i = 0; i < n; i++)
			chosen->trigrams[i] = trigrams[i].key;
		probes->n = 1;
		probes->probe[0].index = oid;
		probes->probe[0].strategy = SEARCH_LIKE_STRATEGY;
		probes->probe[0].argument = PointerGetDatum(chosen);
		probes->probe[0].chosen = true;
		pfree(state);
		pfree(trigrams);
	}
	index_close(index, NoLock);
	return n > 0;
}

/* In the place of the function that takes trigrams out of a pattern. */
static Datum
trigrams_chosen(PG_FUNCTION_ARGS)
{
	SearchChosen *chosen = (SearchChosen *) PG_GETARG_POINTER(0);

	*(int32 *) PG_GETARG_POINTER(1) = chosen->n;
	return PointerGetDatum(chosen->trigrams);
}

/* A scan asks for what was chosen. */
void
search_scan_chosen(IndexScanDesc scan)
{
	GinScanOpaque so = (GinScanOpaque) scan->opaque;

	so->ginstate.extractQueryFn[0].fn_addr = trigrams_chosen;
}
