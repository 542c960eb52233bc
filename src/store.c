/*
 * store.c
 *	  What the engine asks of the tables, one function a statement.
 *
 * The rules are in the SQL functions that these statements call (sql/40_run);
 * here values are only carried over and back.  SPI must be connected.
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "clean.h"
#include "db.h"
#include "db_lock.h"
#include "ledger.h"
#include "store.h"
#include "store_secret.h"

/* store_text_array makes a text[]; a slice without data is a null. */
Datum
store_text_array(const Slice *slices, int n)
{
	Size		size = 0;
	int			nulls = 0;
	int			offset;
	ArrayType  *array;
	char	   *p;
	bits8	   *bitmap;

	if (n == 0)
		return PointerGetDatum(construct_empty_array(TEXTOID));
	for (int i = 0; i < n; i++)
	{
		if (slices[i].data == NULL)
			nulls++;
		else
			size += INTALIGN(VARHDRSZ + slices[i].len);
	}
	offset = nulls ? ARR_OVERHEAD_WITHNULLS(1, n) : ARR_OVERHEAD_NONULLS(1);
	array = palloc_extended(offset + size, MCXT_ALLOC_HUGE);
	memset(array, 0, offset);
	if (!AllocSizeIsValid(offset + size))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the records of a page are too large together")));
	SET_VARSIZE(array, offset + size);
	array->ndim = 1;
	array->dataoffset = nulls ? offset : 0;
	array->elemtype = TEXTOID;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	bitmap = ARR_NULLBITMAP(array);
	p = ARR_DATA_PTR(array);
	for (int i = 0; i < n; i++)
	{
		int			len = slices[i].len;

		if (slices[i].data == NULL)
			continue;
		if (bitmap)
			bitmap[i / 8] |= 1 << (i % 8);
		SET_VARSIZE(p, VARHDRSZ + len);
		memcpy(VARDATA(p), slices[i].data, len);
		memset(p + VARHDRSZ + len, 0, INTALIGN(VARHDRSZ + len) - (VARHDRSZ + len));
		p += INTALIGN(VARHDRSZ + len);
	}
	return PointerGetDatum(array);
}

/* store_uuid_array makes a uuid[]. */
Datum
store_uuid_array(const pg_uuid_t *ids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	ArrayType  *array;

	for (int i = 0; i < n; i++)
		elements[i] = UUIDPGetDatum(&ids[i]);
	array = construct_array(elements, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
	pfree(elements);
	return PointerGetDatum(array);
}

/*
 * store_sanitize returns an id that can be stored and compared with others
 * whatever the bytes were: at most max bytes, cut at a character, what is no
 * UTF-8 replaced by "?".  For messages there is clean.c.
 */
const char *
store_sanitize(const char *data, int len, int max, int *outlen)
{
	char	   *out = palloc(Min(len, max) + 1);
	int			n = 0;

	for (int i = 0; i < len && n < max;)
	{
		int			l = pg_utf_mblen((const unsigned char *) data + i);

		if (i + l > len || n + l > max)
			l = i + l > len ? 1 : 0;
		if (l == 0)
			break;
		if (data[i] != '\0' && pg_utf8_islegal((const unsigned char *) data + i, l) && (l > 1 || (signed char) data[i] > 0))
			memcpy(out + n, data + i, l);
		else
		{
			l = 1;
			out[n] = '?';
		}
		n += l;
		i += l;
	}
	out[n] = '\0';
	*outlen = n;
	return out;
}

/* The elements of a text[] in a result, copied; -1 when it is null. */
static int
store_get_texts(uint64 row, int column, char ***texts, MemoryContext context)
{
	bool		isnull;
	Datum		value = db_value(row, column, &isnull);
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	MemoryContext old;

	*texts = NULL;
	if (isnull)
		return -1;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	old = MemoryContextSwitchTo(context);
	*texts = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*texts)[i] = nulls[i] ? pstrdup("") : TextDatumGetCString(elements[i]);
	MemoryContextSwitchTo(old);
	return n;
}

static char *
store_get_text(uint64 row, int column, MemoryContext context)
{
	char	   *text = db_text(row, column);

	return text ? MemoryContextStrdup(context, text) : NULL;
}

/* store_open_runs lists what is queued, or says it is running, oldest first. */
RunCandidate *
store_open_runs(int *n)
{
	static DbQuery query = {
		"select r.id, r.connector_id::pg_catalog.text, r.resource_type::pg_catalog.text, (r.status = 'queued')::int4 from flohsync.sync_run r"
		" join flohsync.connector_definition d on d.id = r.connector_id and d.home = _flohsync.home()"
		" where r.status in ('queued', 'running') order by r.requested_at, r.id"
	};
	RunCandidate *candidates;

	*n = (int) db_execute(&query, NULL, NULL);
	candidates = palloc(sizeof(RunCandidate) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		candidates[i].id = db_int64(i, 1, 0);
		candidates[i].connector_id = db_text(i, 2);
		candidates[i].resource_type = db_text(i, 3);
		candidates[i].queued = db_int64(i, 4, 0) != 0;
	}
	return candidates;
}

/*
 * store_source_spec is what source_open needs for a type of a connector,
 * whatever is wanted of it; false when there is no such connector.  Raises when
 * its config cannot be used.  The caller has a transaction open, and sets
 * in_transaction and page_size.
 */
bool
store_source_spec(const char *connector_id, const char *resource_type, SourceSpec *spec, MemoryContext context)
{
	static DbQuery query = {
		"select d.kind, _flohsync.list_command(d.config, $2), _flohsync.get_command(d.config, $2), d.config ->> 'url',"
		" array(select h.key || ': ' || h.value from pg_catalog.jsonb_each_text(d.config -> 'headers') h),"
		" d.config ->> 'function', d.config -> 'queries' ->> $2, _flohsync.role_oid(case when c.id is null then d.author else c.owner end),"
		" d.config::pg_catalog.text, d.definition::pg_catalog.text,"
		" case d.kind when 'command' then (d.config #>> '{limits,requests_per_minute}')::pg_catalog.numeric::pg_catalog.int8 end,"
		" _flohsync.role_name(case when c.id is null then d.author else c.owner end), _flohsync.role_oid(d.code_owner),"
		" case d.kind when 'command' then (d.config #>> '{limits,total_tolerance}')::pg_catalog.float8 end"
		" from flohsync.connector_definition d"
		" left join flohsync.connector_sync_config c on c.connector_id = d.id and c.resource_type = $2"
		" where d.id = $1::pg_catalog.uuid",
		2, {TEXTOID, TEXTOID}
	};
	static DbQuery check = {
		"select _flohsync.config_fault(d.kind, d.config) from flohsync.connector_definition d where d.id = $1::pg_catalog.uuid", 1, {TEXTOID}
	};
	Datum		v[2] = {CStringGetTextDatum(connector_id), CStringGetTextDatum(resource_type)};
	Datum		owner;
	Datum		tolerance;
	bool		isnull;

	char	   *fault;

	memset(spec, 0, sizeof(*spec));
	/* Before the values are read as what they should be. */
	fault = db_execute(&check, v, NULL) == 1 ? db_text(0, 1) : NULL;
	if (fault)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the connector's config cannot be used: %s", clean(fault))));
	if (db_execute(&query, v, NULL) == 0)
		return false;
	spec->kind = store_get_text(0, 1, context);
	spec->list_command = store_get_text(0, 2, context);
	spec->get_command = store_get_text(0, 3, context);
	spec->url = store_get_text(0, 4, context);
	spec->nheaders = Max(0, store_get_texts(0, 5, &spec->headers, context));
	spec->function = store_get_text(0, 6, context);
	spec->query = store_get_text(0, 7, context);
	owner = db_value(0, 8, &isnull);
	spec->owner = isnull ? InvalidOid : DatumGetObjectId(owner);
	spec->owner_name = store_get_text(0, 12, context);
	owner = db_value(0, 13, &isnull);
	spec->code_owner = isnull ? InvalidOid : DatumGetObjectId(owner);
	spec->config = store_get_text(0, 9, context);
	spec->definition = store_get_text(0, 10, context);
	spec->requests_per_minute = (int) db_int64(0, 11, 0);
	tolerance = db_value(0, 14, &isnull);
	spec->total_tolerance = isnull ? -1 : DatumGetFloat8(tolerance);
	spec->connector_id = MemoryContextStrdup(context, connector_id);
	spec->resource_type = MemoryContextStrdup(context, resource_type);
	store_read_secrets(DirectFunctionCall1(uuid_in, CStringGetDatum(connector_id)), spec, context);
	return true;
}

/* store_get_filter reads what STORE_FILTER_COLUMNS selected, from a column on. */
void
store_get_filter(uint64 row, int column, Filter *filter, MemoryContext context)
{
	filter->name_pattern = store_get_text(row, column, context);
	filter->ngroup_ids = store_get_texts(row, column + 1, &filter->group_ids, context);
	filter->ndomains = store_get_texts(row, column + 2, &filter->domains, context);
	filter->member_of_synced_groups = db_bool(row, column + 3);
	filter->max_records = db_int64(row, column + 4, 0);
}

StartOutcome
store_start_run(int64 run, bool left, RunSetup *s, MemoryContext context)
{
	static DbQuery query = {
		"select s.outcome, s.strategy, s.pass_id, s.pass_started_at, s.connector_id::pg_catalog.text,"
		" s.connector_name, s.resource_type, s.resumed, s.last_page, s.next_cursor, s.passed, s.received,"
		" s.filter_rules::pg_catalog.text, " STORE_FILTER_COLUMNS("s") ","
		" " STORE_HASH_IGNORE("s") ","
		" _flohsync.iso(s.modified_since), s.unidentified, s.total_estimate, s.note_changes, s.incomplete, s.kept_link, s.unread, s.rehash"
		" from _flohsync.start_run($1, $2) s",
		2, {INT8OID, BOOLOID}
	};
	static DbQuery check = {
		"select _flohsync.check_stored(r.connector_id, r.resource_type) from flohsync.sync_run r where r.id = $1", 1, {INT8OID}
	};
	Datum		value = Int64GetDatum(run);
	Datum		v[2];
	char	   *outcome;
	char	   *modified_since;
	char	   *kept_link;
	bool		isnull;

	db_execute(&check, &value, NULL);
	v[0] = value;
	v[1] = BoolGetDatum(left);
	db_execute(&query, v, NULL);
	outcome = db_text(0, 1);
	if (strcmp(outcome, "run") != 0)
		return strcmp(outcome, "gone") == 0 ? START_GONE : START_REFUSED;
	memset(s, 0, sizeof(*s));
	s->id = run;
	s->strategy = store_get_text(0, 2, context);
	s->pass_id = db_int64(0, 3, 0);
	s->pass_started_at = DatumGetTimestampTz(db_value(0, 4, &isnull));
	s->connector_id = store_get_text(0, 5, context);
	s->connector_name = store_get_text(0, 6, context);
	s->resource_type = store_get_text(0, 7, context);
	s->resumed = db_bool(0, 8);
	s->last_page = (int) db_int64(0, 9, 0);
	s->cursor = store_get_text(0, 10, context);
	s->passed = db_int64(0, 11, 0);
	s->received = db_int64(0, 12, 0);
	s->filter_json = store_get_text(0, 13, context);
	store_get_filter(0, 14, &s->filter, context);
	s->nhash_ignore = Max(0, store_get_texts(0, 19, &s->hash_ignore, context));
	modified_since = store_get_text(0, 20, context);
	s->unidentified = db_int64(0, 21, 0);
	s->total_estimate = db_int64(0, 22, -1);
	s->note_changes = db_bool(0, 23);
	s->incomplete = store_get_text(0, 24, context);
	kept_link = store_get_text(0, 25, context);
	s->unread = db_bool(0, 26);
	s->rehash = db_bool(0, 27);
	store_source_spec(s->connector_id, s->resource_type, &s->spec, context);
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
	Datum		v[2] = {Int64GetDatum(run), BoolGetDatum(forget_link)};
	bool		isnull;

	db_execute(&query, v, NULL);
	return DatumGetTimestampTz(db_value(0, 1, &isnull));
}

/* store_guard_run: is the run still wanted, as it was started? */
RunGuard
store_guard_run(const RunSetup *s)
{
	static DbQuery query = {
		"select r.cancel_requested, c.id is null, c.filter_rules is distinct from $2::pg_catalog.jsonb"
		" from flohsync.sync_run r left join flohsync.connector_sync_config c"
		" on c.connector_id = r.connector_id and c.resource_type = r.resource_type where r.id = $1",
		2, {INT8OID, TEXTOID}
	};
	Datum		values[2] = {Int64GetDatum(s->id)};
	char		nulls[2] = {' ', 'n'};

	if (s->filter_json)
	{
		values[1] = CStringGetTextDatum(s->filter_json);
		nulls[1] = ' ';
	}
	if (db_execute(&query, values, nulls) == 0)
		return RUN_CONFIG_GONE;
	if (db_bool(0, 1))
		return RUN_CANCELLED;
	if (db_bool(0, 2))
		return RUN_CONFIG_GONE;
	return db_bool(0, 3) ? RUN_FILTER_CHANGED : RUN_GO_ON;
}

/* store_add_page writes the ledger's row of a page. */
void
store_add_page(int64 run, const PageEntry *e)
{
	static DbQuery query = {
		"insert into flohsync.sync_run_page (run_id, page, cursor, next_cursor, fetched_at, records, bytes, fetch_ms, apply_ms,"
		" added, updated, unchanged, restored, filtered, errored, ignored, duplicates, truncated, unidentified, total_estimate, seen, deleted, changed, incomplete, link, unread)"
		" values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10[1], $10[2], $10[3], $10[4], $10[5], $10[6], $10[7], $10[8], $10[9], $10[10], $11, $12, $13, $14, $15, $16, $10[11] = 1)",
		16, {INT8OID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT8OID, FLOAT4OID, FLOAT4OID, INT4ARRAYOID, INT8OID, BYTEAOID, TEXTARRAYOID, UUIDARRAYOID, TEXTOID, TEXTOID},
		.generic = true
	};
	Datum		counts[11];
	Datum		v[16];
	char		nulls[16];
	const PageCounts *c = &e->counts;
	int			list[11] = {c->added, c->updated, c->unchanged, c->restored, c->filtered, c->errored, c->ignored, c->duplicates, c->truncated, c->unidentified, e->unread};

	for (int i = 0; i < 11; i++)
		counts[i] = Int32GetDatum(list[i]);
	memset(nulls, ' ', sizeof(nulls));
	v[0] = Int64GetDatum(run);
	v[1] = Int32GetDatum(e->page);
	nulls[2] = e->cursor ? ' ' : 'n';
	v[2] = e->cursor ? CStringGetTextDatum(e->cursor) : (Datum) 0;
	nulls[3] = e->next_cursor ? ' ' : 'n';
	v[3] = e->next_cursor ? CStringGetTextDatum(e->next_cursor) : (Datum) 0;
	v[4] = TimestampTzGetDatum(e->fetched_at);
	v[5] = Int32GetDatum(e->records);
	v[6] = Int64GetDatum(e->bytes);
	v[7] = Float4GetDatum((float4) e->fetch_ms);
	v[8] = Float4GetDatum((float4) e->apply_ms);
	v[9] = PointerGetDatum(construct_array(counts, 11, INT4OID, 4, true, TYPALIGN_INT));
	nulls[10] = e->total_estimate >= 0 ? ' ' : 'n';
	v[10] = Int64GetDatum(e->total_estimate);
	v[11] = PointerGetDatum(ledger_encode(e->seen, e->nseen));
	nulls[12] = e->ndeleted > 0 ? ' ' : 'n';
	v[12] = e->ndeleted > 0 ? store_text_array(e->deleted, e->ndeleted) : (Datum) 0;
	nulls[13] = e->nchanged > 0 ? ' ' : 'n';
	v[13] = e->nchanged > 0 ? store_uuid_array(e->changed, e->nchanged) : (Datum) 0;
	nulls[14] = e->incomplete ? ' ' : 'n';
	v[14] = e->incomplete ? CStringGetTextDatum(e->incomplete) : (Datum) 0;
	nulls[15] = e->link ? ' ' : 'n';
	v[15] = e->link ? CStringGetTextDatum(e->link) : (Datum) 0;
	db_execute(&query, v, nulls);
}

/* Notes records that were set aside; v and nulls begin with where: run and page, or connector and type. */
static void
store_note_faults(const RecordFault *faults, int n, Datum v[8], const char nulls[8])
{
	static DbQuery query = {
		"insert into flohsync.sync_error (run_id, page, connector_id, resource_type, external_id, error_class, message, payload)"
		" select $1, $2, $3, $4, f.* from unnest($5, $6, $7, $8) f",
		8, {INT8OID, INT4OID, UUIDOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID},
		.generic = true
	};
	Slice	   *columns[4];

	for (int k = 0; k < 4; k++)
		columns[k] = palloc0(sizeof(Slice) * n);
	for (int i = 0; i < n; i++)
	{
		const RecordFault *f = &faults[i];

		if (f->external_id.data)
			columns[0][i].data = store_sanitize(f->external_id.data, f->external_id.len, STORE_PAYLOAD_BYTES, &columns[0][i].len);
		columns[1][i].data = f->error_class;
		columns[1][i].len = strlen(f->error_class);
		columns[2][i].data = f->message;
		columns[2][i].len = strlen(f->message);
		columns[3][i].data = clean_json(f->payload.data, f->payload.len, STORE_PAYLOAD_BYTES);
		columns[3][i].len = strlen(columns[3][i].data);
	}
	for (int k = 0; k < 4; k++)
		v[4 + k] = store_text_array(columns[k], n);
	db_execute(&query, v, nulls);
}

/* store_add_faults notes the records of a page that were set aside. */
void
store_add_faults(int64 run, int page, const RecordFault *faults, int n)
{
	Datum		v[8] = {Int64GetDatum(run), Int32GetDatum(page)};

	store_note_faults(faults, n, v, "  nn    ");
}

/* store_add_upsert_faults notes those of a list that somebody gave us. */
void
store_add_upsert_faults(Datum connector, Datum type, const RecordFault *faults, int n)
{
	Datum		v[8] = {0, 0, connector, type};

	store_note_faults(faults, n, v, "nn      ");
}

/* store_pass_overlap tells why a pass may have missed records though all its pages came; NULL: it has not. */
char *
store_pass_overlap(int64 run, MemoryContext context)
{
	static DbQuery query = {"select _flohsync.pass_overlap($1)", 1, {INT8OID}};
	Datum		value = Int64GetDatum(run);

	db_execute(&query, &value, NULL);
	return store_get_text(0, 1, context);
}

/* store_had_pages: has there been a pass of the same definition and settings, with more than one page? */
bool
store_had_pages(int64 run)
{
	static DbQuery query = {
		"select true from flohsync.sync_run r join flohsync.sync_run o on o.connector_id = r.connector_id"
		" and o.resource_type = r.resource_type and o.fingerprint = r.fingerprint and o.pass_pages > 1"
		" where r.id = $1 limit 1",
		1, {INT8OID}
	};
	Datum		value = Int64GetDatum(run);

	return db_execute(&query, &value, NULL) > 0;
}

void
store_settle_pass(int64 run, bool complete, SettleResult *result, MemoryContext context)
{
	static DbQuery query = {"select s.held, s.message from _flohsync.settle_pass($1, $2) s", 2, {INT8OID, BOOLOID}};
	Datum		v[2] = {Int64GetDatum(run), BoolGetDatum(complete)};

	db_execute(&query, v, NULL);
	result->held = db_bool(0, 1);
	result->message = store_get_text(0, 2, context);
}

/* store_post_sync does what follows a pass; held: the safeguard of staling holds the run. */
void
store_post_sync(int64 run, bool held, SettleResult *result, MemoryContext context)
{
	static DbQuery query = {"select s.held, s.message from _flohsync.post_sync($1, $2) s", 2, {INT8OID, BOOLOID}};
	Datum		v[2] = {Int64GetDatum(run), BoolGetDatum(held)};

	db_execute(&query, v, NULL);
	result->held = db_bool(0, 1);
	result->message = store_get_text(0, 2, context);
}

void
store_post_sync_failed(int64 run, int sqlerrcode, const char *message)
{
	static DbQuery query = {"select _flohsync.post_sync_failed($1, $2, $3)", 3, {INT8OID, TEXTOID, TEXTOID}};
	Datum		v[3] = {Int64GetDatum(run), CStringGetTextDatum(unpack_sql_state(sqlerrcode)), CStringGetTextDatum(clean(message))};

	db_execute(&query, v, NULL);
}

int64
store_purge_run(int64 run, int64 limit)
{
	static DbQuery query = {"select _flohsync.purge_run($1, $2)", 2, {INT8OID, INT8OID}};
	Datum		v[2] = {Int64GetDatum(run), Int64GetDatum(limit)};

	db_execute(&query, v, NULL);
	return db_int64(0, 1, 0);
}

void
store_finish_run(int64 run, const char *status, bool complete, const char *reason,
				 const char *error, const char *error_class, TimestampTz watermark, int64 retry_after_ms)
{
	static DbQuery query = {
		"select _flohsync.finish_run($1, $2, $3, $4, $5, $6, $7, pg_catalog.make_interval(secs => $8))",
		8, {INT8OID, TEXTOID, BOOLOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, FLOAT8OID}
	};
	Datum		v[8];
	char		nulls[8];
	const char *texts[3] = {reason, error, error_class};

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
		"update flohsync.sync_run r set timings = pg_catalog.jsonb_build_object('fetchMs', $2[1], 'readMs', $2[2], 'lookupMs', $2[3],"
		" 'writeMs', $2[4], 'ledgerMs', $2[5], 'commitMs', $2[6], 'settleMs', $2[7], 'postSyncMs', $2[8]) where r.id = $1",
		2, {INT8OID, INT8ARRAYOID}
	};
	int64		us[8] = {t->fetch_us, t->read_us, t->lookup_us, t->write_us, t->ledger_us, t->commit_us, t->settle_us, t->post_sync_us};
	Datum		list[8];
	Datum		v[2] = {Int64GetDatum(run)};

	for (int i = 0; i < 8; i++)
		list[i] = Int64GetDatum((us[i] + 500) / 1000);
	v[1] = PointerGetDatum(construct_array(list, 8, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	db_execute(&query, v, NULL);
}

/* store_run_summary is the statistics of a run, for the log. */
char *
store_run_summary(int64 run, MemoryContext context)
{
	static DbQuery query = {"select r.stats::pg_catalog.text from flohsync.sync_run r where r.id = $1", 1, {INT8OID}};
	Datum		v = Int64GetDatum(run);

	return db_execute(&query, &v, NULL) == 1 ? store_get_text(0, 1, context) : NULL;
}

/* store_load_seen_cursors: hashes of the cursors that a pass has been through. */
int
store_load_seen_cursors(int64 pass, uint64 **hashes, MemoryContext context)
{
	static DbQuery query = {
		"select pg_catalog.hashtextextended(p.next_cursor collate \"C\", 0) from _flohsync.pass_pages($1) p where p.next_cursor is not null",
		1, {INT8OID}
	};
	Datum		v = Int64GetDatum(pass);
	int			n = (int) db_execute(&query, &v, NULL);

	*hashes = MemoryContextAlloc(context, sizeof(uint64) * (n + 64));
	for (int i = 0; i < n; i++)
		(*hashes)[i] = (uint64) db_int64(i, 1, 0);
	return n;
}

void
store_enqueue_due(void)
{
	static DbQuery query = {"select _flohsync.enqueue_due()"};

	db_execute(&query, NULL, NULL);
}

/* store_next_due: when a schedule is next due; DT_NOEND: none is. */
TimestampTz
store_next_due(void)
{
	static DbQuery query = {
		"select pg_catalog.min(_flohsync.next_due(c)) from flohsync.connector_sync_config c"
		" join flohsync.connector_definition d on d.id = c.connector_id where d.enabled and d.home = _flohsync.home()"
	};
	bool		isnull;
	Datum		value;

	db_execute(&query, NULL, NULL);
	value = db_value(0, 1, &isnull);
	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

/* store_purge_history forgets runs and jobs that ended longer ago than the retention. */
void
store_purge_history(int retention_s)
{
	static DbQuery query = {
		"select _flohsync.forget_history(k.r), _flohsync.forget_webhooks(k.r) from pg_catalog.make_interval(secs => $1) k(r)", 1, {FLOAT8OID}
	};
	Datum		v = Float8GetDatum((float8) retention_s);

	db_execute(&query, &v, NULL);
}

/* store_note_changes has the next post-sync look at some records. */
void
store_note_changes(Datum connector, Datum resource_type, const pg_uuid_t *ids, int n, const char *change)
{
	static DbQuery query = {"select _flohsync.note_changes($1, $2, $3, $4)", 4, {UUIDOID, TEXTOID, UUIDARRAYOID, TEXTOID}};
	Datum		v[4] = {connector, resource_type, store_uuid_array(ids, n), CStringGetTextDatum(change)};

	db_execute(&query, v, NULL);
}

/* store_synced_groups: of a list of ids, those of groups that are here and not stale; in SPI_tuptable. */
void
store_synced_groups(Datum connector, Datum ids)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text from flohsync.resource_record r where r.connector_id = $1"
		" and r.resource_type = 'group' and r.external_id = any ($2) and r.stale_since is null"
		" order by r.external_id",
		2, {UUIDOID, TEXTARRAYOID}, .custom = true
	};
	Datum		v[2] = {connector, ids};

	db_execute(&query, v, NULL);
}

/*
 * store_hold_connector keeps a connector from being dropped until the end of
 * the transaction, as _flohsync.hold_connector does; an error when it has been
 * dropped meanwhile.  Before anything of it is locked.
 */
void
store_hold_connector(Datum connector)
{
	static DbQuery query = {"select from flohsync.connector_definition d where d.id = $1", 1, {UUIDOID}};
	uint64		key = db_lock_key(DatumGetCString(DirectFunctionCall1(uuid_out, connector)));

	if (db_lock_try(DB_LOCK_CONNECTOR, key, true))
		return;
	db_lock_wait(DB_LOCK_CONNECTOR, key, true);
	if (db_execute(&query, &connector, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the connector has been dropped")));
}
