/*
 * json_room.c
 *	  The JSON parser of the extension, with all its memory taken beforehand.
 *
 * The parser asks palloc for more where its arena is full, and in a program without a
 * server that ends the program when there is no memory.  Here the arena has as much
 * room as the longest text may need, so that json_parse never asks: no text from
 * outside can end the program.
 *
 * Invariants:
 *	- capacity >= max_nodes: a text with more values is refused.
 *	- capacity >= max_len / 16 + 2: what json_parse wants at its beginning.
 *	- brackets has a bit for each byte of the longest text.
 */
#include "base/standalone.h"

#include "mb/pg_wchar.h"

#include "base/flohsync.h"
#include "json_room.h"

JsonParser *
json_room_create(size_t max_len, uint32_t max_nodes)
{
	JsonParser *parser = calloc(1, sizeof(JsonParser));
	size_t		capacity = Max(max_nodes, max_len / 16 + 2) + 2;
	size_t		brackets = max_len / 8 + 2;

	if (parser == NULL)
		return NULL;
	parser->nodes = calloc(capacity, sizeof(JsonNode));
	parser->brackets = calloc(brackets, 1);
	if (parser->nodes == NULL || parser->brackets == NULL)
	{
		json_room_free(parser);
		return NULL;
	}
	parser->capacity = capacity;
	parser->brackets_size = brackets;
	parser->max_nodes = capacity;
	parser->max_number_length = FLOHSYNC_MAX_NUMBER_CHARS;
	parser->max_exponent = FLOHSYNC_MAX_EXPONENT;
	return parser;
}

void
json_room_free(JsonParser *parser)
{
	if (parser == NULL)
		return;
	free(parser->nodes);
	free(parser->brackets);
	free(parser);
}

bool
json_room_parse(JsonParser *parser, const char *text, size_t len, uint32_t max_depth)
{
	/* json_parse would set these; after a refusal here there must be no tree of before. */
	parser->nnodes = 0;
	parser->error_offset = 0;
	if (len > (parser->brackets_size - 1) * 8 || len / 16 + 2 > parser->capacity)
	{
		parser->error = "too long";
		return false;
	}
	if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
	{
		parser->error = "unexpected byte order mark";
		return false;
	}
	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) != (int) len)
	{
		parser->error = "invalid UTF-8";
		return false;
	}
	if (!json_parse(parser, text, len, max_depth))
		return false;
	if (parser->nodes[JSON_ROOT].flags & JSON_F_BAD)
	{
		parser->error = "nested too deep, a number out of bounds or an escape for no character";
		return false;
	}
	return true;
}

bool
json_room_unique(const JsonParser *parser, uint32_t max_members)
{
	const JsonNode *nodes = parser->nodes;
	char		   *key = malloc(parser->len + 1);
	bool			unique = key != NULL;

	for (uint32_t i = JSON_ROOT; unique && i < parser->nnodes; i++)
	{
		if (nodes[i].type != JSON_OBJECT)
			continue;
		unique = nodes[i].count <= max_members;
		for (uint32_t a = nodes[i].child; unique && a != 0; a = nodes[nodes[a].next].next)
		{
			uint32_t len = json_string_decode(parser, &nodes[a], key);

			for (uint32_t b = nodes[nodes[a].next].next; unique && b != 0;
				 b = nodes[nodes[b].next].next)
				unique = !json_string_equals(parser, &nodes[b], key, len);
		}
	}
	free(key);
	return unique;
}

uint32_t
json_room_member(const JsonParser *parser, uint32_t object, const char *name)
{
	return json_member(parser, object, name, strlen(name));
}

char *
json_room_string(const JsonParser *parser, uint32_t node, size_t *len)
{
	const JsonNode *string = &parser->nodes[node];
	char		   *text = malloc(string->end - string->start);

	if (text == NULL)
		return NULL;
	*len = json_string_decode(parser, string, text);
	text[*len] = '\0';
	return text;
}

bool
json_room_is(const JsonParser *parser, uint32_t node, const char *value)
{
	return parser->nodes[node].type == JSON_STRING &&
		json_string_equals(parser, &parser->nodes[node], value, strlen(value));
}
