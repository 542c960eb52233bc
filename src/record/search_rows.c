/*
 * search_rows.c
 *	  The rows that a search reads, and the ways to come to them.
 *
 * There are four: a sample of the table; the rows in the order of the list, by its
 * index; all rows of the table; those that the index of enable_search() names
 * (search_candidates.c).
 * They are scans in C and not queries: which one pays is known only when another
 * one has been begun (search_page.c), and what a row costs is what a search costs.
 *
 * Privileges, which the executor would check, are checked here.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/flohsync.h"
#include "record/search_rows.h"

/* So many blocks are a sample. */
#define SEARCH_SAMPLE_BLOCKS 384

/* So many blocks with so many hits are enough. */
#define SEARCH_SAMPLE_LEAST 64
#define SEARCH_SAMPLE_HITS	500

/* From part to part; a prime above their number, so that each comes once. */
#define SEARCH_SAMPLE_STRIDE 389

static const char *const search_columns[2][SEARCH_NCOLUMNS] = {
	{"connector_id", "resource_type", "external_id", "email", "display_name", "stale_since"},
	{"connector_id", "resource_type", "external_id", "external_email", "external_display_name",
	 "match_status"},
};

static Relation
search_open(const char *name, bool index)
{
	Oid oid = get_relname_relid(name, get_namespace_oid(FLOHSYNC_SCHEMA, false));

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" is missing", FLOHSYNC_SCHEMA, name)));
	if (index)
		return index_open(oid, AccessShareLock);
	if (pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, name);
	return table_open(oid, AccessShareLock);
}

static AttrNumber
search_column(Relation table, const char *name)
{
	AttrNumber number = get_attnum(RelationGetRelid(table), name);

	if (number == InvalidAttrNumber)
		elog(ERROR, "%s has no column \"%s\"", RelationGetRelationName(table), name);
	return number;
}

void
search_rows_open(SearchRows *rows, const SearchAsk *ask)
{
	memset(rows, 0, sizeof(*rows));
	rows->ask = ask;
	rows->table = search_open(ask->matches ? "connector_sync_match" : "resource_record", false);
	for (int i = 0; i < SEARCH_NCOLUMNS; i++)
		rows->columns[i] = search_column(rows->table, search_columns[ask->matches][i]);
	rows->snapshot = GetActiveSnapshot();
	rows->slot = table_slot_create(rows->table, NULL);
	rows->memory = CurrentMemoryContext;
	rows->row_memory = AllocSetContextCreate(rows->memory, "flohsync search row",
											 ALLOCSET_SMALL_SIZES);
	if (ask->matches && ask->stale != SEARCH_ANY)
	{
		rows->records = search_open("resource_record", false);
		rows->records_stale = search_open("resource_record_stale_list", true);
		rows->record_probe = compat_index_beginscan(rows->records, rows->records_stale,
													rows->snapshot, 3);
		rows->record_slot = table_slot_create(rows->records, NULL);
	}
}

void
search_rows_close(SearchRows *rows)
{
	if (rows->records)
	{
		index_endscan(rows->record_probe);
		ExecDropSingleTupleTableSlot(rows->record_slot);
		index_close(rows->records_stale, NoLock);
		table_close(rows->records, NoLock);
	}
	ExecDropSingleTupleTableSlot(rows->slot);
	MemoryContextDelete(rows->row_memory);
	/* The locks stay until the end of the transaction, as those of a query do. */
	table_close(rows->table, NoLock);
}

static int
search_compare(const text *a, const text *b)
{
	int la = VARSIZE_ANY_EXHDR(a);
	int lb = VARSIZE_ANY_EXHDR(b);
	int c = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(la, lb));

	return c != 0 ? c : la - lb;
}

static Datum
search_value(SearchRows *rows, TupleTableSlot *slot, int column, bool *isnull)
{
	return slot_getattr(slot, rows->columns[column], isnull);
}

/* The id of a row, which goes with it. */
text *
search_row_id(SearchRows *rows, TupleTableSlot *slot)
{
	bool isnull;

	return DatumGetTextPP(search_value(rows, slot, SEARCH_EXTERNAL_ID, &isnull));
}

/* Has a row the status that is asked for, or is it stale or not? */
static bool
search_row_state(SearchRows *rows, TupleTableSlot *slot)
{
	const SearchAsk *ask = rows->ask;
	bool			 isnull;
	Datum			 value;

	if (ask->matches ? ask->status == NULL : ask->stale == SEARCH_ANY)
		return true;
	value = search_value(rows, slot, SEARCH_STATE, &isnull);
	if (ask->matches)
		return search_compare(DatumGetTextPP(value), ask->status) == 0;
	return isnull == (ask->stale == SEARCH_LIVE);
}

/* The type of a row of the list, as its place in types; -1 for another row. */
static int
search_row_type(SearchRows *rows, TupleTableSlot *slot)
{
	const SearchAsk *ask = rows->ask;
	bool			 isnull;
	text			*type;
	int				 low = 0;
	int				 high = ask->ntypes;

	if (memcmp(DatumGetUUIDP(search_value(rows, slot, SEARCH_CONNECTOR, &isnull)), ask->connector,
			   UUID_LEN) != 0)
		return -1;
	type = DatumGetTextPP(search_value(rows, slot, SEARCH_TYPE, &isnull));
	while (low < high)
	{
		int middle = (low + high) / 2;
		int c = search_compare(type, ask->types[middle]);

		if (c == 0)
			return search_row_state(rows, slot) ? middle : -1;
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -1;
}

/* Begins a scan of an index on connector, type and id with one row. */
static void
search_probe(IndexScanDesc scan, Relation index, Datum connector, Datum type, Datum external_id)
{
	ScanKeyData keys[3];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, InvalidOid, F_UUID_EQ,
						   connector);
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[1], F_TEXTEQ, type);
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[2], F_TEXTEQ, external_id);
	index_rescan(scan, keys, 3, NULL, 0);
}

static bool
search_row_text(SearchRows *rows, TupleTableSlot *slot)
{
	const text *texts[SEARCH_NAME - SEARCH_EXTERNAL_ID + 1];
	int			n = 0;

	for (int column = SEARCH_EXTERNAL_ID; column <= SEARCH_NAME; column++)
	{
		bool  isnull;
		Datum value = search_value(rows, slot, column, &isnull);

		if (!isnull)
			texts[n++] = DatumGetTextPP(value);
	}
	return search_in_any(texts, n, rows->ask->needle);
}

/* Is the record of a match as stale as is asked for?  Few are, and have an index of their own. */
static bool
search_row_record(SearchRows *rows, TupleTableSlot *slot)
{
	MemoryContext old;
	bool		  isnull;
	bool		  stale;

	if (rows->records == NULL)
		return true;
	old = MemoryContextSwitchTo(rows->memory);
	if (rows->stale_scan)
	{
		if (rows->stale_known < 0)
			rows->stale_known = index_fetch_heap(rows->stale_scan, rows->record_slot);
		MemoryContextSwitchTo(old);
		return rows->stale_known;
	}
	search_probe(rows->record_probe, rows->records_stale,
				 search_value(rows, slot, SEARCH_CONNECTOR, &isnull),
				 search_value(rows, slot, SEARCH_TYPE, &isnull),
				 search_value(rows, slot, SEARCH_EXTERNAL_ID, &isnull));
	stale = index_getnext_slot(rows->record_probe, ForwardScanDirection, rows->record_slot);
	MemoryContextSwitchTo(old);
	return stale == (rows->ask->stale == SEARCH_STALE);
}

/* Is a row that is visited one that is searched for? */
bool
search_row_found(SearchRows *rows, TupleTableSlot *slot)
{
	return search_row_text(rows, slot) && search_row_record(rows, slot);
}

/* search_tell visits a row, if it is one of the list; type: -1 if it is not known. */
bool
search_tell(SearchRows *rows, TupleTableSlot *slot, int type, SearchVisit visit, void *state)
{
	MemoryContext old = MemoryContextSwitchTo(rows->row_memory);
	bool		  more = true;

	if (type < 0)
		type = search_row_type(rows, slot);
	else if (!search_row_state(rows, slot))
		type = -1;
	if (type >= 0)
		more = visit(rows, slot, type, state);
	MemoryContextSwitchTo(old);
	MemoryContextReset(rows->row_memory);
	return more;
}

/*
 * search_sample reads some blocks of the table: one of each of as many equal parts,
 * in an order that is none, and fewer when it has seen enough.  They are always the
 * same of the same table, so that all pages of a list are told the same.
 */
void
search_sample(SearchRows *rows, SearchSample *sample)
{
	BlockNumber	  nblocks = RelationGetNumberOfBlocks(rows->table);
	uint32		  parts = Min(nblocks, SEARCH_SAMPLE_BLOCKS);
	TableScanDesc scan = NULL;

	memset(sample, 0, sizeof(*sample));
	if (rows->table->rd_tableam->scan_set_tidrange == NULL)
		return;
	for (uint32 i = 0; i < parts && (i < SEARCH_SAMPLE_LEAST || sample->hits < SEARCH_SAMPLE_HITS);
		 i++)
	{
		uint64			part = i * SEARCH_SAMPLE_STRIDE % parts;
		BlockNumber		from = nblocks * part / parts;
		BlockNumber		to = nblocks * (part + 1) / parts;
		BlockNumber		block = from + murmurhash32(part) % (to - from);
		int64			hits = sample->hits;
		ItemPointerData first;
		ItemPointerData last;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSet(&first, block, FirstOffsetNumber);
		ItemPointerSet(&last, block, MaxOffsetNumber);
		if (scan == NULL)
			scan = table_beginscan_tidrange(rows->table, rows->snapshot, &first, &last);
		else
			table_rescan_tidrange(scan, &first, &last);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, rows->slot))
		{
			MemoryContext old = MemoryContextSwitchTo(rows->row_memory);
			bool		  in_list = search_row_type(rows, rows->slot) >= 0;

			sample->rows += in_list;
			if (search_row_text(rows, rows->slot))
			{
				sample->all_hits++;
				sample->hits += in_list && search_row_record(rows, rows->slot);
			}
			MemoryContextSwitchTo(old);
			MemoryContextReset(rows->row_memory);
			sample->all_rows++;
		}
		sample->blocks_with_hits += sample->hits > hits;
		sample->squares += (double) (sample->hits - hits) * (sample->hits - hits);
		sample->blocks = i + 1;
	}
	sample->table_blocks = nblocks;
	ExecClearTuple(rows->slot);
	if (scan)
		table_endscan(scan);
}

/* The rows of one type, in the order of their ids. */
typedef struct SearchStretch
{
	IndexScanDesc	scan;
	TupleTableSlot *slot;
	text		   *id; /* of the row in the slot; NULL: no more */
	bool			id_is_copy;
} SearchStretch;

static void
search_stretch_next(SearchRows *rows, SearchStretch *stretch)
{
	bool  isnull;
	Datum value;

	if (stretch->id_is_copy)
		pfree(stretch->id);
	stretch->id = NULL;
	stretch->id_is_copy = false;
	if (!index_getnext_slot(stretch->scan, ForwardScanDirection, stretch->slot))
		return;
	value = search_value(rows, stretch->slot, SEARCH_EXTERNAL_ID, &isnull);
	stretch->id = DatumGetTextPP(value);
	stretch->id_is_copy = (Pointer) stretch->id != DatumGetPointer(value);
}

static void
search_stretch_begin(SearchRows *rows, SearchStretch *stretch, Relation index, int type,
					 bool with_status, bool from_after)
{
	const SearchAsk *ask = rows->ask;
	ScanKeyData		 keys[4];
	int				 n = 0;

	ScanKeyEntryInitialize(&keys[n], 0, 1, BTEqualStrategyNumber, InvalidOid, InvalidOid, F_UUID_EQ,
						   UUIDPGetDatum(ask->connector));
	n++;
	ScanKeyEntryInitialize(&keys[n], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[n], F_TEXTEQ, PointerGetDatum(ask->types[type]));
	n++;
	if (with_status)
	{
		ScanKeyEntryInitialize(&keys[n], 0, 3, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[n], F_TEXTEQ, PointerGetDatum(ask->status));
		n++;
	}
	if (from_after && ask->after_id)
	{
		/* Of the types behind it the same id follows. */
		bool same = search_compare(ask->types[type], ask->after_type) > 0;

		ScanKeyEntryInitialize(&keys[n], 0, n + 1,
							   same ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber,
							   InvalidOid, index->rd_indcollation[n], same ? F_TEXT_GE : F_TEXT_GT,
							   PointerGetDatum(ask->after_id));
		n++;
	}
	stretch->scan = compat_index_beginscan(rows->table, index, rows->snapshot, n);
	stretch->slot = table_slot_create(rows->table, NULL);
	stretch->id = NULL;
	stretch->id_is_copy = false;
	index_rescan(stretch->scan, keys, n, NULL, 0);
	search_stretch_next(rows, stretch);
}

/* search_walk_stale visits the matches of stale records, of one type, in the order of the list. */
bool
search_walk_stale(SearchRows *rows, SearchVisit visit, void *state)
{
	const SearchAsk *ask = rows->ask;
	Relation		 index = search_open("connector_sync_match_list", true);
	IndexScanDesc	 probe = compat_index_beginscan(rows->table, index, rows->snapshot, 3);
	IndexScanDesc stale = compat_index_beginscan(rows->records, rows->records_stale, rows->snapshot,
												 2);
	ScanKeyData	  keys[2];
	bool		  more = true;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, InvalidOid, F_UUID_EQ,
						   UUIDPGetDatum(ask->connector));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   rows->records_stale->rd_indcollation[1], F_TEXTEQ,
						   PointerGetDatum(ask->types[0]));
	stale->xs_want_itup = true;
	index_rescan(stale, keys, 2, NULL, 0);
	rows->stale_scan = stale;
	while (more && index_getnext_tid(stale, ForwardScanDirection) != NULL)
	{
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		rows->stale_known = -1;
		search_probe(probe, index, UUIDPGetDatum(ask->connector), PointerGetDatum(ask->types[0]),
					 index_getattr(stale->xs_itup, 3, stale->xs_itupdesc, &isnull));
		while (more && index_getnext_slot(probe, ForwardScanDirection, rows->slot))
			more = search_tell(rows, rows->slot, 0, visit, state);
	}
	rows->stale_scan = NULL;
	ExecClearTuple(rows->record_slot);
	ExecClearTuple(rows->slot);
	index_endscan(probe);
	index_endscan(stale);
	index_close(index, NoLock);
	return more;
}

/*
 * search_walk visits the rows in the order of the list, from its beginning or from
 * where the page begins; true: to the end.
 */
bool
search_walk(SearchRows *rows, bool from_after, SearchVisit visit, void *state)
{
	const SearchAsk *ask = rows->ask;
	/* An index has the matches of each status, but for the one that most have. */
	bool with_status = ask->status && search_compare(ask->status, cstring_to_text("matched")) != 0;
	const char	  *name;
	Relation	   index;
	SearchStretch *stretches;
	bool		   ended = false;

	if (ask->matches)
		name = with_status ? "connector_sync_match_review" : "connector_sync_match_list";
	else
		name = ask->stale == SEARCH_STALE ? "resource_record_stale_list" : "resource_record_list";
	index = search_open(name, true);
	stretches = palloc(sizeof(SearchStretch) * Max(ask->ntypes, 1));
	for (int i = 0; i < ask->ntypes; i++)
		search_stretch_begin(rows, &stretches[i], index, i, with_status, from_after);
	for (;;)
	{
		SearchStretch *first = NULL;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < ask->ntypes; i++)
			if (stretches[i].id &&
				(first == NULL || search_compare(stretches[i].id, first->id) < 0))
				first = &stretches[i];
		if (first == NULL)
		{
			ended = true;
			break;
		}
		if (!search_tell(rows, first->slot, first - stretches, visit, state))
			break;
		search_stretch_next(rows, first);
	}
	for (int i = 0; i < ask->ntypes; i++)
	{
		index_endscan(stretches[i].scan);
		ExecDropSingleTupleTableSlot(stretches[i].slot);
	}
	pfree(stretches);
	index_close(index, NoLock);
	return ended;
}

/* search_all visits all rows of the list, in the order of the table. */
void
search_all(SearchRows *rows, SearchVisit visit, void *state)
{
	TableScanDesc scan = table_beginscan(rows->table, rows->snapshot, 0, NULL);
	bool		  more = true;

	while (more && table_scan_getnextslot(scan, ForwardScanDirection, rows->slot))
	{
		CHECK_FOR_INTERRUPTS();
		more = search_tell(rows, rows->slot, -1, visit, state);
	}
	ExecClearTuple(rows->slot);
	table_endscan(scan);
}
