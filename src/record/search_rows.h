/*
 * search_rows.h
 *	  The rows that a search reads, and the ways to come to them.  See search_rows.c.
 */
#ifndef FLOHSYNC_SEARCH_ROWS_H
#define FLOHSYNC_SEARCH_ROWS_H

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "record/search.h"

enum
{
	SEARCH_CONNECTOR,
	SEARCH_TYPE,
	SEARCH_EXTERNAL_ID,
	SEARCH_EMAIL,
	SEARCH_NAME,
	SEARCH_STATE, /* of a record since when it is stale, of a match the status */
	SEARCH_NCOLUMNS
};

typedef struct SearchRows
{
	const SearchAsk *ask;
	Relation		 table;
	Snapshot		 snapshot;
	TupleTableSlot	*slot;
	MemoryContext	 memory;
	MemoryContext	 row_memory; /* what is allocated for a row goes with it */
	AttrNumber		 columns[SEARCH_NCOLUMNS];
	/* Of matches, to see whether they are of stale records. */
	Relation		records;
	Relation		records_stale;
	IndexScanDesc	record_probe;
	TupleTableSlot *record_slot;
	IndexScanDesc	stale_scan;	 /* set while the rows come by it: its record is that of the row */
	int				stale_known; /* whether that record is stale; -1: not looked at */
} SearchRows;

/* Is told of each row of the list, in row_memory; false: enough. */
typedef bool (*SearchVisit)(SearchRows *rows, TupleTableSlot *slot, int type, void *state);

/* What some blocks of the table have. */
typedef struct SearchSample
{
	int64		rows; /* of the list; of matches, of stale records and others */
	int64		hits;
	int64		all_rows; /* also of other lists */
	int64		all_hits;
	int			blocks;
	int			blocks_with_hits;
	double		squares; /* sum of the squares of the hits of a block */
	BlockNumber table_blocks;
} SearchSample;

extern void	 search_rows_open(SearchRows *rows, const SearchAsk *ask);
extern void	 search_rows_close(SearchRows *rows);
extern bool	 search_tell(SearchRows *rows, TupleTableSlot *slot, int type, SearchVisit visit,
						 void *state);
extern text *search_row_id(SearchRows *rows, TupleTableSlot *slot);
extern bool	 search_row_found(SearchRows *rows, TupleTableSlot *slot);
extern void	 search_sample(SearchRows *rows, SearchSample *sample);
extern bool	 search_walk(SearchRows *rows, bool from_after, SearchVisit visit, void *state);
extern bool	 search_walk_stale(SearchRows *rows, SearchVisit visit, void *state);
extern void	 search_all(SearchRows *rows, SearchVisit visit, void *state);

#define SEARCH_PROBES 8

/* The strategy of gin_trgm_ops for LIKE. */
#define SEARCH_LIKE_STRATEGY 3

/* What it costs to visit a row that an index names, in nanoseconds. */
#define SEARCH_COST_CANDIDATE 750

/* What an index is asked. */
typedef struct SearchProbe
{
	Oid			   index;
	StrategyNumber strategy;
	Datum		   argument;
	bool		   chosen; /* the argument is what search_trigrams.c chose */
} SearchProbe;

/* What a scan has instead of a pattern, if it is chosen: the rarest first. */
typedef struct SearchChosen
{
	int	  n;
	Datum trigrams[FLEXIBLE_ARRAY_MEMBER];
} SearchChosen;

/* The rows of any of them. */
typedef struct SearchProbes
{
	int	   n;		   /* 0: no index can tell */
	double cost;	   /* of asking, in nanoseconds, */
	double cost_each;  /* and of asking for a row */
	double candidates; /* how many rows they are likely to name */
	/* The rows that they name, in the order of the table; nrows is -1 if they were not read. */
	ItemPointerData *rows;
	int64			 nrows;
	SearchProbe		 probe[SEARCH_PROBES];
} SearchProbes;

/* search_candidates.c */
extern void search_probes(SearchRows *rows, SearchProbes *probes);
extern bool search_read_lists(SearchProbes *probes);
extern bool search_candidates(SearchRows *rows, SearchProbes *probes, int64 most, SearchVisit visit,
							  void *state);

/* search_trigrams.c */
extern bool search_probe_trigrams(SearchProbes *probes, Oid oid, Datum pattern, double table_rows);
extern void search_scan_chosen(IndexScanDesc scan);

/* search_lists.c */
struct GinState;
extern double search_list_length(Relation index, struct GinState *state, Datum key);
extern bool	  search_lists(Relation index, const SearchChosen *chosen, ItemPointerData **rows,
						   int64 *n);

#endif /* FLOHSYNC_SEARCH_ROWS_H */
