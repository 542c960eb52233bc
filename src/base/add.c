/*
 * add.c
 *	  A row added to a table of the extension without a statement: to start and end
 *	  the executor takes several times as long.
 *
 * Why it is right:
 * - It does it only to a table that has the columns the caller knows, and nothing but these and
 *   indexes: no trigger, constraint, rule or row level security; for a role that may insert, and
 *   in a transaction that sees what others commit.
 * - All columns are given: there are no defaults.
 * - Of two that add the same key unless it is there, one waits for the other, and adds nothing if
 *   that commits: a row is put into the table on trial, as the executor does it for ON CONFLICT
 *   DO NOTHING, until it is in the indexes.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/add.h"
#include "base/flohsync.h"

static AddTable *add_tables = NULL;

static void
add_table_changed(Datum arg, Oid relation)
{
	for (AddTable *t = add_tables; t != NULL; t = t->next)
		if (!OidIsValid(relation) || t->oid == relation)
			t->known = false;
}

/* Are the columns of the table those that the caller knows? */
static bool
add_finds_columns(AddTable *t, Relation table)
{
	int n = 0;

	while (n < ADD_COLUMNS && t->columns[n].name != NULL)
		n++;
	return rows_find_columns(table, t->columns, n, t->places);
}

static void
add_learn(AddTable *t)
{
	Oid		 schema = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, true);
	Relation table;

	if (add_tables == NULL)
		CacheRegisterRelcacheCallback(add_table_changed, (Datum) 0);
	if (!t->listed)
	{
		t->next = add_tables;
		add_tables = t;
	}
	t->listed = true;
	t->oid = OidIsValid(schema) ? get_relname_relid(t->name, schema) : InvalidOid;
	/* The schema may be older than the library. */
	if (!OidIsValid(t->oid))
		return;
	/* What changes from here on makes us look again. */
	t->known = true;
	table = table_open(t->oid, RowExclusiveLock);
	t->plain = rows_are_plain(table) &&
		(table->trigdesc == NULL || table->trigdesc->numtriggers == 0) &&
		add_finds_columns(t, table);
	table_close(table, NoLock);
}

/* Puts the values into the slot; false: only the statement knows what is wrong with one. */
static bool
add_fill(const AddTable *t, TupleDesc desc, const Datum *values, const bool *nulls,
		 TupleTableSlot *slot)
{
	/* A column that was dropped is null. */
	memset(slot->tts_isnull, true, sizeof(bool) * desc->natts);
	for (int k = 0; k < ADD_COLUMNS && t->columns[k].name != NULL; k++)
	{
		Form_pg_attribute a = TupleDescAttr(desc, t->places[k] - 1);

		if (nulls[k] ? a->attnotnull :
					   a->atttypid == VARCHAROID && a->atttypmod >= (int32) VARHDRSZ &&
					VARSIZE_ANY_EXHDR(DatumGetPointer(values[k])) > a->atttypmod - VARHDRSZ)
			return false;
		slot->tts_values[t->places[k] - 1] = values[k];
		slot->tts_isnull[t->places[k] - 1] = nulls[k];
	}
	ExecStoreVirtualTuple(slot);
	return true;
}

/* Adds the row unless one of its key is there; false: one is. */
static bool
add_unless_there(ResultRelInfo *target, TupleTableSlot *slot, EState *estate)
{
	Relation table = target->ri_RelationDesc;

	/* Mostly there is none; if there is, it is met on the way. */
	for (bool conflict = false;;)
	{
		ItemPointerData other;
		uint32			token;

		CHECK_FOR_INTERRUPTS();
		if (conflict && !compat_check_index_constraints(target, slot, estate, &other))
			return false;
		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(table, slot, estate->es_output_cid, 0, NULL, token);
		conflict = false;
		list_free(compat_insert_on_trial(target, slot, estate, &conflict));
		table_tuple_complete_speculative(table, slot, token, !conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		if (!conflict)
			return true;
	}
}

/* add_row adds a row of these values, in the order of the columns. */
AddResult
add_row(AddTable *t, const Datum *values, const bool *nulls, bool unless_there)
{
	AddResult		result = ADD_DONE;
	Relation		table;
	EState		   *estate;
	ResultRelInfo  *target;
	TupleTableSlot *slot;

	if (!t->known)
		add_learn(t);
	if (!t->known || !t->plain || XactReadOnly || IsolationUsesXactSnapshot() ||
		pg_class_aclcheck(t->oid, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		return ADD_IMPOSSIBLE;
	table = table_open(t->oid, RowExclusiveLock);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(table), &TTSOpsVirtual);
	if (!add_fill(t, RelationGetDescr(table), values, nulls, slot))
	{
		ExecDropSingleTupleTableSlot(slot);
		table_close(table, NoLock);
		return ADD_IMPOSSIBLE;
	}
	estate = CreateExecutorState();
	target = makeNode(ResultRelInfo);
	InitResultRelInfo(target, table, 0, NULL, 0);
	estate->es_output_cid = GetCurrentCommandId(true);
	ExecOpenIndices(target, unless_there);
	if (!unless_there)
	{
		table_tuple_insert(table, slot, estate->es_output_cid, 0, NULL);
		list_free(compat_insert_index_tuples(target, slot, estate));
	}
	else if (!add_unless_there(target, slot, estate))
		result = ADD_CONFLICT;
	ExecCloseIndices(target);
	FreeExecutorState(estate);
	ExecDropSingleTupleTableSlot(slot);
	table_close(table, NoLock);
	CommandCounterIncrement();
	return result;
}
