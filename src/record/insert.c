/*
 * insert.c
 *	  New records of a page, inserted without a statement (base/rows.c).
 *
 * Beside the statement (apply_insert, which says what is inserted) this saves
 * the arrays that carry the records to the executor, a second parser for the
 * attributes, a WAL record and a buffer lock a row, and all but one check of the
 * foreign key to the connector.  The first load of a directory takes little more
 * than half of the processor time then, and a page with a single new record no
 * more than before.  It costs memory for some rows at a time.
 *
 * Why it is right, besides what rows.c says:
 * - A table with a column that is not ours, or a value that is too long, is left to
 *   the statement.
 * - Rows are made by the table's own descriptor and defaults.
 * - All rows have the same connector.
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
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/memory_page.h"
#include "base/rows.h"
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
	Rows			  rows;
	RowColumns		  columns;
	ExprState		 *defaults[ROW_NCOLUMNS];
	MemoryContext	  context; /* of the rows that are on their way */
	TupleTableSlot	 *slots[INSERT_ROWS];
	int				  n;
	Size			  bytes;
	bool			  counts; /* rows are counted together, but for the first */
} Insert;

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

/* The others than the first row are counted together. */
static bool
insert_is_needless(const Trigger *trigger, void *arg)
{
	Insert *insert = arg;

	if (insert->counts || insert->defaults[ROW_STALE] != NULL || !insert_counts(trigger))
		return false;
	insert->counts = true;
	return true;
}

static void
insert_begin(Insert *insert, int n)
{
	MemoryContext old;

	for (int k = ROW_NGIVEN; k < ROW_NCOLUMNS; k++)
	{
		Node *value = build_column_default(insert->table, insert->columns[k]);

		if (value != NULL)
			insert->defaults[k] = ExecInitExpr(expression_planner((Expr *) value), NULL);
	}
	rows_begin(&insert->rows, insert->table, insert->columns[ROW_CONNECTOR], insert_is_needless,
			   insert);
	old = MemoryContextSwitchTo(insert->rows.estate->es_query_cxt);
	for (int i = 0; i < Min(n, INSERT_ROWS); i++)
		insert->slots[i] = rows_slot(&insert->rows);
	insert->context = AllocSetContextCreate(insert->rows.estate->es_query_cxt, "flohsync insert",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
}

static void
insert_end(Insert *insert)
{
	const text *type = DatumGetTextPP(insert->scope->resource_type);

	if (insert->counts && insert->rows.done > 1)
		tally_add_records(DatumGetUUIDP(insert->scope->connector),
						  (Slice){VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type)}, false,
						  insert->rows.done - 1);
	for (int i = 0; i < INSERT_ROWS && insert->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(insert->slots[i]);
	rows_end(&insert->rows);
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
	ExprContext		 *econtext = GetPerTupleExprContext(insert->rows.estate);
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
	rows_made(&insert->rows, slot);
}

/* Writes the rows that are ready. */
static void
insert_flush(Insert *insert)
{
	rows_insert(&insert->rows, insert->slots, insert->n);
	insert->n = 0;
	insert->bytes = 0;
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
	possible = row_find_columns(insert->table, insert->columns) &&
		rows_possible(insert->table, insert->columns[ROW_CONNECTOR]) &&
		insert_all_fit(insert, records, which, n);
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
