/*
 * sqlfn_connector.c
 *	  SQL-callable: checks of a connector's settings, and test_connector.
 */
#include "postgres.h"

#include "compat.h"

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

#include "clean.h"
#include "db.h"
#include "guc.h"
#include "http.h"
#include "page.h"
#include "store.h"

PG_FUNCTION_INFO_V1(flohsync_url_problem);
PGDLLEXPORT Datum
flohsync_url_problem(PG_FUNCTION_ARGS)
{
	const char *problem = http_url_problem(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

PG_FUNCTION_INFO_V1(flohsync_origins);
PGDLLEXPORT Datum
flohsync_origins(PG_FUNCTION_ARGS)
{
	char	   *texts[2] = {NULL, NULL};
	char	  **origins;
	Datum	   *elements;
	int			n = 0;

	for (int i = 0; i < 2; i++)
	{
		Jsonb	   *json = PG_ARGISNULL(1 + i) ? NULL : PG_GETARG_JSONB_P(1 + i);

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
	const char *problem = source_query_problem(text_to_cstring(PG_GETARG_TEXT_PP(0)));

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

/* Asks for one record of a type, and says in JSON how it went; true when well. */
static bool
test_type(Source *source, StringInfo out)
{
	SourceAnswer answer;
	UpstreamPage page;
	const char *problem = NULL;

	source_ask(source, NULL);
	source_answer(source, &answer);
	if (answer.error_class == NULL)
		source_read(source, source_parser(source), &answer, &page);
	problem = answer.error_class ? answer.message : NULL;
	if (problem)
		test_failed(out, problem);
	else
		appendStringInfo(out, "{\"ok\": true, \"records\": %d, \"errored\": %d, \"ms\": %d}",
						 page.received, page.nfaults, (int) answer.ms);
	return problem == NULL;
}

/*
 * The same, whatever the upstream does: also an error that its query raises is
 * an answer here.  Only a cancel gets through.
 */
static bool
test_type_guarded(const SourceSpec *spec, StringInfo out)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Source	   *volatile source = NULL;
	volatile bool ok = false;
	int			start = out->len;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		source = source_open(spec);
		ok = test_type(source, out);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

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
		test_failed(out, source ? source_told(source, edata->message, strlen(edata->message), CLEAN_MAX) : edata->message);
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
		" cross join lateral (select x.type from _flohsync.syncable_types(d.kind, d.config, d.definition) x(type)"
		" union select c.resource_type from flohsync.connector_sync_config c where c.connector_id = d.id) t"
		" where d.id = _flohsync.connector_id($1) order by t.type",
		1, {TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	SourceSpec *specs;
	char	   *connector;
	char	  **names;
	StringInfoData types;
	StringInfoData first_error;
	char	   *answer;
	Datum		v;
	int			n;
	bool		ok = true;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	v = PG_GETARG_DATUM(0);
	SPI_connect();
	n = (int) db_execute(&query, &v, NULL);
	specs = palloc0(sizeof(SourceSpec) * Max(n, 1));
	connector = n > 0 ? db_text(0, 1) : NULL;
	names = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		names[i] = db_text(i, 2);
	for (int i = 0; i < n; i++)
	{
		store_source_spec(connector, names[i], &specs[i], CurrentMemoryContext);
		specs[i].page_size = 1;
		specs[i].probe = true;
		specs[i].in_transaction = true;
	}

	initStringInfo(&types);
	initStringInfo(&first_error);
	for (int i = 0; i < n; i++)
	{
		int			start;

		appendStringInfoString(&types, i ? ", " : "");
		escape_json(&types, specs[i].resource_type);
		appendStringInfoString(&types, ": ");
		start = types.len;
		if (!test_type_guarded(&specs[i], &types) && ok)
		{
			ok = false;
			appendStringInfoString(&first_error, types.data + start);
		}
	}
	if (n == 0)
	{
		ok = false;
		test_failed(&first_error, "the connector names no resource types: give config.commands, or configure one");
	}
	MemoryContextSwitchTo(caller);
	answer = ok ? psprintf("{\"ok\": true, \"types\": {%s}}", types.data) :
		/* {"ok": false, "error": …} of the first type that failed, and all types */
		psprintf("%.*s, \"types\": {%s}}", first_error.len - 1, first_error.data, types.data);
	SPI_finish();
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
}
