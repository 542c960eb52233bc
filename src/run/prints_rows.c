/*
 * prints_rows.c
 *	  The ledger's rows of pages that were taken, inserted without a statement (base/rows.c).
 *
 * Beside the statement (prints_store.c, which says what is in a row) this saves looking the
 * fingerprints up again, and all but one check of the foreign key to the run: half of what it
 * takes.  A table with a column that is not ours is left to the statement.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/flohsync.h"
#include "base/look.h"
#include "base/rows.h"
#include "run/prints.h"

typedef enum LedgerColumn
{
	LEDGER_RUN,
	LEDGER_PAGE,
	LEDGER_CURSOR,
	LEDGER_NEXT_CURSOR,
	LEDGER_FETCHED_AT,
	LEDGER_RECORDS,
	LEDGER_BYTES,
	LEDGER_FETCH_MS,
	LEDGER_APPLY_MS,
	LEDGER_TOTAL_ESTIMATE,
	LEDGER_UNREAD,
	LEDGER_PRINT,
	LEDGER_NGIVEN, /* so far with a value, from here on without */
	LEDGER_SEEN = LEDGER_NGIVEN,
	LEDGER_DELETED,
	LEDGER_CHANGED,
	LEDGER_INCOMPLETE,
	LEDGER_LINK,
	LEDGER_COUNTERS /* in their order */
} LedgerColumn;

#define LEDGER_COUNTER_NAME(name, ...)	{#name, INT4OID},
#define LEDGER_COUNTER_PLACE(name, ...) LEDGER_COUNTER_##name,

enum
{
	LEDGER_BEFORE_COUNTERS = LEDGER_COUNTERS - 1,
	PAGE_COUNTERS(LEDGER_COUNTER_PLACE) LEDGER_NCOLUMNS
};

static const RowsColumn ledger_columns[LEDGER_NCOLUMNS] = {
	[LEDGER_RUN] = {"run_id", INT8OID},
	[LEDGER_PAGE] = {"page", INT4OID},
	[LEDGER_CURSOR] = {"cursor", TEXTOID},
	[LEDGER_NEXT_CURSOR] = {"next_cursor", TEXTOID},
	[LEDGER_FETCHED_AT] = {"fetched_at", TIMESTAMPTZOID},
	[LEDGER_RECORDS] = {"records", INT4OID},
	[LEDGER_BYTES] = {"bytes", INT8OID},
	[LEDGER_FETCH_MS] = {"fetch_ms", FLOAT4OID},
	[LEDGER_APPLY_MS] = {"apply_ms", FLOAT4OID},
	[LEDGER_TOTAL_ESTIMATE] = {"total_estimate", INT8OID},
	[LEDGER_UNREAD] = {"unread", BOOLOID},
	[LEDGER_PRINT] = {"print", INT8OID},
	[LEDGER_SEEN] = {"seen", BYTEAOID},
	[LEDGER_DELETED] = {"deleted", TEXTARRAYOID},
	[LEDGER_CHANGED] = {"changed", UUIDARRAYOID},
	[LEDGER_INCOMPLETE] = {"incomplete", TEXTOID},
	[LEDGER_LINK] = {"link", TEXTOID},
	PAGE_COUNTERS(LEDGER_COUNTER_NAME)};

typedef AttrNumber LedgerPlaces[LEDGER_NCOLUMNS];

static void
ledger_put(TupleTableSlot *slot, const LedgerPlaces places, int column, Datum value, bool isnull)
{
	slot->tts_values[places[column] - 1] = value;
	slot->tts_isnull[places[column] - 1] = isnull;
}

static void
ledger_put_text(TupleTableSlot *slot, const LedgerPlaces places, int column, const char *text)
{
	ledger_put(slot, places, column, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static void
ledger_put_page(TupleTableSlot *slot, const LedgerPlaces places, const Run *run,
				const TakenPage *page)
{
	const PagePrint *print = page->print;

	ledger_put(slot, places, LEDGER_RUN, Int64GetDatum(run->id), false);
	ledger_put(slot, places, LEDGER_PAGE, Int32GetDatum(page->page), false);
	ledger_put_text(slot, places, LEDGER_CURSOR, print->cursor);
	ledger_put_text(slot, places, LEDGER_NEXT_CURSOR, print->next_cursor);
	ledger_put(slot, places, LEDGER_FETCHED_AT, TimestampTzGetDatum(page->fetched_at), false);
	ledger_put(slot, places, LEDGER_RECORDS, Int32GetDatum(print->records), false);
	ledger_put(slot, places, LEDGER_BYTES, Int64GetDatum(page->bytes), false);
	ledger_put(slot, places, LEDGER_FETCH_MS, Float4GetDatum((float4) page->fetch_ms), false);
	ledger_put(slot, places, LEDGER_APPLY_MS, Float4GetDatum((float4) page->apply_ms), false);
	ledger_put(slot, places, LEDGER_TOTAL_ESTIMATE, Int64GetDatum(print->total_estimate),
			   print->total_estimate < 0);
	ledger_put(slot, places, LEDGER_UNREAD, BoolGetDatum(false), false);
	ledger_put(slot, places, LEDGER_PRINT, Int64GetDatum(print->id), false);
	for (int k = LEDGER_COUNTERS; k < LEDGER_NCOLUMNS; k++)
		ledger_put(slot, places, k, Int32GetDatum(0), false);
	ledger_put(slot, places, LEDGER_COUNTER_unchanged, Int32GetDatum(print->unchanged), false);
	ledger_put(slot, places, LEDGER_COUNTER_filtered, Int32GetDatum(print->filtered), false);
	ledger_put(slot, places, LEDGER_COUNTER_truncated, Int32GetDatum(print->truncated), false);
}

/* prints_put_rows writes the rows of taken pages; false: nothing was done, the statement has to do it. */
bool
prints_put_rows(const Run *run)
{
	const Prints *prints = run->prints;
	int			  n = prints->ntaken;
	Oid		 oid = get_relname_relid("sync_run_page", get_namespace_oid(FLOHSYNC_SCHEMA, false));
	Relation table;
	LedgerPlaces	places;
	Rows			rows;
	TupleTableSlot *slots[PRINTS_GROUP];
	bool			possible;

	if (!OidIsValid(oid))
		return false;
	table = table_open(oid, RowExclusiveLock);
	possible = rows_find_columns(table, ledger_columns, LEDGER_NCOLUMNS, places) &&
		rows_possible(table, places[LEDGER_RUN]);
	if (possible)
	{
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		rows_begin(&rows, table, places[LEDGER_RUN], NULL, NULL);
		for (int i = 0; i < n; i++)
		{
			slots[i] = rows_slot(&rows);
			ledger_put_page(slots[i], places, run, &prints->taken[i]);
			rows_made(&rows, slots[i]);
		}
		rows_insert(&rows, slots, n);
		for (int i = 0; i < n; i++)
			ExecDropSingleTupleTableSlot(slots[i]);
		rows_end(&rows);
		PopActiveSnapshot();
		CommandCounterIncrement();
	}
	table_close(table, NoLock);
	return possible;
}
