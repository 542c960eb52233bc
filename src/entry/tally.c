/*
 * tally.c
 *	  Triggers that maintain the counts of sql/53_tally.sql: numbers of records
 *	  and matches, by connector, type and state.
 *
 * A row trigger adds to a few sums in memory (record/tally.c), and one at the end
 * of the statement inserts these as rows of _flohsync.tally, each of which is a
 * difference.  Nothing ever waits: rows are only inserted, and removed when
 * several are folded into one.  As these rows belong to the transaction that
 * changed what they count, every snapshot sees exact counts.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "record/tally.h"

/* So many rows are written for one scope, on average, before they are folded. */
#define TALLY_FOLD_EVERY 64

static Slice
tally_text(Relation rel, HeapTuple tuple, const char *column)
{
	int	  attnum = SPI_fnumber(RelationGetDescr(rel), column);
	bool  isnull;
	Datum value = SPI_getbinval(tuple, RelationGetDescr(rel), attnum, &isnull);
	text *t;

	if (attnum <= 0 || isnull)
		elog(ERROR, "column %d cannot be counted by", attnum);
	t = DatumGetTextPP(value);
	return (Slice){VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)};
}

static void
tally_add_row(Relation rel, HeapTuple tuple, bool match, int64 n)
{
	bool		isnull;
	Datum		connector = SPI_getbinval(tuple, RelationGetDescr(rel),
										  SPI_fnumber(RelationGetDescr(rel), "connector_id"), &isnull);
	const Slice type = tally_text(rel, tuple, "resource_type");

	if (match)
	{
		tally_add(DatumGetUUIDP(connector), type, tally_text(rel, tuple, "match_status"),
				  tally_text(rel, tuple, "match_confidence"), n);
		return;
	}
	(void) SPI_getbinval(tuple, RelationGetDescr(rel),
						 SPI_fnumber(RelationGetDescr(rel), "stale_since"), &isnull);
	tally_add_records(DatumGetUUIDP(connector), type, !isnull, n);
}

/* AFTER each ROW; the argument says what the table holds: record or match. */
PG_FUNCTION_INFO_V1(flohsync_tally_row);
PGDLLEXPORT Datum
flohsync_tally_row(PG_FUNCTION_ARGS)
{
	TriggerData *t = (TriggerData *) fcinfo->context;
	bool		 match;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(t->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(t->tg_event) || t->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function can only be called as a trigger")));
	match = strcmp(t->tg_trigger->tgargs[0], "match") == 0;
	if (TRIGGER_FIRED_BY_INSERT(t->tg_event))
		tally_add_row(t->tg_relation, t->tg_trigtuple, match, 1);
	else
	{
		tally_add_row(t->tg_relation, t->tg_trigtuple, match, -1);
		if (TRIGGER_FIRED_BY_UPDATE(t->tg_event))
			tally_add_row(t->tg_relation, t->tg_newtuple, match, 1);
	}
	return PointerGetDatum(NULL);
}

/* AFTER each STATEMENT, with the rights of the owner: writes what it came to. */
PG_FUNCTION_INFO_V1(flohsync_tally_statement);
PGDLLEXPORT Datum
flohsync_tally_statement(PG_FUNCTION_ARGS)
{
	/*
	 * Of a connector that is being removed nothing is to be left behind; in a restore, it
	 * may come later than its records.
	 */
	static DbQuery insert = {
		"insert into _flohsync.tally (connector_id, resource_type, state, confidence, n)"
		" select $1, $2, $3, nullif($4, ''), $5 where $5 > 0 or exists (select from"
		" flohsync.connector_definition d where d.id = $1)"
		" returning id",
		5,
		{UUIDOID, TEXTOID, TEXTOID, TEXTOID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	static DbQuery fold = {
		"select _flohsync.tally_fold($1, $2)", 2, {UUIDOID, TEXTOID}, .plan_as = PLAN_BY_INDEX};
	TallySum *sums;
	int		  n;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function can only be called as a trigger")));
	sums = tally_take(&n);
	if (n == 0)
		return PointerGetDatum(NULL);

	SPI_connect();
	for (int i = 0; i < n; i++)
	{
		const TallyKey *key = &sums[i].key;
		Datum			v[5] = {UUIDPGetDatum(&key->connector), CStringGetTextDatum(key->type),
								CStringGetTextDatum(key->state), CStringGetTextDatum(key->confidence),
								Int64GetDatum(sums[i].n)};

		/* In other isolation levels, what others have folded meanwhile would be an error. */
		if (db_execute(&insert, v, NULL) == 1 && db_int64(0, 1, 1) % TALLY_FOLD_EVERY == 0 &&
			!IsolationUsesXactSnapshot())
			db_execute(&fold, v, NULL);
	}
	SPI_finish();
	return PointerGetDatum(NULL);
}
