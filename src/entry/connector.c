/*
 * connector.c
 *	  SQL-callable: checks of a connector's settings, and test_connector.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/bytes.h"
#include "base/clean.h"
#include "base/db.h"
#include "base/guc.h"
#include "net/http.h"
#include "page/page.h"
#include "source/commands.h"
#include "source/query.h"
#include "source/spec.h"

#define TEST_ATTRIBUTES_BYTES 20000
#define TEST_FAULTS			  3
#define TEST_PAYLOAD_BYTES	  200

PG_FUNCTION_INFO_V1(flohsync_url_problem);
PGDLLEXPORT Datum
flohsync_url_problem(PG_FUNCTION_ARGS)
{
	const char *problem = http_url_problem(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

PG_FUNCTION_INFO_V1(flohsync_kinds);
PGDLLEXPORT Datum
flohsync_kinds(PG_FUNCTION_ARGS)
{
	List  *names = NIL;
	Datum *elements;
	int	   n = 0;

	for (const char *name; (name = source_kind_name(n)) != NULL; n++)
		names = lappend(names, unconstify(char *, name));
	elements = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(list_nth(names, i));
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(flohsync_list_command);
PGDLLEXPORT Datum
flohsync_list_command(PG_FUNCTION_ARGS)
{
	Jsonb	   *config = PG_GETARG_JSONB_P(0);
	JsonParser *json = source_config(JsonbToCString(NULL, &config->root, VARSIZE(config)));
	char	   *type;

	if (json == NULL)
		PG_RETURN_NULL();
	type = text_to_cstring(PG_GETARG_TEXT_PP(1));
	PG_RETURN_TEXT_P(cstring_to_text(command_list_name(json, type)));
}

PG_FUNCTION_INFO_V1(flohsync_origins);
PGDLLEXPORT Datum
flohsync_origins(PG_FUNCTION_ARGS)
{
	char  *texts[2] = {NULL, NULL};
	char **origins;
	Datum *elements;
	int	   n = 0;

	for (int i = 0; i < 2; i++)
	{
		Jsonb *json = PG_ARGISNULL(1 + i) ? NULL : PG_GETARG_JSONB_P(1 + i);

		if (json)
			texts[i] = JsonbToCString(NULL, &json->root, VARSIZE(json));
	}
	if (!PG_ARGISNULL(0))
		n = source_origins(text_to_cstring(PG_GETARG_TEXT_PP(0)), texts[0], texts[1], &origins);
	elements = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(origins[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(flohsync_query_problem);
PGDLLEXPORT Datum
flohsync_query_problem(PG_FUNCTION_ARGS)
{
	const char *problem = query_problem(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/* Says that a type could not be read. */
static void
test_failed(StringInfo out, const char *problem)
{
	appendStringInfoString(out, "{\"ok\": false, \"error\": ");
	escape_json(out, clean(problem));
	appendStringInfoChar(out, '}');
}

static void
test_text(const Source *source, StringInfo out, const char *key, Slice text)
{
	if (text.data == NULL)
		return;
	appendStringInfo(out, ", \"%s\": ", key);
	escape_json(out, source_told(source, text.data, text.len, CLEAN_MAX));
}

/*
 * Shows what a record becomes; attributes as far as they are not large, and without what is
 * secret.
 */
static void
test_record(const Source *source, PageParser *parser, const Record *record, StringInfo out)
{
	Slice		attributes = page_stored_attributes(parser, record);
	JsonParser *json = json_parser_create();
	char	   *text;

	appendStringInfoString(out, ", \"record\": {\"externalId\": ");
	escape_json(out,
				source_told(source, record->external_id.data, record->external_id.len, CLEAN_MAX));
	test_text(source, out, "displayName", record->display_name);
	test_text(source, out, "email", record->email);
	if (attributes.data && attributes.len <= TEST_ATTRIBUTES_BYTES)
	{
		text = source_redacted(source, attributes.data, attributes.len);
		if (json_parse(json, text, strlen(text), FLOHSYNC_MAX_NESTING))
			appendStringInfo(out, ", \"attributes\": %s", text);
	}
	appendStringInfoChar(out, '}');
}

/* Says why records are set aside. */
static void
test_faults(const Source *source, const UpstreamPage *page, StringInfo out)
{
	appendStringInfoString(out, ", \"faults\": [");
	for (int i = 0; i < Min(page->nfaults, TEST_FAULTS); i++)
	{
		const RecordFault *fault = &page->faults[i];

		appendStringInfo(out, "%s{\"class\": \"%s\", \"message\": ", i ? ", " : "",
						 error_class_name(fault->error_class));
		escape_json(out, source_told(source, fault->message, strlen(fault->message), CLEAN_MAX));
		test_text(source, out, "externalId", fault->external_id);
		test_text(source, out, "begins",
				  (Slice){fault->payload.data, Min(fault->payload.len, TEST_PAYLOAD_BYTES)});
		appendStringInfoChar(out, '}');
	}
	appendStringInfoChar(out, ']');
}

/* Asks for one record of a type, and says in JSON how it went; true when well. */
static bool
test_type(Source *source, StringInfo out)
{
	PageParser	*parser = source_parser(source);
	SourceAnswer answer;
	UpstreamPage page;
	const char	*problem = NULL;

	source_ask(source, NULL);
	source_answer(source, &answer);
	if (answer.error_class == ERRCLASS_NONE)
		source_read(source, parser, &answer, &page);
	if (answer.error_class)
	{
		test_failed(out, answer.message);
		return false;
	}
	if (page.nfaults > 0 && page.nrecords == 0)
		problem = psprintf("no record could be stored: %s", page.faults[0].message);
	appendStringInfo(out, "{\"ok\": %s", problem ? "false" : "true");
	if (problem)
		test_text(source, out, "error", (Slice){problem, (int) strlen(problem)});
	appendStringInfo(out, ", \"records\": %d, \"errored\": %d, \"ms\": %d", page.received,
					 page.nfaults, (int) answer.ms);
	if (page.cut)
		appendStringInfo(out, ", \"remark\": \"%s\"", page.cut);
	if (page.nrecords > 0)
		test_record(source, parser, &page.records[0], out);
	if (page.nfaults > 0)
		test_faults(source, &page, out);
	appendStringInfoChar(out, '}');
	return problem == NULL;
}

/* Of what is said of a type that failed, what is also said of the whole. */
static void
test_first(StringInfo out, const char *said)
{
	JsonParser *json = json_parser_create();
	uint32		error;

	if (!json_parse(json, said, strlen(said), FLOHSYNC_MAX_NESTING + 2) ||
		(error = json_member(json, JSON_ROOT, "error", 5)) == 0)
		elog(ERROR, "could not read the result of a connector's test");
	appendStringInfo(out, "{\"ok\": false, \"error\": %.*s}",
					 (int) (json->nodes[error].end - json->nodes[error].start),
					 json->text + json->nodes[error].start);
}

/*
 * The same, whatever the upstream does: also an error that its query raises, or
 * a config that cannot be used, is an answer here.  Only a cancel gets through.
 */
static bool
test_type_guarded(const char *connector, const char *type, StringInfo out)
{
	SourceSpec	  spec;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Source *volatile source = NULL;
	volatile bool ok = false;
	int			  start = out->len;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		source_read_spec(connector, type, &spec, context);
		spec.page_size = 1;
		spec.probe = true;
		spec.in_transaction = true;
		source = source_open(&spec);
		ok = test_type(source, out);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
		{
			source_close(source);
			PG_RE_THROW();
		}
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		out->len = start;
		test_failed(out,
					source ?
						source_told(source, edata->message, strlen(edata->message), CLEAN_MAX) :
						edata->message);
	}
	PG_END_TRY();
	source_close(source);
	return ok;
}

PG_FUNCTION_INFO_V1(flohsync_test_connector);
PGDLLEXPORT Datum
flohsync_test_connector(PG_FUNCTION_ARGS)
{
	static DbQuery query = {
		"select d.id::pg_catalog.text, t.type"
		" from flohsync.connector_definition d"
		" cross join lateral (select x.type from _flohsync.of_kind('types', d.kind, d.config,"
		" d.definition) x(type)"
		" union select c.resource_type from flohsync.connector_sync_config c where"
		" c.connector_id = d.id) t"
		" where d.id = _flohsync.connector_id($1) order by t.type",
		1,
		{TEXTOID}};
	MemoryContext  caller = CurrentMemoryContext;
	char		  *connector;
	char		 **names;
	StringInfoData types;
	StringInfoData first_error;
	char		  *answer;
	Datum		   v;
	int			   n;
	bool		   ok = true;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	v = PG_GETARG_DATUM(0);
	SPI_connect();
	n = (int) db_execute(&query, &v, NULL);
	connector = n > 0 ? db_text(0, 1) : NULL;
	names = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		names[i] = db_text(i, 2);

	initStringInfo(&types);
	initStringInfo(&first_error);
	for (int i = 0; i < n; i++)
	{
		int start;

		appendStringInfoString(&types, i ? ", " : "");
		escape_json(&types, names[i]);
		appendStringInfoString(&types, ": ");
		start = types.len;
		if (!test_type_guarded(connector, names[i], &types) && ok)
		{
			ok = false;
			test_first(&first_error, types.data + start);
		}
	}
	if (n == 0)
	{
		ok = false;
		test_failed(
			&first_error,
			"the connector names no resource types: give config.commands, or configure one");
	}
	MemoryContextSwitchTo(caller);
	answer = ok ? psprintf("{\"ok\": true, \"types\": {%s}}", types.data) :
				  /* {"ok": false, "error": …} as of the first type that failed, and all types */
		psprintf("%.*s, \"types\": {%s}}", first_error.len - 1, first_error.data, types.data);
	SPI_finish();
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
}
