/*
 * record.c
 *	  SQL-callable: upserts by hand, and ids for new rows.
 *
 * The same reader and the same writer serve these as serve a page of a pass.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "record/apply.h"
#include "record/changes.h"
#include "record/faults.h"
#include "record/ledger.h"
#include "record/rules.h"
#include "record/upsert.h"

#define UPSERT_ERRORS 100 /* number of records set aside that upsert_resources() reports */

static const char *const outcome_names[] = {
	[APPLY_UNDECIDED] = "ignored",	 [APPLY_ADDED] = "added",		[APPLY_UPDATED] = "updated",
	[APPLY_UNCHANGED] = "unchanged", [APPLY_RESTORED] = "restored", [APPLY_IGNORED] = "ignored",
};

/* Looks the connector up and reads what the configuration says about hashing. */
static void
record_scope(UpsertScope *scope, Datum connector, Datum type, TimestampTz observed_at)
{
	static DbQuery query = {
		"select i.id, case when c.id is null then _flohsync.check_resource_type($2) end,"
		" " RULES_CONFIRMED_AT ","
		" " RULES_HASH_IGNORE("c") ", " RULES_REHASH(
			"c") " from (select _flohsync.connector_id($1) as id) i left join"
				 " flohsync.connector_sync_config c"
				 " on c.connector_id = i.id and c.resource_type = $2"
				 " left join _flohsync.former_pass f"
				 " on f.connector_id = i.id and f.resource_type = $2",
		2,
		{TEXTOID, TEXTOID}};
	Datum		v[2] = {connector, type};
	bool		isnull;
	TimestampTz confirmed_at;

	db_execute(&query, v, NULL);
	confirmed_at = DatumGetTimestampTz(db_value(0, 3, &isnull));
	if (isnull)
		confirmed_at = 0;
	upsert_scope(scope, db_value(0, 1, &isnull), type, observed_at, confirmed_at,
				 db_value(0, 4, &isnull), db_bool(0, 5));
	changes_hold_connector(scope->apply.connector);
}

static void
record_read(UpsertScope *scope, Jsonb *value, UpstreamPage *page)
{
	StringInfoData text;

	initStringInfo(&text);
	(void) JsonbToCString(&text, &value->root, VARSIZE(value));
	upsert_read(scope, text.data, text.len, page);
}

/* Stores the records, and queues the changed ones for the next post-sync. */
static void
record_apply(UpsertScope *scope, UpstreamPage *page, PageCounts *counts, ApplyOutcome *outcomes)
{
	scope->apply.queue_changes = true;
	upsert_apply(scope, page, counts, outcomes);
}

PG_FUNCTION_INFO_V1(flohsync_upsert_resource);
PGDLLEXPORT Datum
flohsync_upsert_resource(PG_FUNCTION_ARGS)
{
	UpsertScope	 scope;
	UpstreamPage page;
	PageCounts	 counts = {0};
	ApplyOutcome outcome = APPLY_UNDECIDED;

	for (int i = 0; i < 4; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("no argument of upsert_resource() may be null")));
	SPI_connect();
	record_scope(&scope, PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_TIMESTAMPTZ(3));
	if (!JB_ROOT_IS_OBJECT(PG_GETARG_JSONB_P(2)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a record must be a JSON object"),
				 errhint(
					 "For example {\"externalId\": \"u-17\", \"displayName\": \"Jane Doe\"}.")));
	record_read(&scope, PG_GETARG_JSONB_P(2), &page);
	if (page.nfaults > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("record cannot be stored: %s", page.faults[0].message),
				 errdetail("Error class: %s.", error_class_name(page.faults[0].error_class))));
	record_apply(&scope, &page, &counts, &outcome);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(outcome_names[outcome]));
}

/* What an answer says of the records that were set aside, the first of them. */
static void
record_report_faults(StringInfo out, const UpstreamPage *page)
{
	appendStringInfoString(out, ", \"errors\": [");
	for (int i = 0; i < Min(page->nfaults, UPSERT_ERRORS); i++)
	{
		const RecordFault *fault = &page->faults[i];
		int				   len;

		appendStringInfo(out, "%s{\"index\": %u, \"externalId\": ", i ? ", " : "", fault->position);
		if (fault->external_id.data)
		{
			const char *id = clean_id(fault->external_id.data, fault->external_id.len,
									  RECORD_FAULT_BYTES, &len);

			escape_json(out, pnstrdup(id, len));
		}
		else
			appendStringInfoString(out, "null");
		appendStringInfo(out, ", \"class\": \"%s\", \"message\": ",
						 error_class_name(fault->error_class));
		escape_json(out, fault->message);
		appendStringInfoChar(out, '}');
	}
	appendStringInfoChar(out, ']');
}

PG_FUNCTION_INFO_V1(flohsync_upsert_resources);
PGDLLEXPORT Datum
flohsync_upsert_resources(PG_FUNCTION_ARGS)
{
	UpsertScope	   scope;
	UpstreamPage   page;
	PageCounts	   counts = {0};
	Datum		   result;
	StringInfoData text;

	for (int i = 0; i < 3; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("no argument of upsert_resources() may be null")));
	SPI_connect();
	record_scope(&scope, PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), GetCurrentTimestamp());
	if (!JB_ROOT_IS_ARRAY(PG_GETARG_JSONB_P(2)) || JB_ROOT_IS_SCALAR(PG_GETARG_JSONB_P(2)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("records must be a JSON array of objects")));
	record_read(&scope, PG_GETARG_JSONB_P(2), &page);
	record_apply(&scope, &page, &counts, NULL);
	initStringInfo(&text);
	appendStringInfo(
		&text,
		"{\"added\": %d, \"updated\": %d, \"unchanged\": %d, \"restored\": %d, \"ignored\": %d, \"errored\": %d",
		counts.added, counts.updated, counts.unchanged, counts.restored, counts.ignored,
		page.nfaults);
	/* The last one counted. */
	if (page.duplicates > 0)
		appendStringInfo(&text, ", \"duplicates\": %d", page.duplicates);
	if (page.nfaults > 0)
	{
		record_report_faults(&text, &page);
		record_faults_of_upsert(scope.apply.connector, scope.apply.resource_type, page.faults,
								page.nfaults);
	}
	appendStringInfoChar(&text, '}');
	result = SPI_datumTransfer(DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data)), false,
							   -1);
	SPI_finish();
	PG_RETURN_DATUM(result);
}

PG_FUNCTION_INFO_V1(flohsync_records_changed);
PGDLLEXPORT Datum
flohsync_records_changed(PG_FUNCTION_ARGS)
{
	RecordChanges changes = {0};
	char		 *name;
	ChangeKind	  kind;

	for (int i = 0; i < 3; i++)
		if (PG_ARGISNULL(i))
			PG_RETURN_VOID();
	name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	kind = changes_kind(name);
	if (kind == CHANGE_KINDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no change \"%s\" of records", clean(name))));
	changes.connector = PG_GETARG_DATUM(0);
	changes.resource_type = PG_GETARG_DATUM(1);
	if (!PG_ARGISNULL(3))
		changes.ids[kind] = PG_GETARG_DATUM(3);
	if (!PG_ARGISNULL(4))
		changes.external_ids = PG_GETARG_DATUM(4);
	changes.queue = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	/* Up to 0.2 there is no such argument. */
	if (PG_NARGS() > 6 && !PG_ARGISNULL(6))
		changes.dirty = DirectFunctionCall1(flohsync_ledger_encode, PG_GETARG_DATUM(6));
	SPI_connect();
	changes_note(&changes);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * flohsync_new_id makes a uuid of version 7 (RFC 9562): milliseconds, then
 * random bits.  Rows made together are neighbours in the index.
 */
PG_FUNCTION_INFO_V1(flohsync_new_id);
PGDLLEXPORT Datum
flohsync_new_id(PG_FUNCTION_ARGS)
{
	static unsigned char pool[1600];
	static int			 left = 0;
	static uint64		 last_ms = 0;
	static uint32		 counter = 0;
	pg_uuid_t			*id = palloc(sizeof(pg_uuid_t));
	unsigned char		*random;
	uint64				 ms =
		(GetCurrentTimestamp() + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000;

	if (left < 16)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not get random bytes")));
		left = sizeof(pool);
	}
	left -= 16;
	random = pool + left;
	/*
	 * Within a millisecond a counter of 12 bits keeps the order; when it is full, time is
	 * pushed on.
	 */
	if (ms <= last_ms)
	{
		if (++counter > 0xfff)
		{
			counter = 0;
			last_ms++;
		}
	}
	else
	{
		last_ms = ms;
		counter = random[8] & 0x7f;
	}
	for (int i = 0; i < 6; i++)
		id->data[i] = (unsigned char) (last_ms >> (40 - 8 * i));
	id->data[6] = 0x70 | (counter >> 8);
	id->data[7] = counter & 0xff;
	memcpy(id->data + 8, random, 8);
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
	PG_RETURN_UUID_P(id);
}
