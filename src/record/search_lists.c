/*
 * search_lists.c
 *	  What a GIN index has of a key: the list of its rows.
 *
 * A scan of the index asks for each row of the rarest list whether it is in the others, in
 * a way that is made for anything, and puts the rows into a bitmap that is then sorted.
 * Here all lists are read from end to end, as those are chosen for which that pays
 * (search_trigrams.c).  They are in the order of the table, so that what they have in
 * common is so, too.
 *
 * A short list is in the entry of its key, and a long one is a tree.  Its leaves are read
 * from left to right, as a scan for many keys does: the next one is locked before the last
 * one is let go, so that none is removed meanwhile.  How long a list is, the root of the
 * tree tells, which says how many leaves there are, and the first leaf, of how much is
 * in one.
 *
 * New rows may be in the pending list for a while, and in no other.  Who moves them puts
 * them where they go before they are taken out of it.  So if it is seen to be empty first,
 * the lists have all rows that a snapshot taken before can see; and if it is not, a scan
 * is needed, which reads it.  A transaction that is serializable leaves it to a scan to
 * say what it has read.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/gin_private.h"
#include "access/xact.h"
#include "storage/bufmgr.h"

#include "record/search_rows.h"

/* In a leaf of a tree are so many rows, at least, unless many were removed. */
#define LIST_LEAF_LEAST 1000

/* With more rows a scan is better, as a bitmap can forget some. */
#define LIST_MOST (8 * 1024 * 1024)

/* Rows that all lists have that were read so far. */
typedef struct RowList
{
	ItemPointerData *rows;
	int64			 n;
	int64			 allocated;
	bool			 first; /* that none was read of as yet */
	int64			 seen;	/* of a list but the first: where it has come to, */
	int64			 kept;	/* and what is kept of the rows before */
} RowList;

/* Finds the list of a key: its rows, if it is short, or where its tree is. */
static BlockNumber
list_find(Relation index, GinState *state, Datum key, ItemPointer *rows, int *n)
{
	GinBtreeData   entries;
	GinBtreeStack *leaf;
	BlockNumber	   tree = InvalidBlockNumber;

	*rows = NULL;
	*n = 0;
	ginPrepareEntryScan(&entries, 1, key, GIN_CAT_NORM_KEY, state);
	leaf = compat_gin_find_leaf(&entries);
	if (entries.findItem(&entries, leaf))
	{
		Page	   page = BufferGetPage(leaf->buffer);
		IndexTuple entry = (IndexTuple) PageGetItem(page, PageGetItemId(page, leaf->off));

		if (GinIsPostingTree(entry))
			tree = GinGetPostingTree(entry);
		else
			*rows = ginReadTuple(state, 1, entry, n);
	}
	/* A tree stays where it is, and must not be waited for with a lock on its entry. */
	LockBuffer(leaf->buffer, GIN_UNLOCK);
	freeGinBtreeStack(leaf);
	return tree;
}

/* The rows in a leaf of a tree, as there are in its first part. */
static double
list_leaf_length(Page page)
{
	GinPostingList *first;
	int				n;

	if (!GinPageIsCompressed(page))
		return GinPageGetOpaque(page)->maxoff;
	if (GinDataLeafPageGetPostingListSize(page) == 0)
		return 0;
	first = GinDataLeafPageGetPostingList(page);
	pfree(ginPostingListDecode(first, &n));
	return (double) n * GinDataLeafPageGetPostingListSize(page) / SizeOfGinPostingList(first);
}

/* About how many rows have a key? */
double
search_list_length(Relation index, GinState *state, Datum key)
{
	ItemPointer	   rows;
	int			   n;
	GinBtreeData   tree;
	GinBtreeStack *leaf;
	double		   length;
	BlockNumber	   root = list_find(index, state, key, &rows, &n);

	if (root == InvalidBlockNumber)
	{
		if (rows)
			pfree(rows);
		return n;
	}
	leaf = compat_gin_begin_tree(&tree, index, root);
	length = list_leaf_length(BufferGetPage(leaf->buffer));
	if (leaf->predictNumber > 1)
		length = leaf->predictNumber * Max(length, LIST_LEAF_LEAST);
	LockBuffer(leaf->buffer, GIN_UNLOCK);
	freeGinBtreeStack(leaf);
	return length;
}

/* The next rows of a list: the first one is taken as it is, of others what it has. */
static void
list_add(RowList *list, const ItemPointerData *rows, int n)
{
	if (list->first)
	{
		if (list->n + n > list->allocated)
		{
			list->allocated = (list->n + n) * 2;
			list->rows = list->rows ?
				repalloc_huge(list->rows, sizeof(ItemPointerData) * list->allocated) :
				palloc(sizeof(ItemPointerData) * list->allocated);
		}
		memcpy(list->rows + list->n, rows, sizeof(ItemPointerData) * n);
		list->n += n;
		return;
	}
	for (int i = 0; i < n && list->seen < list->n;)
	{
		int c = ginCompareItemPointers(&list->rows[list->seen], (ItemPointer) &rows[i]);

		if (c == 0)
			list->rows[list->kept++] = list->rows[list->seen];
		list->seen += c <= 0;
		i += c >= 0;
	}
}

/* Reads the leaves of a tree; false: there are too many rows. */
static bool
list_read_tree(RowList *list, Relation index, BlockNumber root)
{
	GinBtreeData   tree;
	GinBtreeStack *leaf = compat_gin_begin_tree(&tree, index, root);
	Buffer		   buffer = leaf->buffer;
	bool		   more = true;

	IncrBufferRefCount(buffer);
	freeGinBtreeStack(leaf);
	while (more)
	{
		Page			page = BufferGetPage(buffer);
		ItemPointerData least;
		ItemPointer		rows;
		int				n;

		if ((GinPageGetOpaque(page)->flags & GIN_DELETED) == 0)
		{
			ItemPointerSetMin(&least);
			rows = GinDataLeafPageGetItems(page, &n, least);
			list_add(list, rows, n);
			if (rows)
				pfree(rows);
		}
		more = !GinPageRightMost(page) && list->n <= LIST_MOST;
		if (more)
			buffer = ginStepRight(buffer, index, GIN_SHARE);
	}
	UnlockReleaseBuffer(buffer);
	return list->n <= LIST_MOST;
}

/*
 * search_lists finds the rows that have all keys that were chosen, in the order of the
 * table.  False: a scan is needed.
 */
bool
search_lists(Relation index, const SearchChosen *chosen, ItemPointerData **found, int64 *nfound)
{
	GinState	*state;
	GinStatsData stats;
	RowList		 list = {0};
	bool		 read = true;

	ginGetStats(index, &stats);
	if (IsolationIsSerializable() || stats.nPendingPages > 0)
		return false;
	state = palloc(sizeof(GinState));
	initGinState(state, index);
	for (int i = 0; i < chosen->n && read && (i == 0 || list.n > 0); i++)
	{
		ItemPointer rows;
		int			n;
		BlockNumber tree = list_find(index, state, chosen->trigrams[i], &rows, &n);

		list.first = i == 0;
		list.seen = list.kept = 0;
		if (tree != InvalidBlockNumber)
			read = list_read_tree(&list, index, tree);
		else
			list_add(&list, rows, n);
		if (rows)
			pfree(rows);
		if (i > 0)
			list.n = list.kept;
	}
	pfree(state);
	*found = list.rows;
	*nfound = list.n;
	if (!read)
		pfree(list.rows);
	return read;
}
