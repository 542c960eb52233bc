/*
 * jsonb.c
 *	  Makes jsonb of what json.c has parsed, without a second parser.
 *
 * Text from outside is parsed by json.c first, because numbers and depths that
 * jsonb would take very long for, or raise an error, must be found before.
 * Its tree has then all that jsonb needs.
 *
 * - Strings without escapes are not copied: jsonb copies them when it is done.
 * - Of a key that comes twice the last one counts, as in jsonb_in.
 * - The text is shorter than a string in jsonb may be; depth is bounded by
 *   json_parse, and checked again here.
 */
#include "postgres.h"

#include "base/compat.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "json/jsonb.h"

/* So many digits are an int64. */
#define JSON_INT_DIGITS 18

static void
json_jsonb_string(const JsonParser *parser, const JsonNode *node, JsonbValue *value)
{
	value->type = jbvString;
	if (node->flags & JSON_F_ESCAPED)
	{
		value->val.string.val = palloc(node->end - node->start);
		value->val.string.len = json_string_decode(parser, node, value->val.string.val);
	}
	else
	{
		value->val.string.val = unconstify(char *, parser->text + node->start + 1);
		value->val.string.len = node->end - node->start - 2;
	}
}

static Numeric
json_numeric(const JsonParser *parser, const JsonNode *node)
{
	const char *text = parser->text + node->start;
	int			len = node->end - node->start;

	if (len <= JSON_INT_DIGITS && json_is_integer(parser, node))
	{
		bool  negative = text[0] == '-';
		int64 number = 0;

		for (int i = negative; i < len; i++)
			number = number * 10 + (text[i] - '0');
		return int64_to_numeric(negative ? -number : number);
	}
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(text, len)),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static JsonbValue *
json_push(const JsonParser *parser, uint32 index, JsonbParseState **state, JsonbIteratorToken place)
{
	const JsonNode *node = &parser->nodes[index];
	JsonbValue		value;

	switch ((JsonType) node->type)
	{
		case JSON_NULL:
			value.type = jbvNull;
			break;
		case JSON_TRUE:
		case JSON_FALSE:
			value.type = jbvBool;
			value.val.boolean = node->type == JSON_TRUE;
			break;
		case JSON_NUMBER:
			value.type = jbvNumeric;
			value.val.numeric = json_numeric(parser, node);
			break;
		case JSON_STRING:
			json_jsonb_string(parser, node, &value);
			break;
		case JSON_ARRAY:
			check_stack_depth();
			pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
			for (uint32 i = node->child; i != 0; i = parser->nodes[i].next)
				(void) json_push(parser, i, state, WJB_ELEM);
			return pushJsonbValue(state, WJB_END_ARRAY, NULL);
		case JSON_OBJECT:
			check_stack_depth();
			pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
			for (uint32 i = node->child; i != 0; i = parser->nodes[i].next)
			{
				json_jsonb_string(parser, &parser->nodes[i], &value);
				pushJsonbValue(state, WJB_KEY, &value);
				i = parser->nodes[i].next;
				(void) json_push(parser, i, state, WJB_VALUE);
			}
			return pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	return pushJsonbValue(state, place, &value);
}

Jsonb *
json_to_jsonb(const JsonParser *parser)
{
	const JsonNode	*root = &parser->nodes[JSON_ROOT];
	JsonbParseState *state = NULL;
	JsonbValue		 scalar = {.type = jbvArray};

	Assert((root->flags & JSON_F_BAD) == 0);
	if (root->type == JSON_ARRAY || root->type == JSON_OBJECT)
		return JsonbValueToJsonb(json_push(parser, JSON_ROOT, &state, WJB_DONE));
	/* jsonb keeps a single value as an array of it. */
	scalar.val.array.rawScalar = true;
	scalar.val.array.nElems = 1;
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, &scalar);
	(void) json_push(parser, JSON_ROOT, &state, WJB_ELEM);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}
