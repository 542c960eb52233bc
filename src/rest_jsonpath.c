/*
 * rest_jsonpath.c
 *	  Paths that PostgreSQL evaluates: all that rest_path.c does not know.
 *
 * jsonb_in and jsonb_path_query_array touch no table, so they work without a
 * transaction, and an error of theirs leaves nothing behind but memory.
 * That of a path counts as "nothing found".  Any other, such as that of a value
 * which jsonb does not take, says nothing about what is there: that is a failure.
 */
#include "postgres.h"

#include "compat.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "rest.h"

/* rest_jsonpath_compile raises an error for what is no jsonpath. */
void
rest_jsonpath_compile(RestPath *path)
{
	path->compiled = DatumGetPointer(DirectFunctionCall1(jsonpath_in, CStringGetDatum(path->text)));
}

static char *
jsonpath_query(const RestPath *path, const char *json, int len)
{
	LOCAL_FCINFO(fcinfo, 4);
	Datum		target = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(json, len)));
	Datum		result;
	Jsonb	   *found;

	InitFunctionCallInfoData(*fcinfo, NULL, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = target;
	fcinfo->args[1].value = PointerGetDatum(path->compiled);
	fcinfo->args[2].value = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	fcinfo->args[3].value = BoolGetDatum(true);
	result = jsonb_path_query_array(fcinfo);
	if (fcinfo->isnull)
		return NULL;
	found = DatumGetJsonbP(result);
	return JsonbToCString(NULL, &found->root, VARSIZE(found));
}

/*
 * rest_jsonpath_query puts the array of all that a path finds into side's tree,
 * whose text is in the current context.  False when it is not known what it finds.
 */
bool
rest_jsonpath_query(const RestPath *path, const char *json, int len, JsonParser *side)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *volatile text = NULL;

	PG_TRY();
	{
		text = jsonpath_query(path, json, len);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		/* Cancelling, being told to end and lack of memory are no faults of a record. */
		if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INTERNAL_ERROR)
			PG_RE_THROW();
		/* The SQL/JSON conditions, 22030 to 2203G. */
		if (strncmp(unpack_sql_state(edata->sqlerrcode), "2203", 4) == 0)
			text = "[]";
		FlushErrorState();
		FreeErrorData(edata);
	}
	PG_END_TRY();
	return text != NULL && json_parse(side, text, strlen(text), FLOHSYNC_MAX_NESTING + 1);
}

/*
 * rest_find is the first item that a path finds and that is not null; found
 * also tells of a null, failed of a path that could not be evaluated.  What
 * PostgreSQL finds is in side's tree.
 */
PageValue
rest_find(RestState *state, const RestPath *path, JsonParser *json, uint32 node, JsonParser *side)
{
	PageValue	value = {json, 0, false};
	const JsonNode *at = &json->nodes[node];

	if (path->native)
	{
		value.node = rest_path_first(path, json, node, &value.found);
		return value;
	}
	value.json = side;
	if (!rest_jsonpath_query(path, json->text + at->start, at->end - at->start, side))
	{
		value.failed = true;
		return value;
	}
	for (uint32 i = side->nodes[JSON_ROOT].child; i != 0 && value.node == 0; i = side->nodes[i].next)
	{
		value.found = true;
		if (side->nodes[i].type != JSON_NULL)
			value.node = i;
	}
	return value;
}
