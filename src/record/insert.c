/*
 * insert.c
 *	  New records of a page, inserted as COPY inserts rows: some at a time into the
 *	  heap, then their index entries, then triggers.
 *
 * Beside the statement (apply_insert, which says what is inserted) this saves
 * the arrays that carry the records to the executor, a second parser for the
 * attributes, a WAL record and a buffer lock a row, and all but one check of the
 * foreign key to the connector.  The first load of a directory takes little more
 * than half of the processor time then, and a page with a single new record no
 * more than before.  It costs this file, and memory for some rows at a time.
 *
 * Why it is right:
 * - It does it only to a table that has nothing but what the extension made,
 *   except for indexes (insert_possible).  Whatever else there is (a column, a
 *   constraint, a trigger, a rule, row level security), a value
 *   that is too long, or a transaction that must not see what others commit: the
 *   statement does it, as if there were no other way.
 * - Rows are made by the table's own descriptor and defaults, and go through the
 *   executor's functions for constraints, indexes and triggers.
 * - All rows have the same connector.  So what the trigger of the foreign key finds,
 *   and locks until the end of the transaction, for the first row is as true of the
 *   others.  It is called by the queue of triggers as ever, at the end of the
 *   statement that this is; so it does what is set for it, and its errors are
 *   PostgreSQL's.  Of a key that may be deferred each row is checked: the first one
 *   may have been deleted until then.
 * - The trigger that counts rows is called for the first one, too; the others are
 *   added to its sum at once, by what it would call for each.
 * - An insert that meets a concurrent one fails with a duplicate key, like the
 *   statement of a pass, and the worker retries the page (run.c).  Records observed
 *   individually, which must not fail then, are left to the statement.
 * - Tombstones are looked at first, by the rule that is also looked at afterwards.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/memory_page.h"
#include "record/insert.h"
#include "record/row.h"
#include "record/tally.h"

/* So many rows, and about so many bytes of them, go into the heap together. */
#define INSERT_ROWS	 128
#define INSERT_BYTES 65536

typedef struct Insert
{
	const ApplyScope *scope;
	Relation		  table;
	EState			 *estate;
	ResultRelInfo	 *target; /* with all triggers */
	ResultRelInfo	 *others; /* without the one that is called for the first row alone */
	RowColumns		  columns;
	ExprState		 *defaults[ROW_NCOLUMNS];
	MemoryContext	  context; /* of the rows that are on their way */
	TupleTableSlot	 *slots[INSERT_ROWS];
	int				  n;
	Size			  bytes;
	int				  done;	  /* rows that have been inserted */
	bool			  counts; /* these are counted together, but for the first */
} Insert;

/* Is it a foreign key's check of the one column in which all rows are the same, at once? */
static bool
insert_checks_connector(const Insert *insert, const Trigger *trigger)
{
	ListCell *cell;

	if (trigger->tgdeferrable || RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_FK)
		return false;
	foreach (cell, RelationGetFKeyList(insert->table))
	{
		const ForeignKeyCacheInfo *key = lfirst(cell);

		if (key->conoid == trigger->tgconstraint)
			return key->nkeys == 1 && key->conkey[0] == insert->columns[ROW_CONNECTOR];
	}
	return false;
}

/* Is it the one that counts each row, and does it fire? */
static bool
insert_counts(const Trigger *trigger)
{
	char *function;

	if (!TRIGGER_FOR_AFTER(trigger->tgtype) || !TRIGGER_FOR_ROW(trigger->tgtype) ||
		trigger->tgdeferrable || trigger->tgqual != NULL || trigger->tgnargs != 1 ||
		strcmp(trigger->tgargs[0], "record") != 0 ||
		SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ||
		(trigger->tgenabled != TRIGGER_FIRES_ON_ORIGIN &&
		 trigger->tgenabled != TRIGGER_FIRES_ALWAYS) ||
		get_func_namespace(trigger->tgfoid) != get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false))
		return false;
	function = get_func_name(trigger->tgfoid);
	return function != NULL && strcmp(function, "tally_row") == 0;
}

/*
 * Do only triggers of ours fire, after the rows?  A trigger is the extension's when
 * its function is, as in table_check.c.
 */
static bool
insert_knows_triggers(const Insert *insert)
{
	const TriggerDesc *triggers = insert->table->trigdesc;
	Oid				   internals = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false);

	if (triggers == NULL)
		return true;
	if (triggers->trig_insert_before_row || triggers->trig_insert_instead_row ||
		triggers->trig_insert_new_table)
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_INSERT(trigger->tgtype) && !insert_checks_connector(insert, trigger) &&
			(trigger->tgisinternal || get_func_namespace(trigger->tgfoid) != internals))
			return false;
	}
	return true;
}

/* Is there nothing about the table, or the transaction, that only a statement minds? */
static bool
insert_possible(Insert *insert)
{
	Relation	  table = insert->table;
	Form_pg_class form = table->rd_rel;
	TupleConstr	 *constraints = RelationGetDescr(table)->constr;

	return form->relkind == RELKIND_RELATION && form->relam == HEAP_TABLE_AM_OID &&
		!form->relispartition && !form->relrowsecurity && table->rd_rules == NULL &&
		(constraints == NULL || constraints->num_check == 0) &&
		row_find_columns(table, insert->columns) && insert_knows_triggers(insert) &&
		!XactReadOnly && !IsolationUsesXactSnapshot() &&
		pg_class_aclcheck(RelationGetRelid(table), GetUserId(), ACL_INSERT) == ACLCHECK_OK;
}

static bool
insert_all_fit(const Insert *insert, const Record *records, const int *which, int n)
{
	Slice type = {VARDATA_ANY(DatumGetPointer(insert->scope->resource_type)),
				  VARSIZE_ANY_EXHDR(DatumGetPointer(insert->scope->resource_type))};

	for (int k = 0; k < n; k++)
		if (!row_fits(insert->table, insert->columns, &records[which[k]]))
			return false;
	return row_text_fits(insert->table, insert->columns, ROW_TYPE, &type);
}

/*
 * The table as the target of a statement, without those triggers that one row is enough
 * for, or that are done without.
 */
static ResultRelInfo *
insert_target_of_others(Insert *insert)
{
	ResultRelInfo *others = makeNode(ResultRelInfo);
	TriggerDesc	  *triggers;
	int			   kept = 0;

	InitResultRelInfo(others, insert->table, 0, NULL, 0);
	triggers = others->ri_TrigDesc;
	if (triggers == NULL)
		return others;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_INSERT(trigger->tgtype))
		{
			if (insert_checks_connector(insert, trigger))
				continue;
			if (!insert->counts && insert->defaults[ROW_STALE] == NULL && insert_counts(trigger))
			{
				insert->counts = true;
				continue;
			}
		}
		triggers->triggers[kept++] = *trigger;
	}
	triggers->numtriggers = kept;
	return others;
}

/* What COPY does before its first row; there will be n. */
static void
insert_begin(Insert *insert, int n)
{
	TupleDesc	  desc = RelationGetDescr(insert->table);
	MemoryContext old;

	insert->estate = CreateExecutorState();
	old = MemoryContextSwitchTo(insert->estate->es_query_cxt);
	insert->target = makeNode(ResultRelInfo);
	InitResultRelInfo(insert->target, insert->table, 0, NULL, 0);
	insert->estate->es_opened_result_relations = list_make1(insert->target);
	insert->estate->es_output_cid = GetCurrentCommandId(true);
	ExecOpenIndices(insert->target, false);
	for (int k = ROW_NGIVEN; k < ROW_NCOLUMNS; k++)
	{
		Node *value = build_column_default(insert->table, insert->columns[k]);

		if (value != NULL)
			insert->defaults[k] = ExecInitExpr(expression_planner((Expr *) value), NULL);
	}
	insert->others = insert_target_of_others(insert);
	for (int i = 0; i < Min(n, INSERT_ROWS); i++)
	{
		insert->slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		/* A column that was dropped is null. */
		memset(insert->slots[i]->tts_isnull, true, sizeof(bool) * desc->natts);
	}
	insert->context = AllocSetContextCreate(insert->estate->es_query_cxt, "flohsync insert",
											ALLOCSET_DEFAULT_SIZES);
	AfterTriggerBeginQuery();
	ExecBSInsertTriggers(insert->estate, insert->target);
	MemoryContextSwitchTo(old);
}

static void
insert_end(Insert *insert)
{
	const text *type = DatumGetTextPP(insert->scope->resource_type);

	if (insert->counts && insert->done > 1)
		tally_add_records(DatumGetUUIDP(insert->scope->connector),
						  (Slice){VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type)}, false,
						  insert->done - 1);
	ExecASInsertTriggers(insert->estate, insert->target, NULL);
	AfterTriggerEndQuery(insert->estate);
	for (int i = 0; i < INSERT_ROWS && insert->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(insert->slots[i]);
	ExecResetTupleTable(insert->estate->es_tupleTable, false);
	ExecCloseResultRelations(insert->estate);
	FreeExecutorState(insert->estate);
}

static void
insert_put(const Insert *insert, TupleTableSlot *slot, int column, Datum value, bool isnull)
{
	slot->tts_values[insert->columns[column] - 1] = value;
	slot->tts_isnull[insert->columns[column] - 1] = isnull;
}

static void
insert_put_text(Insert *insert, TupleTableSlot *slot, int column, const Slice *text)
{
	if (text->data == NULL)
	{
		insert_put(insert, slot, column, (Datum) 0, true);
		return;
	}
	insert_put(insert, slot, column,
			   PointerGetDatum(cstring_to_text_with_len(text->data, text->len)), false);
	insert->bytes += text->len;
}

static void
insert_put_attributes(Insert *insert, TupleTableSlot *slot, const Record *record)
{
	Datum value = row_attributes(insert->scope->parser, record);

	if (DatumGetPointer(value) == NULL)
	{
		insert_put(insert, slot, ROW_ATTRIBUTES, (Datum) 0, true);
		return;
	}
	insert_put(insert, slot, ROW_ATTRIBUTES, value, false);
	insert->bytes += VARSIZE(DatumGetPointer(value));
}

/* Makes the row of a record in the next slot. */
static void
insert_make_row(Insert *insert, const Record *record, ExistingRow *row)
{
	const ApplyScope *scope = insert->scope;
	ExprContext		 *econtext = GetPerTupleExprContext(insert->estate);
	Slice			  hash = {record->hash, FLOHSYNC_HASH_HEX};
	TupleTableSlot	 *slot = ExecClearTuple(insert->slots[insert->n]);
	Datum			  value;
	bool			  isnull;

	insert_put(insert, slot, ROW_CONNECTOR, scope->connector, false);
	insert_put(insert, slot, ROW_TYPE, scope->resource_type, false);
	insert_put_text(insert, slot, ROW_EXTERNAL_ID, &record->external_id);
	insert_put_text(insert, slot, ROW_NAME, &record->display_name);
	insert_put_text(insert, slot, ROW_EMAIL, &record->email);
	insert_put_attributes(insert, slot, record);
	insert_put_text(insert, slot, ROW_HASH, &hash);
	insert_put(insert, slot, ROW_OBSERVED_AT, TimestampTzGetDatum(scope->observed_at), false);
	insert_put(insert, slot, ROW_EVENT_AT, TimestampTzGetDatum(scope->event_at),
			   scope->event_at == 0);
	insert_put(insert, slot, ROW_EVENT_KEYS, PointerGetDatum(scope->event_keys),
			   scope->event_keys == NULL);
	for (int k = ROW_NGIVEN; k < ROW_NCOLUMNS; k++)
	{
		value = (Datum) 0;
		isnull = true;
		if (insert->defaults[k])
			value = ExecEvalExpr(insert->defaults[k], econtext, &isnull);
		insert_put(insert, slot, k, value, isnull);
		if (isnull)
			continue;
		if (k == ROW_NUM)
			row->num = DatumGetInt64(value);
		else if (k == ROW_ID)
			row->id = *DatumGetUUIDP(value);
	}
	ExecStoreVirtualTuple(slot);
	ExecConstraints(insert->target, slot, insert->estate);
}

/* Writes the rows that are ready. */
static void
insert_flush(Insert *insert)
{
	if (insert->n == 0)
		return;
	table_multi_insert(insert->table, insert->slots, insert->n, insert->estate->es_output_cid, 0,
					   NULL);
	for (int i = 0; i < insert->n; i++)
	{
		List *recheck = NIL;

		if (insert->target->ri_NumIndices > 0)
			recheck = compat_insert_index_tuples(insert->target, insert->slots[i], insert->estate);
		ExecARInsertTriggers(insert->estate, insert->done > 0 ? insert->others : insert->target,
							 insert->slots[i], recheck, NULL);
		insert->done++;
	}
	insert->n = 0;
	insert->bytes = 0;
	ResetPerTupleExprContext(insert->estate);
	MemoryContextReset(insert->context);
}

static void
insert_rows(Insert *insert, const Record *records, const int *which, int n, ExistingRow *prior,
			bool *written)
{
	MemoryContext old;

	/* Of a row there are its values, and the tuple. */
	memory_expect(insert->scope->memory, INSERT_BYTES * 4 + insert->scope->heaviest);
	/* What the transaction itself wrote before, as for each statement. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	insert_begin(insert, n);
	old = MemoryContextSwitchTo(insert->context);
	for (int k = 0; k < n; k++)
	{
		CHECK_FOR_INTERRUPTS();
		insert_make_row(insert, &records[which[k]], &prior[which[k]]);
		written[which[k]] = true;
		if (++insert->n == INSERT_ROWS || insert->bytes >= INSERT_BYTES)
			insert_flush(insert);
	}
	insert_flush(insert);
	MemoryContextSwitchTo(old);
	insert_end(insert);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/* Those of some records against which no tombstone stands; returns how many. */
static int
insert_without_tombstone(const ApplyScope *scope, const Record *records, const int *which, int n,
						 int *alive)
{
	int *dead = palloc(sizeof(int) * n);
	int	 ndead = lookup_deleted(scope->connector, scope->resource_type, records, which, n,
								scope->observed_at, scope->event_at, dead);
	int	 nalive = 0;

	/* Both are in the order of the records. */
	for (int k = 0, d = 0; k < n; k++)
	{
		if (d < ndead && dead[d] == which[k])
			d++;
		else
			alive[nalive++] = which[k];
	}
	pfree(dead);
	return nalive;
}

/*
 * insert_records inserts some records, given by their places; prior gets their
 * identities, and written which they are, as by apply_returned.  False: nothing
 * was done, the statement has to do it.
 */
bool
insert_records(const ApplyScope *scope, const Record *records, const int *which, int n,
			   ExistingRow *prior, bool *written)
{
	Oid schema = get_namespace_oid(FLOHSYNC_SCHEMA, false);
	Oid oid = get_relname_relid("resource_record", schema);
	/* A value, as a row has it. */
	ApplyScope plain = *scope;
	Insert	  *insert = palloc0(sizeof(Insert));
	bool	   possible;

	if (scope->individual || !OidIsValid(oid))
		return false;
	plain.resource_type = PointerGetDatum(DatumGetTextPP(scope->resource_type));
	insert->scope = &plain;
	insert->table = table_open(oid, RowExclusiveLock);
	possible = insert_possible(insert) && insert_all_fit(insert, records, which, n);
	if (possible)
	{
		int *alive = palloc(sizeof(int) * n);

		n = insert_without_tombstone(scope, records, which, n, alive);
		if (n > 0)
			insert_rows(insert, records, alive, n, prior, written);
		pfree(alive);
	}
	table_close(insert->table, NoLock);
	pfree(insert);
	return possible;
}
