/*
 * lookup.c
 *	  Finds what is stored of a page's records: the hottest place of a pass.
 *
 * This is a scan of the unique index in C and not a query, because there is
 * one right plan for it and the planner cannot know: before the table is
 * analysed it takes the index on (connector, type) for as good, and reads the
 * whole table for every page.  Rows come one per key, in the order of the
 * records.
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

/* lookup_records fills prior for each of n records. */
void
lookup_records(Datum connector, Datum resource_type, const Record *records, int n, Prior *prior)
{
	Oid			schema = get_namespace_oid(FLOHSYNC_SCHEMA, false);
	Oid			table = get_relname_relid("resource_record", schema);
	Oid			key = get_relname_relid("resource_record_key", schema);
	AttrNumber	columns[NCOLUMNS];
	AttrNumber	last = 0;
	Relation	relation;
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData keys[3];
	TupleTableSlot *slot;
	Snapshot	snapshot;
	text	   *id = palloc(VARHDRSZ + FLOHSYNC_MAX_NAME_CHARS * 4);

	memset(prior, 0, sizeof(Prior) * n);
	if (!OidIsValid(table) || !OidIsValid(key))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table flohsync.resource_record or its key is missing")));
	if (pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "resource_record");
	columns[COLUMN_NUM] = lookup_column(table, "num");
	columns[COLUMN_ID] = lookup_column(table, "id");
	columns[COLUMN_HASH] = lookup_column(table, "sync_hash");
	columns[COLUMN_STALE] = lookup_column(table, "stale_since");
	for (int i = 0; i < NCOLUMNS; i++)
		last = Max(last, columns[i]);

	relation = table_open(table, AccessShareLock);
	index = index_open(key, AccessShareLock);
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	slot = table_slot_create(relation, NULL);
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], F_TEXTEQ, (Datum) 0);
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[1], F_TEXTEQ, resource_type);
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTEqualStrategyNumber, InvalidOid,
						   InvalidOid, F_UUID_EQ, connector);
	scan = compat_index_beginscan(relation, index, snapshot, 3);
	for (int i = 0; i < n; i++)
	{
		const Slice *external_id = &records[i].external_id;

		if (external_id->len > FLOHSYNC_MAX_NAME_CHARS * 4)
			continue;
		SET_VARSIZE(id, VARHDRSZ + external_id->len);
		memcpy(VARDATA(id), external_id->data, external_id->len);
		keys[0].sk_argument = PointerGetDatum(id);
		index_rescan(scan, keys, 3, NULL, 0);
		if (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			text	   *hash;

			slot_getsomeattrs(slot, last);
			prior[i].num = DatumGetInt64(slot->tts_values[columns[COLUMN_NUM] - 1]);
			prior[i].id = *DatumGetUUIDP(slot->tts_values[columns[COLUMN_ID] - 1]);
			hash = DatumGetTextPP(slot->tts_values[columns[COLUMN_HASH] - 1]);
			if (VARSIZE_ANY_EXHDR(hash) == FLOHSYNC_HASH_HEX)
				memcpy(prior[i].hash, VARDATA_ANY(hash), FLOHSYNC_HASH_HEX);
			prior[i].stale = !slot->tts_isnull[columns[COLUMN_STALE] - 1];
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
	pfree(id);
}
