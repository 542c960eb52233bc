/*
 * search_candidates.c
 *	  The rows that the index of enable_search() names.
 *
 * The index is asked as the executor would, for a bitmap of rows; what is done with
 * the rows is of search_rows.c.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/gin.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "record/search_rows.h"

/* What rows are kept in memory that an index names; with more, only their pages. */
#define SEARCH_BITMAP_BYTES (64 * 1024 * 1024)

/* So many pages are on their way; each is pinned. */
#define SEARCH_AHEAD 16

/* The strategy of gin_trgm_ops for LIKE, and the function of it that finds trigrams. */
#define SEARCH_LIKE_STRATEGY 3

/* How many trigrams the index has to look up; 0: it cannot serve. */
int
search_trigrams(SearchRows *rows)
{
	Relation  index;
	int32	  n = 0;
	bool	 *partial = NULL;
	Pointer	 *extra = NULL;
	bool	 *nulls = NULL;
	int32	  mode = GIN_SEARCH_MODE_DEFAULT;
	HeapTuple tuple;

	if (!OidIsValid(rows->ask->trigrams))
		return 0;
	index = index_open(rows->ask->trigrams, AccessShareLock);
	tuple = index->rd_indextuple;
	/* Some rows that an older snapshot sees may not be in an index that was made later. */
	if (!index->rd_index->indcheckxmin ||
		TransactionIdPrecedes(HeapTupleHeaderGetXmin(tuple->t_data), TransactionXmin))
		(void) FunctionCall7Coll(index_getprocinfo(index, 1, GIN_EXTRACTQUERY_PROC),
								 index->rd_indcollation[0], PointerGetDatum(rows->ask->pattern),
								 PointerGetDatum(&n), UInt16GetDatum(SEARCH_LIKE_STRATEGY),
								 PointerGetDatum(&partial), PointerGetDatum(&extra),
								 PointerGetDatum(&nulls), PointerGetDatum(&mode));
	index_close(index, NoLock);
	return mode == GIN_SEARCH_MODE_DEFAULT ? Max(n, 0) : 0;
}

/* Rows of a page that an index names; n is -1 for all of them. */
typedef struct SearchBlock
{
	BlockNumber	 block;
	Buffer		 buffer;
	int			 n;
	OffsetNumber offsets[MaxHeapTuplesPerPage];
} SearchBlock;

static bool
search_block_next(SearchRows *rows, CompatBitmapIterator *iterator, SearchBlock *block)
{
	if (!compat_bitmap_next(iterator, &block->block, block->offsets, &block->n))
		return false;
	block->buffer = ReadBuffer(rows->table, block->block);
	/* The header, and where the line pointers begin. */
	__builtin_prefetch(BufferGetPage(block->buffer));
	if (block->n > 0)
		__builtin_prefetch(PageGetItemId(BufferGetPage(block->buffer), block->offsets[0]));
	return true;
}

/* Has the processor fetch the rows of a block; what it is told may be wrong, as nothing is locked. */
static void
search_block_expect(const SearchBlock *block)
{
	Page page = BufferGetPage(block->buffer);

	for (int i = 0; i < block->n; i++)
	{
		char *row = (char *) page +
			Min(ItemIdGetOffset(PageGetItemId(page, block->offsets[i])), BLCKSZ - 256);

		for (int line = 0; line < 256; line += 64)
			__builtin_prefetch(row + line);
	}
}

static bool
search_block_visit(SearchRows *rows, IndexFetchTableData *fetch, const SearchBlock *block,
				   SearchVisit visit, void *state)
{
	bool more = true;

	for (int i = 0; more && i < (block->n < 0 ? MaxHeapTuplesPerPage : block->n); i++)
	{
		ItemPointerData row;
		bool			again = false;

		ItemPointerSet(&row, block->block,
					   block->n < 0 ? FirstOffsetNumber + i : block->offsets[i]);
		if (table_index_fetch_tuple(fetch, &row, rows->snapshot, rows->slot, &again, NULL))
			more = search_tell(rows, rows->slot, -1, visit, state);
	}
	return more;
}

/*
 * search_candidates visits the rows that have all trigrams of what is searched for,
 * in the order of the table.  The text may still be missing from them.  They lie
 * on pages far from each other, and what takes time is to wait for memory: so some
 * pages are always on their way.
 */
void
search_candidates(SearchRows *rows, SearchVisit visit, void *state)
{
	Relation			  index = index_open(rows->ask->trigrams, AccessShareLock);
	TIDBitmap			 *bitmap = tbm_create(SEARCH_BITMAP_BYTES, NULL);
	IndexScanDesc		  scan = compat_index_beginscan_bitmap(index, rows->snapshot, 1);
	SearchBlock			 *blocks = palloc(sizeof(SearchBlock) * SEARCH_AHEAD);
	IndexFetchTableData	 *fetch;
	CompatBitmapIterator *iterator;
	ScanKeyData			  key;
	uint64				  read = 0;
	uint64				  visited = 0;
	bool				  more = true;

	ScanKeyEntryInitialize(&key, 0, 1, SEARCH_LIKE_STRATEGY, TEXTOID, index->rd_indcollation[0],
						   F_TEXTLIKE, PointerGetDatum(rows->ask->pattern));
	index_rescan(scan, &key, 1, NULL, 0);
	(void) index_getbitmap(scan, bitmap);
	index_endscan(scan);
	index_close(index, NoLock);

	fetch = table_index_fetch_begin(rows->table);
	iterator = compat_bitmap_begin(bitmap);
	while (more)
	{
		SearchBlock *block = &blocks[visited % SEARCH_AHEAD];

		CHECK_FOR_INTERRUPTS();
		while (read < visited + SEARCH_AHEAD &&
			   search_block_next(rows, iterator, &blocks[read % SEARCH_AHEAD]))
			read++;
		if (read == visited)
			break;
		if (read > visited + SEARCH_AHEAD / 2)
			search_block_expect(&blocks[(visited + SEARCH_AHEAD / 2) % SEARCH_AHEAD]);
		more = search_block_visit(rows, fetch, block, visit, state);
		ReleaseBuffer(block->buffer);
		visited++;
	}
	while (visited < read)
		ReleaseBuffer(blocks[visited++ % SEARCH_AHEAD].buffer);
	ExecClearTuple(rows->slot);
	compat_bitmap_end(iterator);
	table_index_fetch_end(fetch);
	tbm_free(bitmap);
	pfree(blocks);
}
