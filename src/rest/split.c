/*
 * split.c
 *	  Lists that are asked for in parts: one list a value of a parameter, each with
 *	  pages, a total and an end of its own (list.split).
 *
 * The parts take turns: first the first page of each, then the second one of each
 * that has one, and so on, in the order of the values.  So the next requests are
 * known, and can be sent ahead, also where only a page says where the next one is;
 * and the order of the pages does not depend on how many are asked for at a time.
 *
 * The cursor of the engine is an array of turns, the next one first: [value, where
 * its list goes on, or null].  A part that has come to its end is not in it.
 */
#include "postgres.h"

#include "utils/json.h"
#include "utils/memutils.h"

#include "json/value.h"
#include "rest/rest.h"

/* rest_split_value is the value of the part at hand; NULL: the list is not split. */
const char *
rest_split_value(const RestState *state)
{
	return state->at.nturns > 0 ? state->def->split_values[state->at.turns[0].part] : NULL;
}

static int
split_find(const RestDefinition *d, const char *value)
{
	for (int i = 0; i < d->nsplit; i++)
		if (value && strcmp(d->split_values[i], value) == 0)
			return i;
	return -1;
}

/* Reads the turns of a cursor; false: it is none. */
static bool
split_read(RestState *state, const char *cursor)
{
	const RestDefinition *d = state->def;
	JsonParser			 *json = json_parser_create();
	const JsonNode		 *nodes;
	bool				  good = json_parse(json, cursor, strlen(cursor), 3) &&
		json->nodes[JSON_ROOT].type == JSON_ARRAY;

	nodes = json->nodes;
	for (uint32 i = good ? nodes[JSON_ROOT].child : 0; i != 0 && good; i = nodes[i].next)
	{
		RestTurn *turn = &state->at.turns[state->at.nturns];
		uint32	  value = nodes[i].type == JSON_ARRAY ? nodes[i].child : 0;

		turn->part = value ? split_find(d, json_value_text(json, value)) : -1;
		good = turn->part >= 0 && state->at.nturns < d->nsplit && nodes[value].next != 0;
		for (int k = 0; k < state->at.nturns && good; k++)
			good = state->at.turns[k].part != turn->part;
		if (!good)
			break;
		turn->inner = json_value_text(json, nodes[value].next);
		state->at.nturns++;
	}
	return good && state->at.nturns > 0;
}

/* rest_split_begin takes a cursor apart, NULL: from the beginning; false: it cannot be read. */
bool
rest_split_begin(RestState *state, const char *cursor)
{
	const RestDefinition *d = state->def;

	state->at.turns = palloc0(sizeof(RestTurn) * (d->nsplit + 1));
	for (int i = 0; i < d->nsplit && cursor == NULL; i++)
		state->at.turns[state->at.nturns++].part = i;
	if (cursor && !split_read(state, cursor))
		return false;
	state->at.inner = state->at.turns[0].inner;
	state->list = &state->lists[state->at.turns[0].part];
	return true;
}

/*
 * rest_split_text is the engine's cursor behind the page at hand, whose part goes
 * on, or has ended (NULL), in the current context; NULL: all have.
 */
char *
rest_split_text(const RestState *state, const char *inner)
{
	StringInfoData out;
	int			   n = state->at.nturns - (inner == NULL);

	if (n == 0)
		return NULL;
	initStringInfo(&out);
	for (int i = 1; i <= n; i++)
	{
		const RestTurn *turn = &state->at.turns[i % state->at.nturns];
		const char	   *there = i < state->at.nturns ? turn->inner : inner;

		appendStringInfoString(&out, i == 1 ? "[[" : ",[");
		escape_json(&out, state->def->split_values[turn->part]);
		appendStringInfoChar(&out, ',');
		if (there)
			escape_json(&out, there);
		else
			appendStringInfoString(&out, "null");
		appendStringInfoChar(&out, ']');
	}
	appendStringInfoChar(&out, ']');
	return out.data;
}
