/*
 * tally.c
 *	  Triggers that maintain the counts of sql/53_tally.sql: numbers of records
 *	  and matches, by connector, type and state.
 *
 * A row trigger adds to a few sums in memory, and one at the end of the
 * statement inserts these as rows of _flohsync.tally, each of which is a
 * difference.  Nothing ever waits: rows are only inserted, and removed when
 * several are folded into one.  As these rows belong to the transaction that
 * changed what they count, every snapshot sees exact counts.
 *
 * Sums belong to the subtransaction that made them: only when it is rolled back
 * may they be left behind, and then they are not used any more.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "base/db.h"

/* So many rows are written for one scope, on average, before they are folded. */
#define TALLY_FOLD_EVERY 64

/* varchar(64), of any characters */
#define TALLY_TYPE_BYTES  (64 * 4)
#define TALLY_STATE_BYTES 31

typedef struct TallyKey
{
	SubTransactionId subid;
	pg_uuid_t		 connector;
	char			 type[TALLY_TYPE_BYTES + 1];
	char			 state[TALLY_STATE_BYTES + 1];
	char			 confidence[TALLY_STATE_BYTES + 1]; /* of a match; of a record empty */
} TallyKey;

typedef struct TallySum
{
	TallyKey key;
	int64	 n;
} TallySum;

static HTAB		*tally_sums = NULL;
static TallySum *tally_last = NULL;

static void
tally_forget(void *arg)
{
	tally_sums = NULL;
	tally_last = NULL;
}

/* The sums go with the transaction. */
static void
tally_begin(void)
{
	HASHCTL				   ctl = {.keysize = sizeof(TallyKey),
								  .entrysize = sizeof(TallySum),
								  .hcxt = TopTransactionContext};
	MemoryContextCallback *callback = MemoryContextAllocZero(TopTransactionContext,
															 sizeof(*callback));

	tally_sums = hash_create("flohsync tally", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	callback->func = tally_forget;
	MemoryContextRegisterResetCallback(TopTransactionContext, callback);
}

static void
tally_text(char *to, int size, Relation rel, HeapTuple tuple, const char *column)
{
	int	  attnum = SPI_fnumber(RelationGetDescr(rel), column);
	bool  isnull;
	Datum value = SPI_getbinval(tuple, RelationGetDescr(rel), attnum, &isnull);
	text *t;
	int	  len;

	if (attnum <= 0 || isnull)
		elog(ERROR, "column %d cannot be counted by", attnum);
	t = DatumGetTextPP(value);
	len = Min(VARSIZE_ANY_EXHDR(t), size - 1);
	memcpy(to, VARDATA_ANY(t), len);
}

static void
tally_add(Relation rel, HeapTuple tuple, bool match, int64 n)
{
	TallyKey key;
	bool	 isnull;
	Datum	 connector = SPI_getbinval(tuple, RelationGetDescr(rel),
									   SPI_fnumber(RelationGetDescr(rel), "connector_id"), &isnull);

	/* Compared byte by byte, with what is between the fields. */
	memset(&key, 0, sizeof(key));
	key.subid = GetCurrentSubTransactionId();
	key.connector = *DatumGetUUIDP(connector);
	tally_text(key.type, sizeof(key.type), rel, tuple, "resource_type");
	if (match)
	{
		tally_text(key.state, sizeof(key.state), rel, tuple, "match_status");
		tally_text(key.confidence, sizeof(key.confidence), rel, tuple, "match_confidence");
	}
	else
	{
		(void) SPI_getbinval(tuple, RelationGetDescr(rel),
							 SPI_fnumber(RelationGetDescr(rel), "stale_since"), &isnull);
		strcpy(key.state, isnull ? "live" : "stale");
	}
	if (tally_sums == NULL)
		tally_begin();
	/* Row after row has the same key. */
	if (tally_last == NULL || memcmp(&tally_last->key, &key, sizeof(key)) != 0)
	{
		bool found;

		tally_last = hash_search(tally_sums, &key, HASH_ENTER, &found);
		if (!found)
			tally_last->n = 0;
	}
	tally_last->n += n;
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
		tally_add(t->tg_relation, t->tg_trigtuple, match, 1);
	else
	{
		tally_add(t->tg_relation, t->tg_trigtuple, match, -1);
		if (TRIGGER_FIRED_BY_UPDATE(t->tg_event))
			tally_add(t->tg_relation, t->tg_newtuple, match, 1);
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
	SubTransactionId subid = GetCurrentSubTransactionId();
	HASH_SEQ_STATUS	 scan;
	TallySum		*sum;
	TallySum		*sums;
	int				 n = 0;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function can only be called as a trigger")));
	if (tally_sums == NULL || hash_get_num_entries(tally_sums) == 0)
		return PointerGetDatum(NULL);

	sums = palloc(sizeof(TallySum) * hash_get_num_entries(tally_sums));
	tally_last = NULL;
	hash_seq_init(&scan, tally_sums);
	while ((sum = hash_seq_search(&scan)) != NULL)
	{
		bool mine = sum->key.subid == subid;

		if (mine && sum->n != 0)
			sums[n++] = *sum;
		if (mine || !SubTransactionIsActive(sum->key.subid))
			hash_search(tally_sums, &sum->key, HASH_REMOVE, NULL);
	}
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
