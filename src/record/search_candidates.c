/*
 * search_candidates.c
 *	  The rows that the indexes of enable_search() name.
 *
 * They are asked as the executor would, for a bitmap of rows; what is done with
 * the rows is of search_rows.c.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/heapam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "record/search_rows.h"

/* What rows are kept in memory that an index names; with more, only their pages. */
#define SEARCH_BITMAP_BYTES (64 * 1024 * 1024)

/* So many pages are on their way; each is pinned. */
#define SEARCH_AHEAD 16

/* Nanoseconds to look a row up in what an index was asked. */
#define SEARCH_COST_KEY 40

/*
 * The strategy of gin_trgm_ops for regular expressions, and that of arrays for those that have
 * all of some elements.
 */
#define SEARCH_REGEX_STRATEGY	 5
#define SEARCH_CONTAINS_STRATEGY 2

/*
 * What pg_trgm takes out of a regular expression are trigrams that it names by their
 * characters, up to 256 of them: any of ASCII (small letters, as texts are folded), and
 * those that are no letters.
 */
#define ANY_ASCII  "[\\u0001-\\u0040\\u005B-\\u007F]"
#define ANY_SIGN   "[\\u0001-\\u002F\\u003A-\\u0040\\u005B-\\u0060\\u007B-\\u007F]"
#define ANY_BEFORE "(^|" ANY_ASCII ")"
static const char *const some_letters[] = {"[a-f]", "[g-l]", "[m-r]", "[s-x]", "[y-z0-3]", "[4-9]"};

/* Some rows that an older snapshot sees may not be in an index that was made later. */
static bool
search_index_serves(Oid oid)
{
	Relation  index;
	HeapTuple tuple;
	bool	  serves;

	if (!OidIsValid(oid))
		return false;
	index = index_open(oid, AccessShareLock);
	tuple = index->rd_indextuple;
	serves = !index->rd_index->indcheckxmin ||
		TransactionIdPrecedes(HeapTupleHeaderGetXmin(tuple->t_data), TransactionXmin);
	index_close(index, NoLock);
	return serves;
}

static void
search_add_probe(SearchProbes *probes, Oid index, StrategyNumber strategy, Datum argument)
{
	SearchProbe *probe = &probes->probe[probes->n++];

	Assert(probes->n <= SEARCH_PROBES);
	probe->index = index;
	probe->strategy = strategy;
	probe->argument = argument;
	probe->chosen = false;
}

static void
search_add_regex(SearchRows *rows, SearchProbes *probes, const char *regex)
{
	search_add_probe(probes, rows->ask->trigrams, SEARCH_REGEX_STRATEGY,
					 CStringGetTextDatum(regex));
}

static Datum
search_like_pattern(const text *needle)
{
	const char	  *p = VARDATA_ANY(needle);
	StringInfoData pattern;

	initStringInfo(&pattern);
	appendStringInfoChar(&pattern, '%');
	for (int i = 0; i < VARSIZE_ANY_EXHDR(needle); i++)
	{
		if (p[i] == '\\' || p[i] == '%' || p[i] == '_')
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, p[i]);
	}
	appendStringInfoChar(&pattern, '%');
	return PointerGetDatum(cstring_to_text_with_len(pattern.data, pattern.len));
}

static void
search_add_marks(SearchRows *rows, SearchProbes *probes, const SearchNeedle *needle)
{
	Datum *marks = palloc(sizeof(Datum) * needle->nmarks);

	for (int i = 0; i < needle->nmarks; i++)
		marks[i] = Int32GetDatum(needle->marks[i]);
	search_add_probe(probes, rows->ask->marks, SEARCH_CONTAINS_STRATEGY,
					 PointerGetDatum(construct_array(marks, needle->nmarks, INT4OID, sizeof(int32),
													 true, TYPALIGN_INT)));
}

/*
 * search_probes: what the indexes have to be asked, to know all rows that can have what is
 * searched for; nothing, if they cannot tell.  Trigrams first, of three characters or more;
 * what they do not tell of, search_marks.c says.
 */
void
search_probes(SearchRows *rows, SearchProbes *probes)
{
	const SearchAsk *ask = rows->ask;
	SearchNeedle	 needle;
	char			 a;
	char			 b;

	probes->n = 0;
	probes->cost = 0;
	probes->cost_each = 0;
	probes->candidates = 0;
	probes->rows = NULL;
	probes->nrows = -1;
	search_needle(ask->needle, &needle);
	/* What is done with the rows that they name is for heaps only. */
	if (needle.length == 0 || rows->table->rd_tableam != GetHeapamTableAmRoutine() ||
		!search_index_serves(ask->trigrams))
		return;
	if (needle.length > 2 && needle.kind != NEEDLE_NONE &&
		search_probe_trigrams(probes, ask->trigrams, search_like_pattern(ask->needle),
							  Max(ask->scope, rows->table->rd_rel->reltuples)))
		return;
	if (needle.nmarks == 0 || !search_index_serves(ask->marks))
		return;
	a = needle.letter[0];
	b = needle.letter[1];
	switch (needle.kind)
	{
		case NEEDLE_LETTER:
			for (int i = 0; i < lengthof(some_letters); i++)
				search_add_regex(rows, probes, psprintf("%c%s" ANY_ASCII, a, some_letters[i]));
			search_add_regex(rows, probes, psprintf(ANY_BEFORE "%c" ANY_SIGN, a));
			break;
		case NEEDLE_LETTERS:
			search_add_regex(rows, probes, psprintf("%c%c" ANY_ASCII, a, b));
			break;
		case NEEDLE_LETTER_SIGN:
			search_add_regex(rows, probes, psprintf(ANY_BEFORE "%c[%c]", a, b));
			break;
		case NEEDLE_SIGN_LETTER:
			search_add_probe(probes, ask->trigrams, SEARCH_LIKE_STRATEGY,
							 search_like_pattern(ask->needle));
			break;
		default:
			break;
	}
	search_add_marks(rows, probes, &needle);
	probes->cost_each = SEARCH_COST_KEY * probes->n;
}

/* Where the rows come from that the indexes name: a bitmap, or a list in the order of the table. */
typedef struct SearchNamed
{
	CompatBitmapIterator  *bitmap;
	const ItemPointerData *rows; /* if there is no bitmap */
	int64				   n;
} SearchNamed;

/* Rows of a page that an index names; n is -1 for all of them. */
typedef struct SearchBlock
{
	BlockNumber	 block;
	Buffer		 buffer;
	int			 n;
	OffsetNumber offsets[MaxHeapTuplesPerPage];
} SearchBlock;

static bool
search_named_next(SearchNamed *named, SearchBlock *block)
{
	if (named->bitmap)
		return compat_bitmap_next(named->bitmap, &block->block, block->offsets, &block->n);
	if (named->n == 0)
		return false;
	block->block = ItemPointerGetBlockNumber(named->rows);
	block->n = 0;
	do
	{
		block->offsets[block->n++] = ItemPointerGetOffsetNumber(named->rows++);
		named->n--;
	} while (named->n > 0 && ItemPointerGetBlockNumber(named->rows) == block->block &&
			 block->n < MaxHeapTuplesPerPage);
	return true;
}

static bool
search_block_next(SearchRows *rows, SearchNamed *named, SearchBlock *block)
{
	if (!search_named_next(named, block))
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

/* The versions of the rows of a block that are seen: they are there for as long as it is pinned. */
typedef struct SearchSeen
{
	int			  n;
	HeapTupleData rows[MaxHeapTuplesPerPage];
} SearchSeen;

static void
search_block_see(SearchRows *rows, const SearchBlock *block, SearchSeen *seen)
{
	int n;

	seen->n = 0;
	LockBuffer(block->buffer, BUFFER_LOCK_SHARE);
	n = block->n < 0 ? PageGetMaxOffsetNumber(BufferGetPage(block->buffer)) : block->n;
	for (int i = 0; i < n; i++)
	{
		HeapTuple		row = &seen->rows[seen->n];
		ItemPointerData at;

		ItemPointerSet(&at, block->block, block->n < 0 ? FirstOffsetNumber + i : block->offsets[i]);
		seen->n += heap_hot_search_buffer(&at, rows->table, block->buffer, rows->snapshot, row,
										  NULL, true);
	}
	LockBuffer(block->buffer, BUFFER_LOCK_UNLOCK);
}

static bool
search_block_visit(SearchRows *rows, const SearchBlock *block, SearchSeen *seen, SearchVisit visit,
				   void *state)
{
	bool more = true;

	search_block_see(rows, block, seen);
	for (int i = 0; more && i < seen->n; i++)
	{
		ExecStoreBufferHeapTuple(&seen->rows[i], rows->slot, block->buffer);
		more = search_tell(rows, rows->slot, -1, visit, state);
	}
	return more;
}

/* Adds the rows that an index names to a bitmap, and returns their number. */
static int64
search_probe_index(SearchRows *rows, const SearchProbe *probe, TIDBitmap *bitmap)
{
	Relation	  index = index_open(probe->index, AccessShareLock);
	IndexScanDesc scan = compat_index_beginscan_bitmap(index, rows->snapshot, 1);
	ScanKeyData	  key;
	int64		  n;

	/* The function of the operator is not asked for: its strategy says all. */
	ScanKeyEntryInitialize(&key, 0, 1, probe->strategy, InvalidOid, index->rd_indcollation[0],
						   F_TEXTLIKE, probe->argument);
	if (probe->chosen)
		search_scan_chosen(scan);
	index_rescan(scan, &key, 1, NULL, 0);
	n = index_getbitmap(scan, bitmap);
	index_endscan(scan);
	index_close(index, NoLock);
	return n;
}

/* search_visit_named visits rows in the order of the table. */
static void
search_visit_named(SearchRows *rows, SearchNamed *named, SearchVisit visit, void *state)
{
	SearchBlock *blocks = palloc(sizeof(SearchBlock) * SEARCH_AHEAD);
	SearchSeen	*seen = palloc(sizeof(SearchSeen));
	uint64		 read = 0;
	uint64		 visited = 0;
	bool		 more = true;

	while (more)
	{
		SearchBlock *block = &blocks[visited % SEARCH_AHEAD];

		CHECK_FOR_INTERRUPTS();
		while (read < visited + SEARCH_AHEAD &&
			   search_block_next(rows, named, &blocks[read % SEARCH_AHEAD]))
			read++;
		if (read == visited)
			break;
		if (read > visited + SEARCH_AHEAD / 2)
			search_block_expect(&blocks[(visited + SEARCH_AHEAD / 2) % SEARCH_AHEAD]);
		more = search_block_visit(rows, block, seen, visit, state);
		ReleaseBuffer(block->buffer);
		visited++;
	}
	while (visited < read)
		ReleaseBuffer(blocks[visited++ % SEARCH_AHEAD].buffer);
	ExecClearTuple(rows->slot);
	pfree(seen);
	pfree(blocks);
}

/* search_read_lists finds which rows are named, where lists of trigrams say it; false: they do not. */
bool
search_read_lists(SearchProbes *probes)
{
	Relation index;

	if (probes->n == 0 || !probes->probe[0].chosen)
		return false;
	if (probes->nrows < 0)
	{
		index = index_open(probes->probe[0].index, AccessShareLock);
		if (search_lists(index, (SearchChosen *) DatumGetPointer(probes->probe[0].argument),
						 &probes->rows, &probes->nrows))
			probes->candidates = probes->nrows;
		else
			probes->nrows = -1;
		index_close(index, NoLock);
	}
	return probes->nrows >= 0;
}

/*
 * search_candidates visits the rows that the indexes name.  The text may still be missing
 * from them.  They lie on pages far from each other, and what takes time is to wait for
 * memory: so some pages are always on their way.  False, and none is visited, if there are
 * more than "most" of them.
 */
bool
search_candidates(SearchRows *rows, SearchProbes *probes, int64 most, SearchVisit visit,
				  void *state)
{
	TIDBitmap *bitmap;
	int64	   n = 0;

	if (search_read_lists(probes))
	{
		SearchNamed named = {.rows = probes->rows, .n = probes->nrows};

		if (named.n <= most)
			search_visit_named(rows, &named, visit, state);
		return named.n <= most;
	}
	bitmap = tbm_create(SEARCH_BITMAP_BYTES, NULL);
	for (int i = 0; i < probes->n && n <= most; i++)
		n += search_probe_index(rows, &probes->probe[i], bitmap);
	if (n <= most)
	{
		SearchNamed named = {.bitmap = compat_bitmap_begin(bitmap)};

		search_visit_named(rows, &named, visit, state);
		compat_bitmap_end(named.bitmap);
	}
	tbm_free(bitmap);
	return n <= most;
}
