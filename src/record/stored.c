/*
 * stored.c
 *	  One stored record: found, locked and read, as a statement would do it, but without one.
 *	  SPI must be connected.
 *
 * To start and end the executor takes several times as long as to read or write a row.
 *
 * It is done only to a table that has nothing but what the extension made, except for indexes
 * (stored_possible), for the workers' role with rights on the table, and in a transaction that
 * sees what others commit.  For all else there are the statements of statements.c.
 *
 * The row is locked as by FOR NO KEY UPDATE from before it is read until the end of the
 * transaction.  So it is still the same when it is written (stored_write.c).
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "base/look.h"
#include "record/statements.h"
#include "record/stored.h"
#include "record/stored_private.h"

/* What is known of the table until it is changed. */
static bool stored_known = false;
static bool stored_plain; /* it has nothing but what the extension made */
static Oid	stored_key;
Oid			stored_table = InvalidOid;
RowColumns	stored_columns;

static void
stored_table_changed(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || relation == stored_table || relation == stored_key)
		stored_known = false;
}

/* Has a trigger nothing to do when a record stays live? */
static bool
stored_trigger_is_idle(const Trigger *trigger)
{
	static const char *const ours[] = {"tally_row", "tally_statement", "records_written_by_hand"};
	char					*function;

	if (!TRIGGER_FOR_UPDATE(trigger->tgtype))
		return true;
	/* Of a foreign key: no key changes. */
	if (RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_NONE)
		return !trigger->tgdeferrable;
	if (!TRIGGER_FOR_AFTER(trigger->tgtype) ||
		get_func_namespace(trigger->tgfoid) != get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false))
		return false;
	function = get_func_name(trigger->tgfoid);
	for (size_t i = 0; function != NULL && i < lengthof(ours); i++)
		if (strcmp(function, ours[i]) == 0)
			return true;
	return false;
}

static bool
stored_is_plain(Relation table)
{
	Form_pg_class	   form = table->rd_rel;
	TupleConstr		  *constraints = RelationGetDescr(table)->constr;
	const TriggerDesc *triggers = table->trigdesc;

	if (form->relkind != RELKIND_RELATION || form->relam != HEAP_TABLE_AM_OID ||
		form->relispartition || form->relrowsecurity || table->rd_rules != NULL ||
		(constraints != NULL && constraints->num_check > 0) ||
		!row_find_columns(table, stored_columns))
		return false;
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (!stored_trigger_is_idle(&triggers->triggers[i]))
			return false;
	return true;
}

static void
stored_learn(void)
{
	static bool registered = false;
	Relation	table;

	if (!registered)
		CacheRegisterRelcacheCallback(stored_table_changed, (Datum) 0);
	registered = true;
	stored_table = look_relation(FLOHSYNC_SCHEMA, "resource_record");
	stored_key = look_relation(FLOHSYNC_SCHEMA, "resource_record_key");
	/* What changes from here on makes us look again. */
	stored_known = true;
	table = table_open(stored_table, RowExclusiveLock);
	stored_plain = stored_is_plain(table);
	table_close(table, NoLock);
}

/* stored_possible: is there nothing about the table, or the transaction, that only a statement minds? */
bool
stored_possible(void)
{
	if (XactReadOnly || IsolationUsesXactSnapshot() ||
		GetUserId() != get_role_oid(flohsync_worker_role, true))
		return false;
	if (!stored_known)
		stored_learn();
	return stored_known && stored_plain &&
		pg_class_aclmask(stored_table, GetUserId(), ACL_SELECT | ACL_UPDATE, ACLMASK_ALL) ==
		(ACL_SELECT | ACL_UPDATE);
}

/* Locks the row of a key in its newest version, and puts it into the slot; false: there is none. */
static bool
stored_find(Look *look, Datum connector, Datum resource_type, Datum id)
{
	ScanKeyData		keys[3];
	ItemPointerData tid;
	TM_FailureData	failure;

	look_text_key(&keys[0], look, 1, id);
	look_text_key(&keys[1], look, 2, resource_type);
	look_uuid_key(&keys[2], 3, DatumGetUUIDP(connector));
	index_rescan(look->scan, keys, 3, NULL, 0);
	if (!look_next(look))
		return false;
	tid = look->slot->tts_tid;
	/* No key ever changes: another version of the row is of the same record. */
	switch (table_tuple_lock(look->table, &tid, look->scan->xs_snapshot, look->slot,
							 GetCurrentCommandId(false), LockTupleNoKeyExclusive, LockWaitBlock,
							 TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure))
	{
		case TM_Ok:
			return true;
		case TM_Deleted:
			return false;
		default:
			elog(ERROR, "could not lock a row of resource_record");
	}
}

static Datum
stored_value(const StoredRecord *stored, TupleDesc desc, int column, bool *isnull)
{
	return heap_getattr(stored->tuple, stored_columns[column], desc, isnull);
}

static char *
stored_text(const StoredRecord *stored, TupleDesc desc, int column)
{
	bool  isnull;
	Datum value = stored_value(stored, desc, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* What the tuple says. */
static void
stored_read(StoredRecord *stored, TupleDesc desc)
{
	bool  isnull;
	Datum value;
	text *hash;

	stored->row.num = DatumGetInt64(stored_value(stored, desc, ROW_NUM, &isnull));
	stored->row.id = *DatumGetUUIDP(stored_value(stored, desc, ROW_ID, &isnull));
	hash = DatumGetTextPP(stored_value(stored, desc, ROW_HASH, &isnull));
	if (VARSIZE_ANY_EXHDR(hash) == FLOHSYNC_HASH_HEX)
		memcpy(stored->row.hash, VARDATA_ANY(hash), FLOHSYNC_HASH_HEX);
	(void) stored_value(stored, desc, ROW_STALE, &isnull);
	stored->row.stale = !isnull;
	value = stored_value(stored, desc, ROW_EVENT_AT, &isnull);
	stored->event_at = isnull ? 0 : DatumGetTimestampTz(value);
	stored->observed_at = DatumGetTimestampTz(stored_value(stored, desc, ROW_OBSERVED_AT, &isnull));
	value = stored_value(stored, desc, ROW_EVENT_KEYS, &isnull);
	stored->keys = isnull ? NULL : DatumGetJsonbP(value);
	stored->display_name = stored_text(stored, desc, ROW_NAME);
	stored->email = stored_text(stored, desc, ROW_EMAIL);
	value = stored_value(stored, desc, ROW_ATTRIBUTES, &isnull);
	if (!isnull)
	{
		Jsonb *attributes = DatumGetJsonbP(value);

		stored->attributes = JsonbToCString(NULL, &attributes->root, VARSIZE(attributes));
	}
}

/* stored_lock, by a statement. */
static bool
stored_lock_by_statement(Datum connector, Datum resource_type, Datum id, StoredRecord *stored)
{
	Datum value;
	bool  isnull;
	char *hash;

	if (apply_lock(connector, resource_type, id) == 0)
		return false;
	stored->row.id = *DatumGetUUIDP(db_value(0, 1, &isnull));
	value = db_value(0, 2, &isnull);
	stored->event_at = isnull ? 0 : DatumGetTimestampTz(value);
	stored->observed_at = DatumGetTimestampTz(db_value(0, 3, &isnull));
	stored->row.stale = db_bool(0, 4);
	value = db_value(0, 5, &isnull);
	stored->keys = isnull ? NULL : DatumGetJsonbPCopy(value);
	stored->display_name = db_text(0, 6);
	stored->email = db_text(0, 7);
	stored->attributes = db_text(0, 8);
	stored->row.num = db_int64(0, 9, 0);
	hash = db_text(0, 10);
	if (strlen(hash) == FLOHSYNC_HASH_HEX)
		memcpy(stored->row.hash, hash, FLOHSYNC_HASH_HEX);
	return true;
}

/*
 * stored_lock locks the stored record of an id, a text, until the end of the transaction and
 * reads it; false when there is none.
 */
bool
stored_lock(Datum connector, Datum resource_type, const char *id, StoredRecord *stored)
{
	Datum	 key = CStringGetTextDatum(id);
	Look	 look;
	Snapshot snapshot;
	bool	 found;

	memset(stored, 0, sizeof(*stored));
	if (!stored_possible())
		return stored_lock_by_statement(connector, resource_type, key, stored);
	LockRelationOid(stored_table, RowExclusiveLock);
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	look_open(&look, stored_table, stored_key, snapshot, 3);
	found = stored_find(&look, connector, resource_type, key);
	if (found)
	{
		stored->tuple = ExecCopySlotHeapTuple(look.slot);
		stored->tuple->t_self = look.slot->tts_tid;
		stored_read(stored, RelationGetDescr(look.table));
	}
	look_close(&look);
	UnregisterSnapshot(snapshot);
	return found;
}

static bool
stored_same_text(const char *stored, const Slice *text)
{
	if (stored == NULL || text->data == NULL)
		return stored == NULL && text->data == NULL;
	return strlen(stored) == text->len && memcmp(stored, text->data, text->len) == 0;
}

/*
 * stored_differs: does it differ by what every rule of hashes counts?  Where not, its hash may
 * still be another one.
 */
bool
stored_differs(const StoredRecord *stored, const Record *record)
{
	return !stored_same_text(stored->display_name, &record->display_name) ||
		!stored_same_text(stored->email, &record->email);
}
