/*
 * store.c
 *	  What the engine asks of the tables, one function a statement.
 *
 * The rules are in the SQL functions that these statements call (sql/40_run);
 * here values are only carried over and back.  SPI must be connected.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "record/rules.h"
#include "run/store.h"
#include "source/spec.h"

StartOutcome
store_start_run(int64 run, bool left, RunSetup *s, MemoryContext context)
{
	static DbQuery query = {
		"select s.outcome, s.strategy, s.pass_id, s.pass_started_at,"
		" s.connector_id::pg_catalog.text,"
		" s.connector_name, s.resource_type, s.resumed, s.last_page, s.next_cursor, s.passed,"
		" s.received,"
		" s.filter_rules::pg_catalog.text, " RULES_FILTER_COLUMNS(
			"s") ","
				 " " RULES_HASH_IGNORE(
					 "s") ","
						  " _flohsync.iso(s.modified_since), s.unidentified, s.total_estimate,"
						  " s.note_changes, s.incomplete, s.kept_link, s.unread, s.rehash"
						  " from _flohsync.start_run($1, $2) s",
		2,
		{INT8OID, BOOLOID}};
	static DbQuery check = {
		"select _flohsync.check_stored(r.connector_id, r.resource_type) from flohsync.sync_run"
		" r where r.id = $1",
		1,
		{INT8OID}};
	Datum value = Int64GetDatum(run);
	Datum v[2];
	char *outcome;
	char *modified_since;
	char *kept_link;
	bool  isnull;

	db_execute(&check, &value, NULL);
	v[0] = value;
	v[1] = BoolGetDatum(left);
	db_execute(&query, v, NULL);
	outcome = db_text(0, 1);
	if (strcmp(outcome, "run") != 0)
		return strcmp(outcome, "gone") == 0 ? START_GONE : START_REFUSED;
	memset(s, 0, sizeof(*s));
	s->id = run;
	s->strategy = db_get_text(0, 2, context);
	s->pass_id = db_int64(0, 3, 0);
	s->pass_started_at = DatumGetTimestampTz(db_value(0, 4, &isnull));
	s->connector_id = db_get_text(0, 5, context);
	s->connector_name = db_get_text(0, 6, context);
	s->resource_type = db_get_text(0, 7, context);
	s->resumed = db_bool(0, 8);
	s->last_page = (int) db_int64(0, 9, 0);
	s->cursor = db_get_text(0, 10, context);
	s->passed = db_int64(0, 11, 0);
	s->received = db_int64(0, 12, 0);
	s->filter_json = db_get_text(0, 13, context);
	if (s->filter_json)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		s->filter_rules = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum(s->filter_json)));
		MemoryContextSwitchTo(old);
	}
	rules_get_filter(0, 14, &s->filter, context);
	s->nhash_ignore = Max(0, db_get_texts(0, 19, &s->hash_ignore, context));
	modified_since = db_get_text(0, 20, context);
	s->unidentified = db_int64(0, 21, 0);
	s->total_estimate = db_int64(0, 22, -1);
	s->note_changes = db_bool(0, 23);
	s->incomplete = db_get_text(0, 24, context);
	kept_link = db_get_text(0, 25, context);
	s->unread = db_bool(0, 26);
	s->rehash = db_bool(0, 27);
	source_read_spec(s->connector_id, s->resource_type, &s->spec, context);
	s->spec.filter = s->filter_json;
	s->spec.modified_since = modified_since;
	s->spec.incremental = strcmp(s->strategy, "incremental") == 0;
	s->spec.kept_link = kept_link;
	return START_RUN;
}

TimestampTz
store_restart_pass(int64 run, bool forget_link)
{
	static DbQuery query = {"select _flohsync.restart_pass($1, $2)", 2, {INT8OID, BOOLOID}};
	Datum		   v[2] = {Int64GetDatum(run), BoolGetDatum(forget_link)};
	bool		   isnull;

	db_execute(&query, v, NULL);
	return DatumGetTimestampTz(db_value(0, 1, &isnull));
}

void
store_settle_pass(int64 run, bool complete, SettleResult *result, MemoryContext context)
{
	static DbQuery query = {"select s.held, s.message from _flohsync.settle_pass($1, $2) s",
							2,
							{INT8OID, BOOLOID}};
	Datum		   v[2] = {Int64GetDatum(run), BoolGetDatum(complete)};

	db_execute(&query, v, NULL);
	result->held = db_bool(0, 1);
	result->message = db_get_text(0, 2, context);
}

/* store_settle_as_before settles a pass all of whose pages were taken; false: there may be more to do. */
bool
store_settle_as_before(int64 run)
{
	static DbQuery query = {"select _flohsync.settle_as_before($1)", 1, {INT8OID}};
	Datum		   v = Int64GetDatum(run);

	db_execute(&query, &v, NULL);
	return db_bool(0, 1);
}

/* store_post_sync does what follows a pass; held: the safeguard of staling holds the run. */
void
store_post_sync(int64 run, bool held, SettleResult *result, MemoryContext context)
{
	static DbQuery query = {"select s.held, s.message from _flohsync.post_sync($1, $2) s",
							2,
							{INT8OID, BOOLOID}};
	Datum		   v[2] = {Int64GetDatum(run), BoolGetDatum(held)};

	db_execute(&query, v, NULL);
	result->held = db_bool(0, 1);
	result->message = db_get_text(0, 2, context);
}

void
store_post_sync_failed(int64 run, int sqlerrcode, const char *message)
{
	static DbQuery query = {"select _flohsync.post_sync_failed($1, $2, $3)",
							3,
							{INT8OID, TEXTOID, TEXTOID}};
	Datum		   v[3] = {Int64GetDatum(run), CStringGetTextDatum(unpack_sql_state(sqlerrcode)),
						   CStringGetTextDatum(clean(message))};

	db_execute(&query, v, NULL);
}

int64
store_purge_run(int64 run, int64 limit)
{
	static DbQuery query = {"select _flohsync.purge_run($1, $2)", 2, {INT8OID, INT8OID}};
	Datum		   v[2] = {Int64GetDatum(run), Int64GetDatum(limit)};

	db_execute(&query, v, NULL);
	return db_int64(0, 1, 0);
}

void
store_analyze_grown(void)
{
	static DbQuery query = {"select _flohsync.analyze_grown()", 0, {InvalidOid}};

	db_execute(&query, NULL, NULL);
}

void
store_finish_run(int64 run, const char *status, bool complete, const char *reason,
				 const char *error, ErrorClass error_class, TimestampTz watermark,
				 int64 retry_after_ms)
{
	static DbQuery query = {
		"select _flohsync.finish_run($1, $2, $3, $4, $5, $6, $7, pg_catalog.make_interval(secs"
		" => $8))",
		8,
		{INT8OID, TEXTOID, BOOLOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, FLOAT8OID}};
	Datum		v[8];
	char		nulls[8];
	const char *texts[3] = {reason, error, error_class_name(error_class)};

	memset(nulls, ' ', sizeof(nulls));
	v[0] = Int64GetDatum(run);
	v[1] = CStringGetTextDatum(status);
	v[2] = BoolGetDatum(complete);
	for (int i = 0; i < 3; i++)
	{
		if (texts[i])
			v[3 + i] = CStringGetTextDatum(clean(texts[i]));
		else
			nulls[3 + i] = 'n';
	}
	v[6] = TimestampTzGetDatum(watermark);
	if (watermark == 0)
		nulls[6] = 'n';
	v[7] = Float8GetDatum(Max(retry_after_ms, 0) / 1000.0);
	db_execute(&query, v, nulls);
}

/* store_set_timings notes where the time of a run went; in ms. */
void
store_set_timings(int64 run, const RunTimings *t)
{
	static DbQuery query = {
		"update flohsync.sync_run r set timings = pg_catalog.jsonb_build_object('fetchMs',"
		" $2[1], 'readMs', $2[2], 'lookupMs', $2[3],"
		" 'writeMs', $2[4], 'ledgerMs', $2[5], 'commitMs', $2[6], 'settleMs', $2[7],"
		" 'postSyncMs', $2[8]) where r.id = $1",
		2,
		{INT8OID, INT8ARRAYOID}};
	int64 us[8] = {t->fetch_us,	 t->read_us,   t->lookup_us, t->write_us,
				   t->ledger_us, t->commit_us, t->settle_us, t->post_sync_us};
	Datum list[8];
	Datum v[2] = {Int64GetDatum(run)};

	for (int i = 0; i < 8; i++)
		list[i] = Int64GetDatum((us[i] + 500) / 1000);
	v[1] = PointerGetDatum(
		construct_array(list, 8, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	db_execute(&query, v, NULL);
}

/* store_run_summary is the statistics of a run, for the log. */
char *
store_run_summary(int64 run, MemoryContext context)
{
	static DbQuery query = {
		"select r.stats::pg_catalog.text from flohsync.sync_run r where r.id = $1", 1, {INT8OID}};
	Datum v = Int64GetDatum(run);

	return db_execute(&query, &v, NULL) == 1 ? db_get_text(0, 1, context) : NULL;
}
