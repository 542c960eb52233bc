/*
 * kind_sql.c
 *	  Connectors of kind sql: a query or a function in this database.
 *
 * A query is run once a run, ordered by external_id, and spooled: its pages
 * come from one snapshot, and no transaction is open between them.  Its cursor
 * is the last external_id of a page, so a run that failed goes on behind it.
 * A function takes the request of the command protocol and returns the answer.
 *
 * Both run with the rights of the configuration's owner, in a restricted
 * context in which they cannot take other rights.  An owner who is a superuser
 * gets the rights of the workers instead.
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "db.h"
#include "flohsync.h"
#include "source.h"

#define SPOOL_BATCH		1000
#define PAGE_BYTES		(16 * 1024 * 1024)		/* then a page is long enough */
#define PAGE_MAX_BYTES	(64 * 1024 * 1024)

/* Rows (external_id, record) of a connector's query. */
#define SQL_RECORDS \
	"select q.external_id::pg_catalog.text, pg_catalog.jsonb_build_object(" \
	"'externalId', q.external_id::pg_catalog.text, 'displayName', q.display_name::pg_catalog.text, " \
	"'email', q.email::pg_catalog.text, 'attributes', pg_catalog.to_jsonb(q.attributes))::pg_catalog.text\n" \
	"from (\n%s\n) q\n"

typedef struct SqlState
{
	char	   *cursor;			/* asked for */
	Tuplestorestate *spool;		/* rows (external_id text, record text) */
	TupleTableSlot *slot;
	char	   *answered;		/* cursor of the page given last, "" for the first */
	bool		stepped;		/* the first row has been read */
	bool		has_row;		/* slot holds the row to come */
	int64		total;			/* rows of the whole query, -1 unknown */
	TimestampTz queried_at;
	StringInfoData body[2];
	int			current;
	/* while the owner's rights are on */
	Oid			saved_user;
	int			saved_context;
	int			guc_level;
} SqlState;

static void
sql_open(Source *source)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	SqlState   *state = palloc0(sizeof(SqlState));

	initStringInfo(&state->body[0]);
	initStringInfo(&state->body[1]);
	state->total = -1;
	source->state = state;
	MemoryContextSwitchTo(old);
}

static void
sql_close(Source *source)
{
	SqlState   *state = source->state;

	if (state && state->spool)
		tuplestore_end(state->spool);
}

static void
sql_ask(Source *source, const char *cursor)
{
	SqlState   *state = source->state;

	if (state->cursor)
		pfree(state->cursor);
	state->cursor = cursor ? MemoryContextStrdup(source->context, cursor) : NULL;
}

static void
sql_take_rights(Source *source)
{
	SqlState   *state = source->state;
	Oid			owner = get_role_oid(source->spec.owner, true);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\", which owns the configuration, does not exist", source->spec.owner),
				 errhint("Set connector_sync_config.owner to a role that exists.")));
	/* Whoever asks, in whatever session: the owner's rights, and never a superuser's. */
	if (superuser_arg(owner))
		owner = db_worker_role();
	GetUserIdAndSecContext(&state->saved_user, &state->saved_context);
	SetUserIdAndSecContext(owner, state->saved_context |
						   SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	state->guc_level = NewGUCNestLevel();
	/* Names mean the same in every session; workers have this path anyway. */
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
sql_give_rights_back(Source *source)
{
	SqlState   *state = source->state;

	AtEOXact_GUC(false, state->guc_level);
	SetUserIdAndSecContext(state->saved_user, state->saved_context);
}

/* The function as schema.name, or an error. */
static char *
sql_function_name(const char *function)
{
	static DbQuery query = {
		"select pg_catalog.format('%I.%I', n.nspname, p.proname)"
		" from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
		" where p.oid = pg_catalog.to_regprocedure($1 || '(jsonb)')",
		1, {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(function);

	if (db_execute(&query, &value, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s(jsonb) does not exist", function)));
	return db_text(0, 1);
}

static void
sql_call_function(Source *source, const char *request, StringInfo body)
{
	char	   *statement;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(request);
	char	   *text;

	/* Also the name is looked up with the owner's rights. */
	sql_take_rights(source);
	statement = psprintf("select %s($1::pg_catalog.jsonb)::pg_catalog.text", sql_function_name(source->spec.function));
	if (SPI_execute_with_args(statement, 1, &type, &value, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not call the connector's function");
	text = SPI_processed == 1 ? db_text(0, 1) : NULL;
	sql_give_rights_back(source);
	if (text)
		appendStringInfoString(body, text);
}

/*
 * sql_run_query spools all rows behind the cursor.  The query stands on lines
 * of its own: a comment at its end must not swallow what follows.
 */
static void
sql_run_query(Source *source)
{
	SqlState   *state = source->state;
	StringInfoData statement;
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	char		nulls[2] = {' ', ' '};
	const char *problem = source_query_problem(source->spec.query);
	SPIPlanPtr	plan;
	Portal		portal;
	TupleDesc	desc;
	MemoryContext old;

	if (problem)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("the connector's query cannot be used: %s", problem)));
	initStringInfo(&statement);
	appendStringInfo(&statement,
					 SQL_RECORDS
					 "where ($1::pg_catalog.text is null or q.external_id is null or q.external_id::pg_catalog.text collate \"C\" OPERATOR(pg_catalog.>) $1)%s\n"
					 "order by q.external_id::pg_catalog.text collate \"C\"",
					 source->spec.query,
					 source->spec.modified_since ?
					 " and q.modified_at::pg_catalog.timestamptz OPERATOR(pg_catalog.>=) $2::pg_catalog.timestamptz" :
					 " and $2::pg_catalog.text is null");
	values[0] = state->cursor ? CStringGetTextDatum(state->cursor) : (Datum) 0;
	values[1] = source->spec.modified_since ? CStringGetTextDatum(source->spec.modified_since) : (Datum) 0;
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
	sql_take_rights(source);
	plan = SPI_prepare_cursor(statement.data, 2, types, CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare the connector's query: %s", SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, values, nulls, true);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, SPOOL_BATCH);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			Datum		row[2];
			bool		isnull[2];

			heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, row, isnull);
			old = MemoryContextSwitchTo(source->context);
			tuplestore_putvalues(state->spool, desc, row, isnull);
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	sql_give_rights_back(source);
	state->total = state->cursor == NULL ? tuplestore_tuple_count(state->spool) : -1;
}

/* Steps to the next row of the spool; the row lives with the source. */
static void
sql_next_row(Source *source)
{
	SqlState   *state = source->state;
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
sql_next_page(Source *source, StringInfo body)
{
	SqlState   *state = source->state;
	int			enough = Min(source->spec.page_size, FLOHSYNC_MAX_PAGE_RECORDS / 2);
	char	   *last = NULL;
	int			n = 0;

	appendStringInfoString(body, "{\"success\":true,\"payload\":{\"resources\":[");
	while (state->has_row)
	{
		bool		no_id;
		bool		isnull;
		Datum		id = slot_getattr(state->slot, 1, &no_id);
		Datum		record = slot_getattr(state->slot, 2, &isnull);
		char	   *id_text = no_id ? NULL : TextDatumGetCString(id);
		text	   *t = DatumGetTextPP(record);

		if ((n >= enough || body->len >= PAGE_BYTES) && last != NULL && (id_text == NULL || strcmp(id_text, last) != 0))
			break;
		if (n < FLOHSYNC_MAX_PAGE_RECORDS && body->len < PAGE_MAX_BYTES)
		{
			if (n++ > 0)
				appendStringInfoChar(body, ',');
			appendBinaryStringInfo(body, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
		}
		if (last)
			pfree(last);
		last = id_text;
		sql_next_row(source);
	}
	appendStringInfoChar(body, ']');
	if (state->has_row && last)
	{
		appendStringInfoString(body, ",\"nextCursor\":");
		escape_json(body, last);
	}
	if (state->total >= 0)
		appendStringInfo(body, ",\"totalEstimate\":" INT64_FORMAT, state->total);
	appendStringInfoString(body, "}}");
}

static void
sql_begin(Source *source)
{
	if (source->spec.in_transaction)
		SPI_connect();
	else
		db_begin("asking a connector of kind sql");
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
	StringInfo	body;

	answer->started_at = start;
	/* Asked for the same page again: the spool has moved on, so it is kept. */
	if (state->stepped && state->answered && strcmp(state->answered, state->cursor ? state->cursor : "") == 0)
	{
		answer->started_at = state->queried_at;
		answer->body = state->body[state->current].data;
		answer->len = state->body[state->current].len;
		return;
	}
	state->current = 1 - state->current;
	body = &state->body[state->current];
	resetStringInfo(body);
	if (source->spec.query == NULL && source->spec.function == NULL)
	{
		source_fail(source, answer, "configuration", "the connector has no query for resource type \"%s\"",
					source->spec.resource_type);
		return;
	}
	if (source->spec.query == NULL || state->spool == NULL)
	{
		sql_begin(source);
		if (source->spec.query)
			sql_run_query(source);
		else
			sql_call_function(source, source_request(&source->spec, state->cursor), body);
		sql_end(source);
	}
	if (source->spec.query)
	{
		if (!state->stepped)
			sql_next_row(source);
		state->stepped = true;
		sql_next_page(source, body);
		if (state->answered)
			pfree(state->answered);
		state->answered = MemoryContextStrdup(source->context, state->cursor ? state->cursor : "");
		answer->started_at = state->queried_at;
	}
	answer->body = body->data;
	answer->len = body->len;
	answer->ms = (GetCurrentTimestamp() - start) / 1000.0;
}

/* The query's rows of one id, as an answer. */
static void
sql_query_one(Source *source, const char *external_id, StringInfo body)
{
	const char *problem = source_query_problem(source->spec.query);
	char	   *statement;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(external_id);
	char	   *record;

	if (problem)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("the connector's query cannot be used: %s", problem)));
	statement = psprintf(SQL_RECORDS "where q.external_id::pg_catalog.text collate \"C\" OPERATOR(pg_catalog.=) $1 limit 1",
						 source->spec.query);
	sql_take_rights(source);
	if (SPI_execute_with_args(statement, 1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not run the connector's query");
	record = SPI_processed == 1 ? db_text(0, 2) : NULL;
	sql_give_rights_back(source);
	appendStringInfo(body, "{\"success\":true,\"payload\":{\"resources\":[%s]}}", record ? record : "");
}

static void
sql_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	SqlState   *state = source->state;
	StringInfo	body = &state->body[state->current];

	if (source->spec.query == NULL && (source->spec.function == NULL || source->spec.get_command == NULL))
	{
		source_fail(source, answer, "configuration", "the connector cannot be asked for one record of type \"%s\"",
					source->spec.resource_type);
		answer->not_supported = true;
		return;
	}
	answer->started_at = GetCurrentTimestamp();
	resetStringInfo(body);
	sql_begin(source);
	if (source->spec.query)
		sql_query_one(source, external_id, body);
	else
		sql_call_function(source, source_get_request(&source->spec, external_id), body);
	sql_end(source);
	answer->body = body->data;
	answer->len = body->len;
	answer->ms = (GetCurrentTimestamp() - answer->started_at) / 1000.0;
	if (source->spec.query == NULL)
		source_one_record(source, answer);
}

const SourceKind source_kind_sql = {
	.name = "sql",
	.open = sql_open,
	.ask = sql_ask,
	.answer = sql_answer,
	.get = sql_get,
	.close = sql_close,
};

/*
 * source_query_problem: why a text is not one plain SELECT, or NULL.  Only
 * then is it safe to put it in parentheses.
 */
const char *
source_query_problem(const char *query)
{
	MemoryContext context = CurrentMemoryContext;
	const char *volatile problem = NULL;

	PG_TRY();
	{
		List	   *trees = raw_parser(query, RAW_PARSE_DEFAULT);
		SelectStmt *select;

		if (list_length(trees) != 1)
			problem = "it is not one statement";
		else if (!IsA(linitial_node(RawStmt, trees)->stmt, SelectStmt))
			problem = "it is not a SELECT";
		else
		{
			select = (SelectStmt *) linitial_node(RawStmt, trees)->stmt;
			if (select->intoClause)
				problem = "it has an INTO clause";
			else if (select->lockingClause)
				problem = "it locks rows";
			else if (strchr(query, ';') != NULL && linitial_node(RawStmt, trees)->stmt_len > 0)
				problem = "it ends with a semicolon";
		}
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		/* The parser holds nothing that would need a rollback. */
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (edata->sqlerrcode != ERRCODE_SYNTAX_ERROR && ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR))
			PG_RE_THROW();
		FlushErrorState();
		problem = edata->message;
	}
	PG_END_TRY();
	return problem;
}
