/*
 * lookup.c
 *	  Finds what is stored of a page's records: the hottest place of a pass.
 *
 * This is a scan of the unique index in C and not a query, because there is
 * one right plan for it and the planner cannot know: before the table is
 * analysed it takes the index on (connector, type) for as good, and reads the
 * whole table for every page.
 *
 * The records are sorted as the index is (by bytes, external_id first), and an
 * upstream mostly lists neighbours together.  So the scan walks along the index
 * beside the records, as one merges two lists, and touches the heap only where
 * they meet.  Where the records lie far apart (random ids, or many connectors
 * with the same ids) walking would read what nobody asked for: then the rest of
 * the page is probed key by key.
 *
 * The executor's check of rights is made here by hand.
 */
#include "postgres.h"

#include "compat.h"

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
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "flohsync.h"
#include "lookup.h"

enum
{
	COLUMN_NUM, COLUMN_ID, COLUMN_HASH, COLUMN_STALE, NCOLUMNS
};

static AttrNumber
lookup_column(Oid table, const char *name)
{
	AttrNumber	number = get_attnum(table, name);

	if (number == InvalidAttrNumber)
		elog(ERROR, "resource_record has no column \"%s\"", name);
	return number;
}

typedef struct Lookup
{
	Relation	relation;
	Relation	index;
	Snapshot	snapshot;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	const Record *records;
	int			n;
	Prior	   *prior;
	AttrNumber	columns[NCOLUMNS];
	AttrNumber	last_column;
	text	   *resource_type;
	pg_uuid_t  *connector;
	text	   *key;			/* room for one external_id */
} Lookup;

/* Longer ids are not stored. */
#define LOOKUP_MAX_KEY		(FLOHSYNC_MAX_NAME_CHARS * 4)

/* A walk may take this many steps, and then so many for each record that it passes. */
#define LOOKUP_FREE_STEPS	32
#define LOOKUP_STEPS		4

static Datum
lookup_key(Lookup *l, int i)
{
	const Slice *external_id = &l->records[i].external_id;
	int			len = Min(external_id->len, LOOKUP_MAX_KEY);

	SET_VARSIZE(l->key, VARHDRSZ + len);
	memcpy(VARDATA(l->key), external_id->data, len);
	return PointerGetDatum(l->key);
}

/* Notes the row in the slot as what is stored of a record. */
static void
lookup_found(Lookup *l, int i)
{
	Prior	   *prior = &l->prior[i];
	text	   *hash;

	slot_getsomeattrs(l->slot, l->last_column);
	prior->num = DatumGetInt64(l->slot->tts_values[l->columns[COLUMN_NUM] - 1]);
	prior->id = *DatumGetUUIDP(l->slot->tts_values[l->columns[COLUMN_ID] - 1]);
	hash = DatumGetTextPP(l->slot->tts_values[l->columns[COLUMN_HASH] - 1]);
	if (VARSIZE_ANY_EXHDR(hash) == FLOHSYNC_HASH_HEX)
		memcpy(prior->hash, VARDATA_ANY(hash), FLOHSYNC_HASH_HEX);
	prior->stale = !l->slot->tts_isnull[l->columns[COLUMN_STALE] - 1];
}

static bool
lookup_in_scope(Lookup *l)
{
	bool		isnull;
	Datum		value = index_getattr(l->scan->xs_itup, 2, l->scan->xs_itupdesc, &isnull);
	text	   *type = DatumGetTextPP(value);

	if (VARSIZE_ANY_EXHDR(type) != VARSIZE_ANY_EXHDR(l->resource_type) ||
		memcmp(VARDATA_ANY(type), VARDATA_ANY(l->resource_type), VARSIZE_ANY_EXHDR(type)) != 0)
		return false;
	value = index_getattr(l->scan->xs_itup, 3, l->scan->xs_itupdesc, &isnull);
	return memcmp(DatumGetUUIDP(value), l->connector, UUID_LEN) == 0;
}

/* lookup_walk goes along the index; returns how many records it has settled. */
static int
lookup_walk(Lookup *l)
{
	ScanKeyData from;
	int			i = 0;
	int			steps = 0;

	ScanKeyEntryInitialize(&from, 0, 1, BTGreaterEqualStrategyNumber, InvalidOid,
						   l->index->rd_indcollation[0], F_TEXT_GE, lookup_key(l, 0));
	l->scan = compat_index_beginscan(l->relation, l->index, l->snapshot, 1);
	l->scan->xs_want_itup = true;
	index_rescan(l->scan, &from, 1, NULL, 0);
	while (i < l->n && steps++ < LOOKUP_FREE_STEPS + LOOKUP_STEPS * i)
	{
		text	   *key;
		bool		isnull;
		int			c = -1;

		if (index_getnext_tid(l->scan, ForwardScanDirection) == NULL)
		{
			i = l->n;			/* the end of the index: the rest is not stored */
			break;
		}
		key = DatumGetTextPP(index_getattr(l->scan->xs_itup, 1, l->scan->xs_itupdesc, &isnull));
		while (i < l->n &&
			   (c = page_compare_ids(l->records[i].external_id.data, l->records[i].external_id.len,
									 VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key))) < 0)
			i++;
		/* An entry of an old version of the row is passed over. */
		if (c == 0 && lookup_in_scope(l) && index_fetch_heap(l->scan, l->slot))
			lookup_found(l, i++);
	}
	index_endscan(l->scan);
	return i;
}

/* lookup_probe looks the records from i on up one by one. */
static void
lookup_probe(Lookup *l, int i)
{
	ScanKeyData keys[3];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   l->index->rd_indcollation[0], F_TEXTEQ, (Datum) 0);
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   l->index->rd_indcollation[1], F_TEXTEQ, PointerGetDatum(l->resource_type));
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTEqualStrategyNumber, InvalidOid,
						   InvalidOid, F_UUID_EQ, UUIDPGetDatum(l->connector));
	l->scan = compat_index_beginscan(l->relation, l->index, l->snapshot, 3);
	for (; i < l->n; i++)
	{
		if (l->records[i].external_id.len > LOOKUP_MAX_KEY)
			continue;
		keys[0].sk_argument = lookup_key(l, i);
		index_rescan(l->scan, keys, 3, NULL, 0);
		if (index_getnext_slot(l->scan, ForwardScanDirection, l->slot))
			lookup_found(l, i);
	}
	index_endscan(l->scan);
}

/* lookup_records fills prior for each of n sorted records. */
void
lookup_records(Datum connector, Datum resource_type, const Record *records, int n, Prior *prior)
{
	Oid			schema = get_namespace_oid(FLOHSYNC_SCHEMA, false);
	Oid			table = get_relname_relid("resource_record", schema);
	Oid			key = get_relname_relid("resource_record_key", schema);
	Lookup		l = {.records = records, .n = n, .prior = prior};
	int			settled;

	memset(prior, 0, sizeof(Prior) * n);
	if (!OidIsValid(table) || !OidIsValid(key))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table flohsync.resource_record or its key is missing")));
	if (pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "resource_record");
	l.columns[COLUMN_NUM] = lookup_column(table, "num");
	l.columns[COLUMN_ID] = lookup_column(table, "id");
	l.columns[COLUMN_HASH] = lookup_column(table, "sync_hash");
	l.columns[COLUMN_STALE] = lookup_column(table, "stale_since");
	for (int i = 0; i < NCOLUMNS; i++)
		l.last_column = Max(l.last_column, l.columns[i]);
	l.resource_type = DatumGetTextPP(resource_type);
	l.connector = DatumGetUUIDP(connector);
	l.key = palloc(VARHDRSZ + LOOKUP_MAX_KEY);

	l.relation = table_open(table, AccessShareLock);
	l.index = index_open(key, AccessShareLock);
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	l.snapshot = RegisterSnapshot(GetTransactionSnapshot());
	l.slot = table_slot_create(l.relation, NULL);
	settled = n > 1 ? lookup_walk(&l) : 0;
	if (settled < n)
		lookup_probe(&l, settled);
	ExecDropSingleTupleTableSlot(l.slot);
	UnregisterSnapshot(l.snapshot);
	index_close(l.index, AccessShareLock);
	table_close(l.relation, AccessShareLock);
	pfree(l.key);
}
