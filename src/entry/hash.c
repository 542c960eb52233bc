/*
 * hash.c
 *	  canonical_json(jsonb) and resource_hash(text, text, text, jsonb): the
 *	  hash of the sync path, for SQL; and record_hash, which leaves out what
 *	  the configuration says (hash_ignore).
 *
 * They go through the same parser and serializer as a page, fed with what
 * jsonb prints, so that a stored record has the digest that its page had.
 * Both work in UTF-8, whatever the encoding of the database is.
 */
#include "postgres.h"

#include "base/compat.h"

#include "json/canonical.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "json/json.h"
#include "mb/pg_wchar.h"
#include "page/page.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

/* More than this is given back after each call. */
#define KEEP_NODES (64 * 1024)
#define KEEP_BYTES (1024 * 1024)

extern PGDLLEXPORT Datum flohsync_canonical_json(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum flohsync_resource_hash(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum flohsync_record_hash(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(flohsync_canonical_json);
PG_FUNCTION_INFO_V1(flohsync_resource_hash);
PG_FUNCTION_INFO_V1(flohsync_record_hash);

static JsonParser *parser = NULL;
static Canonical  *canonical = NULL;

/* An error in the last call may have left large buffers. */
static void
hash_begin(void)
{
	if (canonical == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		if (parser == NULL)
		{
			parser = json_parser_create();
			parser->max_nodes = MaxAllocSize / sizeof(JsonNode);
		}
		canonical = canonical_create();
		MemoryContextSwitchTo(old);
	}
	canonical_reset(canonical);
}

static void
hash_end(void)
{
	json_parser_trim(parser, KEEP_NODES);
	canonical_trim(canonical, KEEP_BYTES);
}

static void
append_jsonb(Jsonb *value, const CanonicalPath *ignored, int nignored)
{
	char *text = JsonbToCString(NULL, &value->root, VARSIZE(value));
	char *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);

	/* It is JSON, so all that can be wrong is that it has too many values. */
	if (!json_parse(parser, utf8, strlen(utf8), UINT32_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("could not convert the value to canonical form"),
				 errdetail("At byte %zu of its text: %s.", parser->error_offset, parser->error)));
	canonical_append_node(canonical, parser, JSON_ROOT, ignored, nignored);
	if (utf8 != text)
		pfree(utf8);
	pfree(text);
}

static void
append_text(FunctionCallInfo fcinfo, int arg)
{
	text *value;
	char *utf8;
	int	  len;

	if (PG_ARGISNULL(arg))
	{
		canonical_append_string(canonical, NULL, 0);
		return;
	}
	value = PG_GETARG_TEXT_PP(arg);
	len = VARSIZE_ANY_EXHDR(value);
	utf8 = pg_server_to_any(VARDATA_ANY(value), len, PG_UTF8);
	canonical_append_string(canonical, utf8, utf8 == VARDATA_ANY(value) ? len : strlen(utf8));
}

static void
append_literal(const char *literal)
{
	canonical_append_bytes(canonical, literal, strlen(literal));
}

Datum
flohsync_canonical_json(PG_FUNCTION_ARGS)
{
	Jsonb *value = PG_GETARG_JSONB_P(0);
	char  *server;
	text  *result;

	hash_begin();
	append_jsonb(value, NULL, 0);
	if (canonical->len > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("canonical form is too long"),
				 errdetail("It has %zu bytes.", canonical->len)));
	server = pg_any_to_server(canonical->data, canonical->len, PG_UTF8);
	result = cstring_to_text_with_len(server,
									  server == canonical->data ? canonical->len : strlen(server));
	hash_end();
	PG_RETURN_TEXT_P(result);
}

/* The digest of id, name, e-mail and attributes, the first four arguments. */
static Datum
hash_of_record(FunctionCallInfo fcinfo, const CanonicalPath *ignored, int nignored)
{
	text *result;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	hash_begin();
	append_literal("{\"attributes\":");
	if (PG_ARGISNULL(3))
		append_literal("null");
	else
		append_jsonb(PG_GETARG_JSONB_P(3), ignored, nignored);
	append_literal(",\"displayName\":");
	append_text(fcinfo, 1);
	append_literal(",\"email\":");
	append_text(fcinfo, 2);
	append_literal(",\"externalId\":");
	append_text(fcinfo, 0);
	append_literal("}");
	result = palloc(VARHDRSZ + 64);
	SET_VARSIZE(result, VARHDRSZ + 64);
	canonical_hash(canonical, VARDATA(result));
	hash_end();
	PG_RETURN_TEXT_P(result);
}

Datum
flohsync_resource_hash(PG_FUNCTION_ARGS)
{
	return hash_of_record(fcinfo, NULL, 0);
}

Datum
flohsync_record_hash(PG_FUNCTION_ARGS)
{
	CanonicalPath *ignored = NULL;
	int			   nignored = 0;

	if (!PG_ARGISNULL(4))
	{
		Datum		*elements;
		bool		*nulls;
		int			 n;
		const char **paths;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(4), TEXTOID, -1, false, TYPALIGN_INT, &elements,
						  &nulls, &n);
		paths = palloc(sizeof(char *) * Max(n, 1));
		for (int i = 0; i < n; i++)
			paths[i] = nulls[i] ? "" : TextDatumGetCString(elements[i]);
		ignored = page_ignored(paths, n, &nignored);
	}
	return hash_of_record(fcinfo, ignored, nignored);
}
