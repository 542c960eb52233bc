/*
 * stored_write.c
 *	  Stored records that have changed are written without a statement: one that is locked
 *	  (stored.c), or those of a page, of which mostly few have.
 *
 * Why it is right, besides what stored.c says:
 * - A version of a row is replaced that was read, and judged by what was read of it
 *   (record_is_older).  If there is a newer one by then, heap_update says so.  One that is
 *   locked is still the newest.
 * - Of a page, rows are written in the order of their ids, as by the statement.  The first one
 *   that cannot be written here is left to it, with all that follow.  So whoever waits for a row
 *   has locked only those before it.
 * - Of the extension's triggers none has anything to do: a record that stays live changes no
 *   count and no key, and is not written by hand.  One that was stale is left to the statement.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/memory_page.h"
#include "record/stored.h"
#include "record/stored_private.h"
#include "record/write.h"

/* Rows on their way into the table. */
typedef struct StoredWrite
{
	const ApplyScope *scope;
	Relation		  table;
	TupleTableSlot	 *slot;	  /* of the new version */
	Datum			 *values; /* first of the old version, then of the new one */
	bool			 *nulls;
	EState			 *estate; /* NULL until a row needs new entries in indexes */
	ResultRelInfo	 *target;
	MemoryContext	  context;
	MemoryContext	  row_context; /* of what one row takes */
} StoredWrite;

static void
stored_begin(StoredWrite *w, const ApplyScope *scope)
{
	int natts;

	memset(w, 0, sizeof(*w));
	w->scope = scope;
	w->table = table_open(stored_table, RowExclusiveLock);
	natts = RelationGetDescr(w->table)->natts;
	w->slot = MakeSingleTupleTableSlot(RelationGetDescr(w->table), &TTSOpsHeapTuple);
	w->values = palloc(sizeof(Datum) * natts);
	w->nulls = palloc(sizeof(bool) * natts);
	w->context = CurrentMemoryContext;
	w->row_context = AllocSetContextCreate(CurrentMemoryContext, "flohsync stored row",
										   ALLOCSET_DEFAULT_SIZES);
}

static void
stored_end(StoredWrite *w)
{
	if (w->estate)
	{
		ExecCloseIndices(w->target);
		FreeExecutorState(w->estate);
	}
	ExecDropSingleTupleTableSlot(w->slot);
	table_close(w->table, NoLock);
	MemoryContextDelete(w->row_context);
	pfree(w->values);
	pfree(w->nulls);
	CommandCounterIncrement();
}

static void
stored_put(StoredWrite *w, int column, Datum value, bool isnull)
{
	w->values[stored_columns[column] - 1] = value;
	w->nulls[stored_columns[column] - 1] = isnull;
}

static void
stored_put_text(StoredWrite *w, int column, const Slice *text)
{
	stored_put(w, column,
			   text->data == NULL ?
				   (Datum) 0 :
				   PointerGetDatum(cstring_to_text_with_len(text->data, text->len)),
			   text->data == NULL);
}

/* Puts what was observed into the values of a row; false: only the statement knows what is wrong with it. */
static bool
stored_make(StoredWrite *w, const Record *record)
{
	const ApplyScope *scope = w->scope;
	TupleDesc		  desc = RelationGetDescr(w->table);
	Slice			  hash = {record->hash, FLOHSYNC_HASH_HEX};
	Datum			  attributes;

	if (!row_fits(w->table, stored_columns, record))
		return false;
	memory_expect(scope->memory, record->attributes.len + scope->heaviest);
	attributes = row_attributes(scope->parser, record);
	stored_put_text(w, ROW_NAME, &record->display_name);
	stored_put_text(w, ROW_EMAIL, &record->email);
	stored_put(w, ROW_ATTRIBUTES, attributes, DatumGetPointer(attributes) == NULL);
	stored_put_text(w, ROW_HASH, &hash);
	stored_put(w, ROW_OBSERVED_AT, TimestampTzGetDatum(scope->observed_at), false);
	if (scope->event_at != 0)
		stored_put(w, ROW_EVENT_AT, TimestampTzGetDatum(scope->event_at), false);
	stored_put(w, ROW_EVENT_KEYS, PointerGetDatum(scope->event_keys), scope->event_keys == NULL);
	for (int i = 0; i < desc->natts; i++)
		if (w->nulls[i] && TupleDescAttr(desc, i)->attnotnull)
			return false;
	return true;
}

/* The index entries of a new version of a row that is not on the page of the old one. */
static void
stored_index(StoredWrite *w, CompatUpdatedIndexes updated)
{
	if (w->estate == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(w->context);

		w->estate = CreateExecutorState();
		w->target = makeNode(ResultRelInfo);
		InitResultRelInfo(w->target, w->table, 0, NULL, 0);
		w->estate->es_output_cid = GetCurrentCommandId(true);
		ExecOpenIndices(w->target, false);
		MemoryContextSwitchTo(old);
	}
	if (w->target->ri_NumIndices > 0)
		list_free(compat_update_index_tuples(w->target, w->slot, w->estate, updated));
	ResetPerTupleExprContext(w->estate);
}

/* Replaces a version of a row; TM_Ok: it was the newest. */
static TM_Result
stored_replace(StoredWrite *w, ItemPointer old)
{
	TM_FailureData		 failure;
	LockTupleMode		 mode;
	CompatUpdatedIndexes updated;
	TM_Result			 result;

	/* Where the table is published, others have to know which row it is. */
	CheckCmdReplicaIdentity(w->table, CMD_UPDATE);
	ExecStoreHeapTuple(heap_form_tuple(RelationGetDescr(w->table), w->values, w->nulls), w->slot,
					   false);
	w->slot->tts_tableOid = RelationGetRelid(w->table);
	result = table_tuple_update(w->table, old, w->slot, GetCurrentCommandId(true), InvalidSnapshot,
								InvalidSnapshot, true, &failure, &mode, &updated);
	if (result == TM_Ok && compat_updates_indexes(updated))
		stored_index(w, updated);
	return result;
}

/*
 * stored_write writes what was observed of the record that scope->stored is; *written is false
 * when the row is newer.  False: nothing was done, the statement has to do it.
 */
bool
stored_write(const ApplyScope *scope, const Record *record, bool *written)
{
	const StoredRecord *stored = scope->stored;
	StoredWrite			w;
	bool				made;

	if (stored->tuple == NULL || stored->row.stale || !stored_possible())
		return false;
	*written = record_is_older(stored->observed_at,
							   stored->event_at == 0 ? DT_NOBEGIN : stored->event_at, false,
							   scope->observed_at, scope->event_at, scope->confirmed_at,
							   GetCurrentTimestamp());
	if (!*written)
		return true;
	stored_begin(&w, scope);
	heap_deform_tuple(stored->tuple, RelationGetDescr(w.table), w.values, w.nulls);
	made = stored_make(&w, record);
	if (made && stored_replace(&w, &stored->tuple->t_self) != TM_Ok)
		elog(ERROR, "a locked row of resource_record has changed");
	stored_end(&w);
	return made;
}

/* Writes one record of a page over the version of its row that was looked up; false: the statement has to do it. */
static bool
stored_write_row(StoredWrite *w, TupleTableSlot *old, Snapshot snapshot, const Record *record,
				 const ExistingRow *prior, bool *written)
{
	const ApplyScope *scope = w->scope;
	ItemPointerData	  tid = prior->tid;
	int				  natts = RelationGetDescr(w->table)->natts;
	Datum			  observed_at;
	Datum			  event_at;
	bool			  isnull;
	bool			  unknown;

	if (prior->stale || !ItemPointerIsValid(&tid) ||
		!table_tuple_fetch_row_version(w->table, &tid, snapshot, old))
		return false;
	slot_getallattrs(old);
	memcpy(w->values, old->tts_values, sizeof(Datum) * natts);
	memcpy(w->nulls, old->tts_isnull, sizeof(bool) * natts);
	if (memcmp(DatumGetUUIDP(slot_getattr(old, stored_columns[ROW_ID], &isnull)), &prior->id,
			   UUID_LEN) != 0 ||
		!slot_attisnull(old, stored_columns[ROW_STALE]))
		return false;
	observed_at = slot_getattr(old, stored_columns[ROW_OBSERVED_AT], &isnull);
	event_at = slot_getattr(old, stored_columns[ROW_EVENT_AT], &unknown);
	*written = record_is_older(DatumGetTimestampTz(observed_at),
							   unknown ? DT_NOBEGIN : DatumGetTimestampTz(event_at), false,
							   scope->observed_at, scope->event_at, scope->confirmed_at,
							   GetCurrentTimestamp());
	if (!*written)
		return true;
	*written = stored_make(w, record) && stored_replace(w, &tid) == TM_Ok;
	return *written;
}

/*
 * stored_write_page writes those of a page's records that have changed, and whose rows are not
 * stale.  Returns how many it has done, from the first one on; the others are for the statement.
 */
int
stored_write_page(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
				  const int *which, int n, bool *written)
{
	StoredWrite		w;
	TupleTableSlot *old;
	Snapshot		snapshot;
	int				done = 0;

	if (n == 0 || prior[which[0]].stale || !stored_possible())
		return 0;
	stored_begin(&w, scope);
	old = table_slot_create(w.table, NULL);
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	for (bool more = true; more && done < n; done += more)
	{
		MemoryContextSwitchTo(w.row_context);
		more = stored_write_row(&w, old, snapshot, &records[which[done]], &prior[which[done]],
								&written[which[done]]);
		ExecClearTuple(w.slot);
		MemoryContextSwitchTo(w.context);
		MemoryContextReset(w.row_context);
	}
	ExecDropSingleTupleTableSlot(old);
	UnregisterSnapshot(snapshot);
	stored_end(&w);
	return done;
}
