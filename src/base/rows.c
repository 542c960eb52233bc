/*
 * rows.c
 *	  Rows of a table of the extension, inserted as COPY inserts rows: some at a time into the
 *	  heap, then their index entries, then triggers.
 *
 * Why it is right:
 * - It does it only to a table that has nothing but what the extension made,
 *   except for indexes (rows_possible).  Whatever else there is (a constraint, a
 *   trigger, a rule, row level security), or a transaction that must not see what
 *   others commit: a statement does it, as if there were no other way.
 * - Rows go through the executor's functions for constraints, indexes and triggers.
 * - All rows have the same value in one column.  So what the trigger of its foreign key
 *   finds, and locks until the end of the transaction, for the first row is as true of the
 *   others.  It is called by the queue of triggers as ever, at the end of the
 *   statement that this is; so it does what is set for it, and its errors are
 *   PostgreSQL's.  Of a key that may be deferred each row is checked: the first one
 *   may have been deleted until then.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/flohsync.h"
#include "base/rows.h"

/* rows_find_columns: has a table these columns, and no others?  Where they are, in places. */
bool
rows_find_columns(Relation table, const RowsColumn *columns, int n, AttrNumber *places)
{
	TupleDesc desc = RelationGetDescr(table);
	int		  found = 0;

	memset(places, 0, sizeof(AttrNumber) * n);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(desc, i);
		int				  k = 0;

		if (a->attisdropped)
			continue;
		while (k < n && strcmp(NameStr(a->attname), columns[k].name) != 0)
			k++;
		if (k == n || a->attgenerated != '\0' || a->atttypid != columns[k].type)
			return false;
		places[k] = i + 1;
		found++;
	}
	return found == n;
}

/* rows_are_plain: is a table a heap with nothing but columns, indexes and perhaps triggers? */
bool
rows_are_plain(Relation table)
{
	Form_pg_class form = table->rd_rel;
	TupleConstr	 *constraints = RelationGetDescr(table)->constr;

	return form->relkind == RELKIND_RELATION && form->relam == HEAP_TABLE_AM_OID &&
		!form->relispartition && !form->relrowsecurity && table->rd_rules == NULL &&
		(constraints == NULL || constraints->num_check == 0);
}

/* Is it a foreign key's check of the one column in which all rows are the same, at once? */
static bool
rows_are_checked_once(Relation table, AttrNumber alike, const Trigger *trigger)
{
	ListCell *cell;

	if (trigger->tgdeferrable || RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_FK)
		return false;
	foreach (cell, RelationGetFKeyList(table))
	{
		const ForeignKeyCacheInfo *key = lfirst(cell);

		if (key->conoid == trigger->tgconstraint)
			return key->nkeys == 1 && key->conkey[0] == alike;
	}
	return false;
}

/*
 * Do only triggers of ours fire, after the rows?  A trigger is the extension's when
 * its function is, as in table_check.c.
 */
static bool
rows_know_triggers(Relation table, AttrNumber alike)
{
	const TriggerDesc *triggers = table->trigdesc;
	Oid				   internals = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false);

	if (triggers == NULL)
		return true;
	if (triggers->trig_insert_before_row || triggers->trig_insert_instead_row ||
		triggers->trig_insert_new_table)
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_INSERT(trigger->tgtype) && !rows_are_checked_once(table, alike, trigger) &&
			(trigger->tgisinternal || get_func_namespace(trigger->tgfoid) != internals))
			return false;
	}
	return true;
}

/* rows_possible: is there nothing about the table, or the transaction, that only a statement minds? */
bool
rows_possible(Relation table, AttrNumber alike)
{
	return rows_are_plain(table) && rows_know_triggers(table, alike) && !XactReadOnly &&
		!IsolationUsesXactSnapshot() &&
		pg_class_aclcheck(RelationGetRelid(table), GetUserId(), ACL_INSERT) == ACLCHECK_OK;
}

/*
 * The table as the target of a statement, without those triggers that one row is enough
 * for, or that are done without.
 */
static ResultRelInfo *
rows_target_of_others(const Rows *rows, RowsNeedless needless, void *arg)
{
	ResultRelInfo *others = makeNode(ResultRelInfo);
	TriggerDesc	  *triggers;
	int			   kept = 0;

	InitResultRelInfo(others, rows->table, 0, NULL, 0);
	triggers = others->ri_TrigDesc;
	if (triggers == NULL)
		return others;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_INSERT(trigger->tgtype) ||
			(!rows_are_checked_once(rows->table, rows->alike, trigger) &&
			 !(needless && needless(trigger, arg))))
			triggers->triggers[kept++] = *trigger;
	}
	triggers->numtriggers = kept;
	return others;
}

/*
 * rows_begin does what COPY does before its first row.  needless (or NULL) says which triggers
 * the others than the first row are done without.
 */
void
rows_begin(Rows *rows, Relation table, AttrNumber alike, RowsNeedless needless, void *arg)
{
	MemoryContext old;

	rows->table = table;
	rows->alike = alike;
	rows->done = 0;
	rows->estate = CreateExecutorState();
	old = MemoryContextSwitchTo(rows->estate->es_query_cxt);
	rows->target = makeNode(ResultRelInfo);
	InitResultRelInfo(rows->target, table, 0, NULL, 0);
	rows->estate->es_opened_result_relations = list_make1(rows->target);
	rows->estate->es_output_cid = GetCurrentCommandId(true);
	ExecOpenIndices(rows->target, false);
	rows->others = rows_target_of_others(rows, needless, arg);
	AfterTriggerBeginQuery();
	ExecBSInsertTriggers(rows->estate, rows->target);
	MemoryContextSwitchTo(old);
}

/* rows_slot is for one row, in which all columns are null; for rows_begin's context. */
TupleTableSlot *
rows_slot(const Rows *rows)
{
	TupleDesc		desc = RelationGetDescr(rows->table);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);

	/* A column that was dropped is null. */
	memset(slot->tts_isnull, true, sizeof(bool) * desc->natts);
	return slot;
}

/* rows_made: the values of a row are in its slot. */
void
rows_made(const Rows *rows, TupleTableSlot *slot)
{
	ExecStoreVirtualTuple(slot);
	ExecConstraints(rows->target, slot, rows->estate);
}

/* rows_insert inserts some rows; those before must have been inserted. */
void
rows_insert(Rows *rows, TupleTableSlot **slots, int n)
{
	if (n == 0)
		return;
	table_multi_insert(rows->table, slots, n, rows->estate->es_output_cid, 0, NULL);
	for (int i = 0; i < n; i++)
	{
		List *recheck = NIL;

		if (rows->target->ri_NumIndices > 0)
			recheck = compat_insert_index_tuples(rows->target, slots[i], rows->estate);
		ExecARInsertTriggers(rows->estate, rows->done > 0 ? rows->others : rows->target, slots[i],
							 recheck, NULL);
		rows->done++;
	}
	ResetPerTupleExprContext(rows->estate);
}

/* rows_end is the end of the statement that this is. */
void
rows_end(Rows *rows)
{
	ExecASInsertTriggers(rows->estate, rows->target, NULL);
	AfterTriggerEndQuery(rows->estate);
	ExecResetTupleTable(rows->estate->es_tupleTable, false);
	ExecCloseResultRelations(rows->estate);
	FreeExecutorState(rows->estate);
}
