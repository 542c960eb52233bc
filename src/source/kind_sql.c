/*
 * kind_sql.c
 *	  Connectors of kind sql: a query or a function in this database.
 *
 * A query is run once a run, ordered by external_id, and spooled: its pages
 * come from one snapshot, and no transaction is open between them.  Its cursor
 * is the last external_id of a page, so a run that failed goes on behind it.
 * A function takes the request of the command protocol and returns the answer.
 *
 * Both run with the rights of the configuration's owner, or, for a type that
 * is not configured, of who wrote them into the connector (run_as.c).
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/run_as.h"
#include "json/value.h"
#include "source/commands.h"
#include "source/query.h"
#include "source/sql_private.h"

#define SPOOL_BATCH 1000
/* Then a page is long enough; and so much it may have where it cannot end. */
#define PAGE_BYTES	   Min(16 * 1024 * 1024, (int64) flohsync_page_memory * 1024 / 16)
#define PAGE_MAX_BYTES Min(64 * 1024 * 1024, (int64) flohsync_page_memory * 1024 / 4)
#define KEEP_BYTES	   (4 * 1024 * 1024)

/* Longer ids are not stored. */
#define ID_BYTES (FLOHSYNC_MAX_NAME_CHARS * 4)

/* Rows (external_id, record) of a connector's query. */
#define SQL_RECORDS \
	"select q.external_id::pg_catalog.text, pg_catalog.jsonb_build_object(" \
	"'externalId', q.external_id::pg_catalog.text, 'displayName'," \
	" q.display_name::pg_catalog.text, " \
	"'email', q.email::pg_catalog.text, 'attributes'," \
	" pg_catalog.to_jsonb(q.attributes))::pg_catalog.text\n" \
	"from (\n%s\n) q\n"

static const char *
sql_check(const JsonParser *config)
{
	const JsonNode *nodes = config->nodes;
	uint32			function = json_member(config, JSON_ROOT, "function", 8);
	uint32			queries = json_member(config, JSON_ROOT, "queries", 7);
	bool			good = queries == 0 || nodes[queries].type == JSON_OBJECT;

	if (function != 0 && nodes[function].type != JSON_STRING)
		return "\"function\" is not a text";
	for (uint32 i = good ? nodes[queries].child : 0; i != 0; i = nodes[nodes[i].next].next)
		good = good && nodes[nodes[i].next].type == JSON_STRING;
	return good ? NULL : "\"queries\" is not an object of texts";
}

static void
sql_open(Source *source)
{
	MemoryContext	  old = MemoryContextSwitchTo(source->context);
	SqlState		 *state = palloc0(sizeof(SqlState));
	const JsonParser *config = source->spec.config;
	const char		 *type = source->spec.resource_type;

	state->query = json_member_text(config, json_member(config, JSON_ROOT, "queries", 7), type);
	state->function = json_member_text(config, JSON_ROOT, "function");
	state->list_command = command_list_name(config, type);
	state->get_command = command_get_name(config, type);
	initStringInfo(&state->body);
	state->too_large = palloc(sizeof(char *) * FLOHSYNC_MAX_PAGE_RECORDS);
	state->total = -1;
	/* What we count ourselves is exact. */
	source->total_tolerance = state->query ? 0 : SOURCE_TOTAL_TOLERANCE;
	source->own_query = state->query != NULL;
	source->state = state;
	MemoryContextSwitchTo(old);
}

static void
sql_close(Source *source)
{
	SqlState *state = source->state;

	if (state && state->spool)
		tuplestore_end(state->spool);
}

static void
sql_ask(Source *source, const char *cursor)
{
	SqlState *state = source->state;

	if (state->cursor)
		pfree(state->cursor);
	state->cursor = cursor ? MemoryContextStrdup(source->context, cursor) : NULL;
}

/* Makes room for so many more bytes of the body, by doubling it as a string does by itself. */
void
sql_room(Source *source, Size more)
{
	StringInfo body = &((SqlState *) source->state)->body;
	Size	   size = body->maxlen;

	while (size < body->len + more + 1)
		size *= 2;
	if (size == body->maxlen)
		return;
	memory_take(source->memory, size - body->maxlen);
	enlargeStringInfo(body, (int) more);
}

/* Begins the next body; the one before is not needed any more. */
static void
sql_new_body(Source *source)
{
	SqlState *state = source->state;

	for (int i = 0; i < state->ntoo_large; i++)
		if (state->too_large[i])
			pfree(state->too_large[i]);
	state->ntoo_large = 0;
	if (state->body.maxlen > KEEP_BYTES)
	{
		MemoryContext old = MemoryContextSwitchTo(source->context);

		pfree(state->body.data);
		initStringInfo(&state->body);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&state->body);
}

typedef struct SqlReceiver
{
	DestReceiver  pub;
	SqlState	 *state;
	TupleDesc	  desc; /* of the spool */
	MemoryContext row;	/* emptied after each row */
} SqlReceiver;

/*
 * Puts a row of the query into the spool.  It will be read when the transaction
 * is over, so it may not refer to a table; and what cannot be stored anyway need
 * not be carried: too long an id is none, of too large a record only the id is
 * there.
 */
static bool
sql_receive(TupleTableSlot *slot, DestReceiver *self)
{
	SqlReceiver		*r = (SqlReceiver *) self;
	MemoryContext	 old = MemoryContextSwitchTo(r->row);
	static const int longest[2] = {ID_BYTES, FLOHSYNC_MAX_RECORD_BYTES};
	Datum			 row[2];
	bool			 isnull[2];

	slot_getallattrs(slot);
	for (int i = 0; i < 2; i++)
	{
		isnull[i] = slot->tts_isnull[i] ||
			toast_raw_datum_size(slot->tts_values[i]) - VARHDRSZ > longest[i];
		row[i] = isnull[i] ? (Datum) 0 :
							 PointerGetDatum(PG_DETOAST_DATUM_PACKED(slot->tts_values[i]));
	}
	tuplestore_putvalues(r->state->spool, r->desc, row, isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(r->row);
	return true;
}

static void
sql_receive_begin(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
sql_receive_end(DestReceiver *self)
{
}

/*
 * sql_run_query spools all rows behind the cursor.  The query stands on lines
 * of its own: a comment at its end must not swallow what follows.
 */
static void
sql_run_query(Source *source)
{
	SqlState	  *state = source->state;
	StringInfoData statement;
	Oid			   types[2] = {TEXTOID, TEXTOID};
	Datum		   values[2];
	char		   nulls[2] = {' ', ' '};
	const char	  *problem = query_problem(state->query);
	SPIPlanPtr	   plan;
	Portal		   portal;
	TupleDesc	   desc;
	SqlReceiver	   receiver = {
		   {sql_receive, sql_receive_begin, sql_receive_end, sql_receive_end, DestNone}, state};
	MemoryContext old;
	RunAs		  saved;

	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the connector's query cannot be used: %s", problem)));
	initStringInfo(&statement);
	appendStringInfo(&statement,
					 SQL_RECORDS
					 "where ($1::pg_catalog.text is null or q.external_id is null or"
					 " q.external_id::pg_catalog.text collate \"C\" OPERATOR(pg_catalog.>) $1)%s\n"
					 "order by q.external_id::pg_catalog.text collate \"C\"",
					 state->query,
					 source->spec.modified_since ?
						 " and q.modified_at::pg_catalog.timestamptz OPERATOR(pg_catalog.>=)"
						 " $2::pg_catalog.timestamptz" :
						 " and $2::pg_catalog.text is null");
	values[0] = state->cursor ? CStringGetTextDatum(state->cursor) : (Datum) 0;
	values[1] = source->spec.modified_since ? CStringGetTextDatum(source->spec.modified_since) :
											  (Datum) 0;
	if (!state->cursor)
		nulls[0] = 'n';
	if (!source->spec.modified_since)
		nulls[1] = 'n';

	old = MemoryContextSwitchTo(source->context);
	desc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(desc, 1, "external_id", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 2, "record", TEXTOID, -1, 0);
	state->slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	state->spool = tuplestore_begin_heap(false, true, work_mem);
	MemoryContextSwitchTo(old);

	state->queried_at = GetCurrentTimestamp();
	run_as_begin(&saved, sql_role(state, InvalidOid));
	plan = SPI_prepare_cursor(statement.data, 2, types, CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare the connector's query: %s",
			 SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, values, nulls, true);
	receiver.desc = desc;
	receiver.row = AllocSetContextCreate(CurrentMemoryContext, "flohsync row",
										 ALLOCSET_DEFAULT_SIZES);
	/*
	 * Each row goes from the executor to the spool: there is never more than one of them in
	 * memory.
	 */
	while (PortalRunFetch(portal, FETCH_FORWARD, SPOOL_BATCH, &receiver.pub) > 0)
		CHECK_FOR_INTERRUPTS();
	SPI_cursor_close(portal);
	MemoryContextDelete(receiver.row);
	run_as_end(&saved);
	state->total = state->cursor == NULL ? tuplestore_tuple_count(state->spool) : -1;
}

/* Steps to the next row of the spool; the row lives with the source. */
static void
sql_next_row(Source *source)
{
	SqlState	 *state = source->state;
	MemoryContext old = MemoryContextSwitchTo(source->context);

	state->has_row = tuplestore_gettupleslot(state->spool, true, true, state->slot);
	MemoryContextSwitchTo(old);
}

/*
 * A page from the spool.  The cursor of the next one is an id, so a page does
 * not end between rows of one id, nor between rows without an id, which come
 * last; of a crowd of those, only as many are taken as a page can have.
 */
static void
sql_next_page(Source *source)
{
	SqlState  *state = source->state;
	StringInfo body = &state->body;
	int		   enough = Min(source->spec.page_size, FLOHSYNC_MAX_PAGE_RECORDS / 2);
	char	  *last = NULL;
	int		   n = 0;

	appendStringInfoChar(body, '[');
	while (state->has_row)
	{
		bool  no_id;
		bool  isnull;
		Datum id = slot_getattr(state->slot, 1, &no_id);
		Datum record = slot_getattr(state->slot, 2, &isnull);
		char *id_text = no_id ? NULL : TextDatumGetCString(id);
		text *t = isnull ? NULL : DatumGetTextPP(record);

		if ((n >= enough || body->len >= PAGE_BYTES) && last != NULL &&
			(id_text == NULL || strcmp(id_text, last) != 0))
			break;
		if (n < FLOHSYNC_MAX_PAGE_RECORDS && body->len < PAGE_MAX_BYTES)
		{
			n++;
			if (t == NULL)
				state->too_large[state->ntoo_large++] = id_text ?
					MemoryContextStrdup(source->context, id_text) :
					NULL;
			else
			{
				sql_room(source, VARSIZE_ANY_EXHDR(t) + 1);
				if (n > state->ntoo_large + 1)
					appendStringInfoChar(body, ',');
				appendBinaryStringInfo(body, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
			}
		}
		if (last)
			pfree(last);
		last = id_text;
		sql_next_row(source);
	}
	appendStringInfoChar(body, ']');
	if (state->next)
		pfree(state->next);
	state->next = state->has_row && last && last[0] ? MemoryContextStrdup(source->context, last) :
													  NULL;
}

static void
sql_begin(Source *source)
{
	if (source->spec.in_transaction)
		SPI_connect();
	else
		db_begin("asking a connector of kind sql");
	sql_read_rights(source);
}

static void
sql_end(Source *source)
{
	if (source->spec.in_transaction)
		SPI_finish();
	else
		db_commit();
}

static void
sql_answer(Source *source, SourceAnswer *answer)
{
	SqlState   *state = source->state;
	TimestampTz start = GetCurrentTimestamp();

	answer->started_at = start;
	/* The same page is requested again: the spool has moved on, so the page is remembered. */
	if (state->stepped && state->answered &&
		strcmp(state->answered, state->cursor ? state->cursor : "") == 0)
	{
		answer->started_at = state->queried_at;
		answer->body = state->body.data;
		answer->len = state->body.len;
		return;
	}
	sql_new_body(source);
	if (state->query == NULL && state->function == NULL)
	{
		source_fail(source, answer, ERRCLASS_CONFIGURATION,
					"the connector has no query for resource type \"%s\"",
					source->spec.resource_type);
		return;
	}
	if (state->query == NULL || state->spool == NULL)
	{
		sql_begin(source);
		if (state->query)
			sql_run_query(source);
		else
			(void) sql_call_function(
				source, command_list_request(&source->spec, state->list_command, state->cursor),
				answer);
		sql_end(source);
	}
	if (state->query)
	{
		if (!state->stepped)
			sql_next_row(source);
		state->stepped = true;
		sql_next_page(source);
		if (state->answered)
			pfree(state->answered);
		state->answered = MemoryContextStrdup(source->context, state->cursor ? state->cursor : "");
		answer->started_at = state->queried_at;
	}
	answer->body = state->body.data;
	answer->len = state->body.len;
	answer->ms = (GetCurrentTimestamp() - start) / 1000.0;
}

static bool
sql_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	SqlState   *state = source->state;
	const char *problem;

	if (state->query == NULL)
		return command_read(source, parser, answer, page);
	if (!page_parse_list(parser, answer->body, answer->len, page, &problem))
	{
		source_fail(source, answer, page->too_large ? ERRCLASS_TOO_LARGE : ERRCLASS_PROTOCOL,
					"the records of a page cannot be read: %s", problem);
		return false;
	}
	if (answer->one)
		return true;
	page->next_cursor = state->next;
	page->total_estimate = state->total;
	for (int i = 0; i < state->ntoo_large; i++)
	{
		char *id = state->too_large[i];

		page_fault(parser, page, (Slice){id, id ? (int) strlen(id) : 0}, ERRCLASS_RECORD_TOO_LARGE,
				   (Slice){"", 0});
	}
	return true;
}

/* The query's first row of an id; false: the record is too large. */
static bool
sql_query_one(Source *source, const char *external_id)
{
	SqlState   *state = source->state;
	const char *problem = query_problem(state->query);
	char	   *statement;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(external_id);
	text	   *record = NULL;
	bool		isnull;
	RunAs		saved;

	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the connector's query cannot be used: %s", problem)));
	statement = psprintf(
		SQL_RECORDS
		"where q.external_id::pg_catalog.text collate \"C\" OPERATOR(pg_catalog.=) $1 limit 1",
		state->query);
	run_as_begin(&saved, sql_role(state, InvalidOid));
	if (SPI_execute_with_args(statement, 1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not run the connector's query");
	if (SPI_processed == 1)
	{
		value = db_value(0, 2, &isnull);
		record = isnull ? NULL : DatumGetTextPP(value);
	}
	run_as_end(&saved);
	if (record && VARSIZE_ANY_EXHDR(record) > FLOHSYNC_MAX_RECORD_BYTES)
		return false;
	appendStringInfoChar(&state->body, '[');
	if (record)
	{
		sql_room(source, VARSIZE_ANY_EXHDR(record));
		appendBinaryStringInfo(&state->body, VARDATA_ANY(record), VARSIZE_ANY_EXHDR(record));
	}
	appendStringInfoChar(&state->body, ']');
	return true;
}

static void
sql_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	SqlState *state = source->state;
	bool	  good = true;

	if (state->query == NULL && (state->function == NULL || state->get_command == NULL))
	{
		source_fail(source, answer, ERRCLASS_CONFIGURATION,
					"the connector cannot be asked for one record of type \"%s\"",
					source->spec.resource_type);
		answer->not_supported = true;
		return;
	}
	answer->started_at = GetCurrentTimestamp();
	sql_new_body(source);
	sql_begin(source);
	if (state->query)
		good = sql_query_one(source, external_id);
	else
		(void) sql_call_function(source, command_get_request(state->get_command, external_id),
								 answer);
	sql_end(source);
	if (answer->error_class)
		return;
	if (!good)
		source_fail(source, answer, ERRCLASS_TOO_LARGE, "the record is larger than %d bytes",
					FLOHSYNC_MAX_RECORD_BYTES);
	answer->body = state->body.data;
	answer->len = state->body.len;
	answer->ms = (GetCurrentTimestamp() - answer->started_at) / 1000.0;
}

const SourceKind source_kind_sql = {
	.name = "sql",
	.check = sql_check,
	.open = sql_open,
	.ask = sql_ask,
	.answer = sql_answer,
	.read = sql_read,
	.get = sql_get,
	.close = sql_close,
};
