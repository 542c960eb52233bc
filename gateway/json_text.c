/*
 * json_text.c
 *	  Reading small pieces of JSON, with the parser of src/json.
 */
#include "base/standalone.h"

#include "json_text.h"

#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "json_room.h"

#define MOST_NODES (1024 * 1024)

JsonParser *
json_read(const char *text, size_t n)
{
	static JsonParser *parser;

	if (parser == NULL)
		parser = json_parser_create_limited(MOST_NODES);
	else
		json_parser_trim(parser, 4096);
	return json_parse(parser, text, n, JSON_DEPTH) ? parser : NULL;
}

char *
json_text_of(const JsonParser *p, uint32_t node, size_t *n)
{
	const JsonNode *v = &p->nodes[node];
	char		   *text;
	size_t			length = 0;

	if (v->type != JSON_STRING || v->flags & JSON_F_BAD_ESCAPE)
		return NULL;
	text = must_have(json_room_string(p, node, &length));
	if (n != NULL)
		*n = length;
	return text;
}

char *
json_text_member(const JsonParser *p, uint32_t object, const char *name)
{
	uint32_t node = json_member(p, object, name, strlen(name));

	return node != 0 ? json_text_of(p, node, NULL) : NULL;
}

bool
json_number_member(const JsonParser *p, uint32_t object, const char *name, long long *number)
{
	uint32_t node = json_member(p, object, name, strlen(name));
	char	 digits[24];
	uint32_t n;

	if (node == 0 || p->nodes[node].type != JSON_NUMBER || !json_is_integer(p, &p->nodes[node]))
		return false;
	n = p->nodes[node].end - p->nodes[node].start;
	if (n >= sizeof(digits))
		return false;
	memcpy(digits, p->text + p->nodes[node].start, n);
	digits[n] = '\0';
	*number = strtoll(digits, NULL, 10);
	return true;
}

bool
json_pairs(const char *text, size_t n, JsonPair call, void *arg)
{
	JsonParser *p = json_read(text, n);

	if (p == NULL || p->nodes[JSON_ROOT].type != JSON_ARRAY)
		return false;
	for (uint32_t o = p->nodes[JSON_ROOT].child; o != 0; o = p->nodes[o].next)
	{
		if (p->nodes[o].type != JSON_OBJECT)
			return false;
		for (uint32_t k = p->nodes[o].child; k != 0;)
		{
			uint32_t v = p->nodes[k].next;
			size_t	 name_n = 0;
			size_t	 value_n = 0;
			char	*name = json_text_of(p, k, &name_n);
			char	*value = json_text_of(p, v, &value_n);

			if (name != NULL && value != NULL)
				call(arg, name, name_n, value, value_n);
			free(name);
			free(value);
			k = p->nodes[v].next;
		}
	}
	return true;
}
