/*
 * lookup.c
 *	  Looks up the stored rows of a page's records: the hottest code of a pass.
 *
 * These are scans in C and not a query, because there is one right plan that the
 * planner cannot know: before the table has been analyzed it considers the
 * index on (connector, type) equally good, and reads the complete table for every
 * page.
 *
 * Three methods, each for the records that the previous one has left:
 * - Records that an upstream lists together were mostly stored together.  So
 *   one of them is looked up in the index, and its neighbours are read directly
 *   from the table: no descent, no cold index page, whatever the ids look like.
 * - Missing records that are close together in key order are found by walking
 *   along the index in step with the (sorted) records, as in a merge.
 * - The rest is probed key by key.
 *
 * Each of the first two stops when it reads more than it finds.  All three use
 * one snapshot, in which a key has at most one visible row: it does not matter
 * which of them finds it.
 *
 * Privileges, which the executor would check, are checked here.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/bytes.h"
#include "base/db.h"
#include "base/flohsync.h"
#include "record/lookup.h"
#include "record/write.h"

enum
{
	COLUMN_NUM,
	COLUMN_ID,
	COLUMN_CONNECTOR,
	COLUMN_HASH,
	COLUMN_STALE,
	COLUMN_TYPE,
	COLUMN_EXTERNAL_ID,
	NCOLUMNS
};

static const char *const lookup_column_names[NCOLUMNS] = {
	"record_no", "id", "connector_id", "sync_hash", "stale_since", "resource_type", "external_id"};

static AttrNumber
lookup_column(Oid table, const char *name)
{
	AttrNumber number = get_attnum(table, name);

	if (number == InvalidAttrNumber)
		elog(ERROR, "resource_record has no column \"%s\"", name);
	return number;
}

typedef struct Lookup
{
	Relation		relation;
	Relation		index;
	Snapshot		snapshot;
	IndexScanDesc	probes; /* NULL until the first one */
	TupleTableSlot *slot;
	const Record   *records;
	int				n;
	ExistingRow	   *prior;
	int				nopen; /* records that were not found so far */
	AttrNumber		columns[NCOLUMNS];
	AttrNumber		last_column; /* of those a row is read for */
	text		   *resource_type;
	pg_uuid_t	   *connector;
	text		   *key; /* room for one external_id */
} Lookup;

/* Longer ids are not stored. */
#define LOOKUP_MAX_KEY (FLOHSYNC_MAX_NAME_CHARS * 4)

/*
 * So many consecutive rows that are not wanted end a stretch of neighbours; so
 * many in all, and one for each that was wanted, end the search.
 */
#define LOOKUP_STRETCH_MISSES 48
#define LOOKUP_FREE_MISSES	  128
#define LOOKUP_ANCHORS		  4 /* records that are not found, before the neighbours are given up */

/* Fewer records are mostly not neighbours: they are what was left of a page (page/known.c). */
#define LOOKUP_MANY 16

/* A walk may take this many steps, and then so many for each record that it passes. */
#define LOOKUP_FREE_STEPS 32
#define LOOKUP_STEPS	  4

/* Fewer records than this share of a page are not worth a walk. */
#define LOOKUP_WALK_SHARE 8

static Datum
lookup_key(Lookup *l, int i)
{
	const Slice *external_id = &l->records[i].external_id;
	int			 len = Min(external_id->len, LOOKUP_MAX_KEY);

	SET_VARSIZE(l->key, VARHDRSZ + len);
	memcpy(VARDATA(l->key), external_id->data, len);
	return PointerGetDatum(l->key);
}

static Datum
lookup_value(Lookup *l, int column)
{
	return l->slot->tts_values[l->columns[column] - 1];
}

/* Notes the row in the slot as what is stored of a record. */
static void
lookup_found(Lookup *l, int i)
{
	ExistingRow *prior = &l->prior[i];
	text		*hash;

	slot_getsomeattrs(l->slot, l->last_column);
	if (prior->num == 0)
		l->nopen--;
	prior->num = DatumGetInt64(lookup_value(l, COLUMN_NUM));
	prior->id = *DatumGetUUIDP(lookup_value(l, COLUMN_ID));
	hash = DatumGetTextPP(lookup_value(l, COLUMN_HASH));
	if (VARSIZE_ANY_EXHDR(hash) == FLOHSYNC_HASH_HEX)
		memcpy(prior->hash, VARDATA_ANY(hash), FLOHSYNC_HASH_HEX);
	prior->stale = !l->slot->tts_isnull[l->columns[COLUMN_STALE] - 1];
	prior->tid = l->slot->tts_tid;
}

static bool
lookup_same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* lookup_seek puts the row of one record into the slot; tombstones have the same key. */
static bool
lookup_seek(Lookup *l, int i)
{
	ScanKeyData keys[3];

	if (l->records[i].external_id.len > LOOKUP_MAX_KEY)
		return false;
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   l->index->rd_indcollation[0], F_TEXTEQ, lookup_key(l, i));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   l->index->rd_indcollation[1], F_TEXTEQ,
						   PointerGetDatum(l->resource_type));
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTEqualStrategyNumber, InvalidOid, InvalidOid, F_UUID_EQ,
						   UUIDPGetDatum(l->connector));
	if (l->probes == NULL)
		l->probes = compat_index_beginscan(l->relation, l->index, l->snapshot, 3);
	index_rescan(l->probes, keys, 3, NULL, 0);
	return index_getnext_slot(l->probes, ForwardScanDirection, l->slot);
}

/* lookup_probe looks one record up in the index. */
static bool
lookup_probe(Lookup *l, int i)
{
	if (!lookup_seek(l, i))
		return false;
	lookup_found(l, i);
	return true;
}

/* The record of the row in the slot: the one that is expected, or another; -1: none. */
static int
lookup_record_of_row(Lookup *l, int expected)
{
	const text *key;
	int			len;
	int			i = expected;

	slot_getsomeattrs(l->slot, l->last_column);
	key = DatumGetTextPP(lookup_value(l, COLUMN_EXTERNAL_ID));
	len = VARSIZE_ANY_EXHDR(key);
	if (i >= l->n ||
		page_compare_ids(l->records[i].external_id.data, l->records[i].external_id.len,
						 VARDATA_ANY(key), len) != 0)
		i = page_find_id(l->records, l->n, VARDATA_ANY(key), len);
	if (i < 0 ||
		memcmp(DatumGetUUIDP(lookup_value(l, COLUMN_CONNECTOR)), l->connector, UUID_LEN) != 0 ||
		!lookup_same_text(DatumGetTextPP(lookup_value(l, COLUMN_TYPE)), l->resource_type))
		return -1;
	return i;
}

/*
 * lookup_neighbours looks one record up and reads on from its row as long as
 * wanted rows follow; then the next one.  A page's records are stored in the
 * order that they have here, so mostly the next row is the next record's.
 */
static void
lookup_neighbours(Lookup *l)
{
	int			  next = 0;
	int			  misses = 0;
	int			  failed = 0;
	TableScanDesc scan = NULL;

	while (failed < LOOKUP_ANCHORS && misses < LOOKUP_FREE_MISSES + (l->n - l->nopen))
	{
		ItemPointerData from;
		ItemPointerData to;
		int				in_a_row = 0;
		int				expected;

		while (next < l->n && l->prior[next].num != 0)
			next++;
		if (next == l->n)
			break;
		if (!lookup_probe(l, next++))
		{
			failed++;
			continue;
		}
		expected = next;
		from = l->slot->tts_tid;
		ItemPointerSet(&to, MaxBlockNumber, MaxOffsetNumber);
		if (scan == NULL)
			scan = table_beginscan_tidrange(l->relation, l->snapshot, &from, &to);
		else
			table_rescan_tidrange(scan, &from, &to);
		while (l->nopen > 0 && in_a_row < LOOKUP_STRETCH_MISSES &&
			   table_scan_getnextslot_tidrange(scan, ForwardScanDirection, l->slot))
		{
			int i = lookup_record_of_row(l, expected);

			/* A row that is known already counts as not wanted. */
			if (i < 0 || l->prior[i].num != 0)
			{
				in_a_row++;
				misses++;
				continue;
			}
			in_a_row = 0;
			lookup_found(l, i);
			expected = i + 1;
		}
		ExecClearTuple(l->slot);
	}
	if (scan)
		table_endscan(scan);
}

static bool
lookup_in_scope(Lookup *l, IndexScanDesc scan)
{
	bool isnull;

	return lookup_same_text(DatumGetTextPP(
								index_getattr(scan->xs_itup, 2, scan->xs_itupdesc, &isnull)),
							l->resource_type) &&
		memcmp(DatumGetUUIDP(index_getattr(scan->xs_itup, 3, scan->xs_itupdesc, &isnull)),
			   l->connector, UUID_LEN) == 0;
}

/* lookup_walk goes along the index; returns the first record that it has not come to. */
static int
lookup_walk(Lookup *l)
{
	IndexScanDesc scan = compat_index_beginscan(l->relation, l->index, l->snapshot, 1);
	ScanKeyData	  from;
	int			  i = 0;
	int			  steps = 0;

	while (l->prior[i].num != 0)
		i++;
	ScanKeyEntryInitialize(&from, 0, 1, BTGreaterEqualStrategyNumber, InvalidOid,
						   l->index->rd_indcollation[0], F_TEXT_GE, lookup_key(l, i));
	scan->xs_want_itup = true;
	index_rescan(scan, &from, 1, NULL, 0);
	while (i < l->n && steps++ < LOOKUP_FREE_STEPS + LOOKUP_STEPS * i)
	{
		text *key;
		bool  isnull;
		int	  c = -1;

		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
		{
			i = l->n; /* the end of the index: the rest is not stored */
			break;
		}
		key = DatumGetTextPP(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
		while (i < l->n &&
			   (l->prior[i].num != 0 ||
				(c = page_compare_ids(l->records[i].external_id.data, l->records[i].external_id.len,
									  VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key))) < 0))
			i++;
		/* An entry of an old version of the row is passed over. */
		if (i < l->n && c == 0 && lookup_in_scope(l, scan) && index_fetch_heap(scan, l->slot))
			lookup_found(l, i++);
	}
	index_endscan(scan);
	return i;
}

/*
 * lookup_deleted finds those of some records, given by their places, against
 * which a tombstone stands, as committed by now: also in a transaction that
 * looks at everything else with an older snapshot.
 */
int
lookup_deleted(Datum connector, Datum resource_type, const Record *records, const int *which, int n,
			   TimestampTz observed_at, TimestampTz event_at, int *deleted)
{
	Oid		   schema = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false);
	Oid		   table = get_relname_relid("resource_tombstone", schema);
	Oid		   key = get_relname_relid("resource_tombstone_pkey", schema);
	Lookup	   l = {.records = records, .n = n};
	AttrNumber deleted_at;
	AttrNumber event;
	int		   found = 0;

	if (!OidIsValid(table) || !OidIsValid(key))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table _flohsync.resource_tombstone or its key is missing")));
	if (pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "resource_tombstone");
	l.relation = table_open(table, AccessShareLock);
	/* Mostly there has never been one. */
	if (RelationGetNumberOfBlocks(l.relation) > 0)
	{
		deleted_at = lookup_column(table, "deleted_at");
		event = lookup_column(table, "event_at");
		l.resource_type = DatumGetTextPP(resource_type);
		l.connector = DatumGetUUIDP(connector);
		l.key = palloc(VARHDRSZ + LOOKUP_MAX_KEY);
		l.index = index_open(key, AccessShareLock);
		l.snapshot = RegisterSnapshot(GetLatestSnapshot());
		l.slot = table_slot_create(l.relation, NULL);
		for (int k = 0; k < n; k++)
		{
			TimestampTz at;
			TimestampTz happened_at;
			bool		isnull;

			if (!lookup_seek(&l, which[k]))
				continue;
			at = DatumGetTimestampTz(slot_getattr(l.slot, deleted_at, &isnull));
			happened_at = DatumGetTimestampTz(slot_getattr(l.slot, event, &isnull));
			if (isnull)
				happened_at = DT_NOBEGIN;
			if (record_tombstone_stands(at, happened_at, observed_at, event_at,
										GetCurrentTimestamp()))
				deleted[found++] = which[k];
		}
		if (l.probes)
			index_endscan(l.probes);
		ExecDropSingleTupleTableSlot(l.slot);
		UnregisterSnapshot(l.snapshot);
		index_close(l.index, AccessShareLock);
		pfree(l.key);
	}
	table_close(l.relation, AccessShareLock);
	return found;
}

/* lookup_records fills prior for each of n sorted records. */
void
lookup_records(Datum connector, Datum resource_type, const Record *records, int n,
			   ExistingRow *prior)
{
	Oid	   schema = get_namespace_oid(FLOHSYNC_SCHEMA, false);
	Oid	   table = get_relname_relid("resource_record", schema);
	Oid	   key = get_relname_relid("resource_record_key", schema);
	Lookup l = {.records = records, .n = n, .prior = prior, .nopen = n};
	int	   from = 0;

	memset(prior, 0, sizeof(ExistingRow) * n);
	if (!OidIsValid(table) || !OidIsValid(key))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table flohsync.resource_record or its key is missing")));
	if (pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "resource_record");
	for (int i = 0; i < NCOLUMNS; i++)
	{
		l.columns[i] = lookup_column(table, lookup_column_names[i]);
		l.last_column = Max(l.last_column, l.columns[i]);
	}
	l.resource_type = DatumGetTextPP(resource_type);
	l.connector = DatumGetUUIDP(connector);
	l.key = palloc(VARHDRSZ + LOOKUP_MAX_KEY);

	l.relation = table_open(table, AccessShareLock);
	l.index = index_open(key, AccessShareLock);
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	l.snapshot = RegisterSnapshot(GetTransactionSnapshot());
	l.slot = table_slot_create(l.relation, NULL);

	/* A range of the table takes no predicate locks. */
	if (n >= LOOKUP_MANY && !IsolationIsSerializable() &&
		l.relation->rd_tableam->scan_set_tidrange != NULL)
		lookup_neighbours(&l);
	if (n >= LOOKUP_MANY && l.nopen >= n / LOOKUP_WALK_SHARE)
		from = lookup_walk(&l);
	for (int i = from; i < n && l.nopen > 0; i++)
		if (prior[i].num == 0)
			(void) lookup_probe(&l, i);

	if (l.probes)
		index_endscan(l.probes);
	ExecDropSingleTupleTableSlot(l.slot);
	UnregisterSnapshot(l.snapshot);
	index_close(l.index, AccessShareLock);
	table_close(l.relation, AccessShareLock);
	pfree(l.key);
}

/*
 * lookup_synced_groups: of a list of ids, those of groups that are here and not stale; in
 * SPI_tuptable.
 */
void
lookup_synced_groups(Datum connector, Datum ids)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text from flohsync.resource_record r where"
		" r.connector_id = $1"
		" and r.resource_type = 'group' and r.external_id = any ($2) and r.stale_since is null"
		" order by r.external_id",
		2,
		{UUIDOID, TEXTARRAYOID},
		.plan_as = PLAN_CUSTOM};
	Datum v[2] = {connector, ids};

	db_execute(&query, v, NULL);
}
