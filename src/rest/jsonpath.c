/*
 * jsonpath.c
 *	  Paths that PostgreSQL evaluates: all that rest/path.c does not know.
 *
 * jsonb_in and jsonb_path_query_array touch no table, so they work without a
 * transaction, and an error of theirs leaves nothing behind but memory.
 * That of a path counts as "nothing found".  Any other, such as that of a value
 * which jsonb does not take, says nothing about what is there: that is a failure.
 *
 * How much memory that takes is up to PostgreSQL, so whether there is as much is
 * looked at before: as for the value, and for one or two more of what is found.
 * "**" finds a value once for each level that it is below.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/flohsync.h"
#include "rest/reading.h"

/* A text that weighs no more than this is not weighed, unless a path may find it many times. */
#define JSONPATH_LITTLE (1024 * 1024)

/* As PostgreSQL writes a path back, a variable is a "$" before a quoted name. */
static bool
jsonpath_has_variables(void *compiled)
{
	const char *text = DatumGetCString(
		DirectFunctionCall1(jsonpath_out, PointerGetDatum(compiled)));
	bool quoted = false;

	for (const char *p = text; *p; p++)
	{
		if (quoted && *p == '\\' && p[1] != '\0')
			p++;
		else if (*p == '"')
			quoted = !quoted;
		else if (!quoted && p[0] == '$' && p[1] == '"')
			return true;
	}
	return false;
}

/* rest_jsonpath_compile returns NULL, or what is wrong with the path. */
const char *
rest_jsonpath_compile(RestPath *path)
{
	MemoryContext context = CurrentMemoryContext;
	const char *volatile problem = NULL;

	PG_TRY();
	{
		path->compiled = DatumGetPointer(
			DirectFunctionCall1(jsonpath_in, CStringGetDatum(path->text)));
	}
	PG_CATCH();
	{
		ErrorData *edata;
		int		   category;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
		/* The three that a path can be the cause of. */
		if (category != ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR) &&
			category != ERRCODE_DATA_EXCEPTION && category != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		FlushErrorState();
		problem = edata->message;
	}
	PG_END_TRY();
	if (problem == NULL && jsonpath_has_variables(path->compiled))
		problem = "a jsonpath cannot use variables here";
	return problem;
}

/*
 * What is evaluated lives in contexts of its own: "work" is empty again after
 * each path, "value" keeps the jsonb of a text that rest_jsonpath_keep named, as
 * a record is asked by one path after the other.
 */
static MemoryContext jsonpath_value_context;
static MemoryContext jsonpath_work_context;
static Datum		 jsonpath_no_variables;
static Datum		 jsonpath_value;
static bool			 jsonpath_has_value;
static const char	*jsonpath_kept;
static int			 jsonpath_kept_len;

typedef enum JsonpathWant
{
	JSONPATH_ALL,
	JSONPATH_FIRST, /* the first item that is not null, or a null */
	JSONPATH_FULL	/* the same, and no empty text */
} JsonpathWant;

static void
jsonpath_prepare(void)
{
	if (jsonpath_work_context != NULL)
		return;
	if (jsonpath_value_context == NULL)
		jsonpath_value_context = AllocSetContextCreate(TopMemoryContext, "flohsync jsonpath value",
													   ALLOCSET_DEFAULT_SIZES);
	if (jsonpath_no_variables == (Datum) 0)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		jsonpath_no_variables = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
		MemoryContextSwitchTo(old);
	}
	jsonpath_work_context = AllocSetContextCreate(TopMemoryContext, "flohsync jsonpath work",
												  ALLOCSET_DEFAULT_SIZES);
}

/*
 * rest_jsonpath_keep: until the next call, this text (or none) stays as it is and is
 * converted once.
 */
void
rest_jsonpath_keep(const char *json, int len)
{
	jsonpath_kept = json;
	jsonpath_kept_len = len;
	jsonpath_has_value = false;
	if (jsonpath_value_context != NULL)
		MemoryContextReset(jsonpath_value_context);
}

static Datum
jsonpath_convert(const char *json, int len)
{
	MemoryContext context = jsonpath_work_context;
	bool		  keep = jsonpath_kept == json && jsonpath_kept_len == len;
	char		 *copy;
	Datum		  value;

	if (keep && jsonpath_has_value)
		return jsonpath_value;
	MemoryContextSwitchTo(context);
	copy = pnstrdup(json, len);
	value = DirectFunctionCall1(jsonb_in, CStringGetDatum(copy));
	if (!keep)
		return value;
	MemoryContextSwitchTo(jsonpath_value_context);
	jsonpath_value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	jsonpath_has_value = true;
	MemoryContextReset(context);
	return jsonpath_value;
}

/* Of what was found, as much as is wanted. */
static char *
jsonpath_text(Jsonb *found, JsonpathWant want, MemoryContext context)
{
	uint32		n = JB_ROOT_COUNT(found);
	JsonbValue *item = NULL;
	Jsonb	   *first;
	char	   *text;
	char	   *copy;

	if (n == 0)
		return "[]";
	if (want == JSONPATH_ALL)
		return MemoryContextStrdup(context, JsonbToCString(NULL, &found->root, VARSIZE(found)));
	for (uint32 i = 0; i < n && item == NULL; i++)
	{
		item = getIthJsonbValueFromContainer(&found->root, i);
		if (item->type == jbvNull ||
			(want == JSONPATH_FULL && item->type == jbvString && item->val.string.len == 0))
			item = NULL;
	}
	if (item == NULL)
		return "[null]";
	first = JsonbValueToJsonb(item);
	text = JsonbToCString(NULL, &first->root, VARSIZE(first));
	copy = MemoryContextAlloc(context, strlen(text) + 3);
	sprintf(copy, "[%s]", text);
	return copy;
}

static char *
jsonpath_query(const RestPath *path, const char *json, int len, JsonpathWant want,
			   MemoryContext context)
{
	LOCAL_FCINFO(fcinfo, 4);
	Datum result;

	jsonpath_prepare();
	InitFunctionCallInfoData(*fcinfo, NULL, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = jsonpath_convert(json, len);
	fcinfo->args[1].value = PointerGetDatum(path->compiled);
	fcinfo->args[2].value = jsonpath_no_variables;
	fcinfo->args[3].value = BoolGetDatum(true);
	MemoryContextSwitchTo(jsonpath_work_context);
	result = jsonb_path_query_array(fcinfo);
	return fcinfo->isnull ? NULL : jsonpath_text(DatumGetJsonbP(result), want, context);
}

static void
jsonpath_expect(RestState *state, const RestPath *path, const JsonParser *json, uint32 node)
{
	size_t weight = (size_t) (json->nodes[node].end - json->nodes[node].start) * JSON_MOST_WEIGHT;
	double found = 2;
	uint32 depth = FLOHSYNC_MAX_NESTING;
	int	   levels = 0;

	for (const char *p = path->text; (p = strstr(p, "**")) != NULL; p += 2)
		levels++;
	/* Mostly the least that is known says that it is little. */
	if (levels <= 1 && weight <= JSONPATH_LITTLE)
		return;
	weight = json_weight(json, node, &depth);
	for (int i = 0; i < levels; i++)
		found *= Max(depth, 1);
	memory_expect(state->source->memory, (Size) Min(weight * (1 + found), (double) (SIZE_MAX / 2)));
}

/*
 * Puts the array of what a path finds into side's tree, whose text is in the
 * current context.  False when it is not known what it finds.
 */
static bool
jsonpath_into(RestState *state, const RestPath *path, const JsonParser *tree, uint32 node,
			  JsonpathWant want, JsonParser *side)
{
	MemoryContext context = CurrentMemoryContext;
	const char	 *json = tree->text + tree->nodes[node].start;
	int			  len = tree->nodes[node].end - tree->nodes[node].start;
	char *volatile text = NULL;

	jsonpath_expect(state, path, tree, node);

	PG_TRY();
	{
		text = jsonpath_query(path, json, len, want, context);
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		/* A cancel, a termination and lack of memory are not faults of a record. */
		if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INTERNAL_ERROR)
		{
			rest_jsonpath_keep(NULL, 0);
			PG_RE_THROW();
		}
		/* The SQL/JSON conditions, 22030 to 2203G. */
		if (strncmp(unpack_sql_state(edata->sqlerrcode), "2203", 4) == 0)
			text = "[]";
		FlushErrorState();
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	MemoryContextReset(jsonpath_work_context);
	return text != NULL &&
		json_parse(side, text, strlen(text), FLOHSYNC_MAX_NESTING + REST_LEVELS_ABOVE_RECORD + 1);
}

/* rest_jsonpath_query: all that a path finds. */
bool
rest_jsonpath_query(RestState *state, const RestPath *path, const JsonParser *json, uint32 node,
					JsonParser *side)
{
	return jsonpath_into(state, path, json, node, JSONPATH_ALL, side);
}

static bool
says_yes_item(void *arg, uint32 node)
{
	return json_says_yes(arg, node);
}

/* rest_says_yes: does a path find anything that says yes? */
bool
rest_says_yes(RestState *state, const RestPath *path, JsonParser *json, uint32 node,
			  JsonParser *side)
{
	if (path->native)
		return rest_path_walk(path, path->nsteps, json, node, says_yes_item, json);
	if (!jsonpath_into(state, path, json, node, JSONPATH_ALL, side))
		return false;
	for (uint32 i = side->nodes[JSON_ROOT].child; i != 0; i = side->nodes[i].next)
		if (says_yes_item(side, i))
			return true;
	return false;
}

/* The first item that a path finds and that is not null; if full, no empty text either. */
static PageValue
jsonpath_find(RestState *state, const RestPath *path, JsonParser *json, uint32 node, bool full,
			  JsonParser *side)
{
	PageValue value = {json, 0, false};

	if (path->native)
	{
		value.node = rest_path_first(path, json, node, full, &value.found);
		return value;
	}
	value.json = side;
	if (!jsonpath_into(state, path, json, node, full ? JSONPATH_FULL : JSONPATH_FIRST, side))
	{
		value.failed = true;
		return value;
	}
	for (uint32 i = side->nodes[JSON_ROOT].child; i != 0 && value.node == 0;
		 i = side->nodes[i].next)
	{
		value.found = true;
		if (side->nodes[i].type != JSON_NULL)
			value.node = i;
	}
	return value;
}

/*
 * rest_find is the first item that a path finds and that is not null; found
 * also tells of a null, failed of a path that could not be evaluated.  What
 * PostgreSQL finds is in side's tree.
 */
PageValue
rest_find(RestState *state, const RestPath *path, JsonParser *json, uint32 node, JsonParser *side)
{
	return jsonpath_find(state, path, json, node, false, side);
}

/* rest_find_full: likewise, and no empty text. */
PageValue
rest_find_full(RestState *state, const RestPath *path, JsonParser *json, uint32 node,
			   JsonParser *side)
{
	return jsonpath_find(state, path, json, node, true, side);
}
