/*
 * json.c
 *	  A strict JSON parser (RFC 8259) for the bytes of an upstream's answer.
 *
 * It accepts and refuses what PostgreSQL's json input does, save for a byte
 * order mark, which is skipped.  The tree is an array of nodes that refer to
 * the text: nothing is copied, and the array is kept for the next text,
 * because the page faults of a fresh one cost more than the parsing.
 *
 * Invariants:
 *	- No recursion: an open container keeps its parent in its next field.
 *	- The first child of a node i, where there is one, is node i + 1.
 *	- No byte at or past text + len is read.
 *	- Flags of JSON_BUBBLE are in every container around their cause.
 *	- Bytes >= 0x80 are taken as they are: whether they are UTF-8 is the
 *	  caller's question.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/memory_page.h"
#endif

#include "base/flohsync.h"
#include "json/json.h"
#include "json/scan.h"

#define JSON_BUBBLE (JSON_F_BAD | JSON_F_REWRITE)

#define JSON_DEFAULT_NODES 0x7FFFFFFF
#define JSON_MIN_CAPACITY  1024

/* As many values as this are a large arena. */
#define JSON_LARGE (1024 * 1024)

/* After so many values, or brackets, interrupts are answered. */
#define JSON_INTERRUPTS (1 << 20)

JsonParser *
json_parser_create(void)
{
	JsonParser *parser = palloc0(sizeof(JsonParser));

	parser->context = CurrentMemoryContext;
	parser->max_nodes = JSON_DEFAULT_NODES;
	parser->max_number_length = UINT32_MAX;
	parser->max_exponent = INT32_MAX / 4;
	json_parser_expect(parser, 0, NULL, NULL);
	return parser;
}

JsonParser *
json_parser_create_limited(uint32_t max_nodes)
{
	JsonParser *parser = json_parser_create();

	parser->max_nodes = max_nodes;
	parser->max_exponent = FLOHSYNC_MAX_EXPONENT;
	parser->max_number_length = FLOHSYNC_MAX_NUMBER_CHARS;
	return parser;
}

void
json_parser_expect(JsonParser *parser, uint32_t											   depth,
				   uint32_t (*expect)(void *arg, const char *text, const char *end), void *arg)
{
	parser->expect = expect;
	parser->expect_arg = arg;
	parser->expect_depth = expect ? depth - 1 : UINT32_MAX;
}

void
json_parser_trim(JsonParser *parser, uint32_t keep)
{
	if (parser->capacity > keep)
	{
		pfree(parser->nodes);
		parser->nodes = NULL;
		parser->capacity = 0;
	}
	if (parser->brackets_size > keep)
	{
		pfree(parser->brackets);
		parser->brackets = NULL;
		parser->brackets_size = 0;
	}
}

static void
json_grow(JsonParser *parser, uint32_t wanted)
{
	size_t had = parser->capacity;
	size_t capacity = Max(had, JSON_MIN_CAPACITY);

	/* What is not used counts as well: large arenas grow by smaller steps. */
	while (capacity < wanted)
		capacity = capacity < JSON_LARGE ? capacity * 2 : Max(wanted, capacity + capacity / 4);
	if (capacity > had)
		capacity = had +
			memory_room(parser->memory, (Max(wanted, had) - had) * sizeof(JsonNode),
						(capacity - had) * sizeof(JsonNode)) /
				sizeof(JsonNode);
	if (parser->nodes == NULL)
		parser->nodes = MemoryContextAllocHuge(parser->context, (Size) capacity * sizeof(JsonNode));
	else if (capacity > parser->capacity)
		parser->nodes = repalloc_huge(parser->nodes, (Size) capacity * sizeof(JsonNode));
	parser->capacity = capacity;
}

static void
json_push_bracket(JsonParser *parser, size_t depth, bool object)
{
	size_t byte = depth / 8;

	if (byte >= parser->brackets_size)
	{
		size_t size = parser->brackets_size ? parser->brackets_size * 2 : 64;

		memory_take(parser->memory, size - parser->brackets_size);
		if (parser->brackets == NULL)
			parser->brackets = MemoryContextAllocHuge(parser->context, size);
		else
			parser->brackets = repalloc_huge(parser->brackets, size);
		parser->brackets_size = size;
	}
	if (object)
		parser->brackets[byte] |= 1 << depth % 8;
	else
		parser->brackets[byte] &= ~(1 << depth % 8);
}

/*
 * Checks a container that is too deep to be stored: p is at its bracket, the
 * result is the byte after its end.  One bit per level is all it keeps.
 */
static Bytes
json_skip_container(JsonScan *scan, Bytes p)
{
	JsonParser *parser = scan->parser;
	Bytes		end = scan->end;
	size_t		depth = 0;
	uint32_t	steps = 0;
	unsigned	flags;
	bool		object = false;

	for (;;)
	{
		/* p is at a value */
		if (p >= end)
			return json_fail(scan, p, NULL);
		if (unlikely(++steps % JSON_INTERRUPTS == 0))
			CHECK_FOR_INTERRUPTS();
		switch (*p)
		{
			case '{':
			case '[':
				object = *p == '{';
				json_push_bracket(parser, depth++, object);
				p = json_skip_space(p + 1, end);
				if (p < end && *p == (object ? '}' : ']'))
					break; /* closed below */
				if (!object)
					continue;
				goto key;
			case '"':
				p = json_scan_string(scan, p + 1, &flags);
				break;
			case 't':
				p = json_scan_word(scan, p, "true", 4);
				break;
			case 'f':
				p = json_scan_word(scan, p, "false", 5);
				break;
			case 'n':
				p = json_scan_word(scan, p, "null", 4);
				break;
			default:
				if (*p != '-' && (*p < '0' || *p > '9'))
					return json_fail(scan, p, "unexpected character");
				p = json_scan_number(scan, p, &flags);
				break;
		}
		if (p == NULL)
			return NULL;

		/* p is after a value, or at the end of an empty container */
		for (;;)
		{
			p = json_skip_space(p, end);
			if (p >= end || *p != (object ? '}' : ']'))
				break;
			p++;
			if (--depth == 0)
				return p;
			object = parser->brackets[(depth - 1) / 8] >> (depth - 1) % 8 & 1;
		}
		if (p >= end || *p != ',')
			return json_fail(scan, p, "expected a comma or the end of the container");
		p = json_skip_space(p + 1, end);
		if (!object)
			continue;
key:
		if (p >= end || *p != '"')
			return json_fail(scan, p, "expected a key");
		p = json_scan_string(scan, p + 1, &flags);
		if (p == NULL)
			return NULL;
		p = json_skip_space(p, end);
		if (p >= end || *p != ':')
			return json_fail(scan, p, "expected a colon");
		p = json_skip_space(p + 1, end);
	}
}

/* Whitespace inside a container makes its bytes differ from the canonical form. */
#define SKIP_SPACE() \
	do \
	{ \
		if (p < end && *p <= ' ') \
		{ \
			p = json_skip_space(p, end); \
			nodes[open].flags |= JSON_F_REWRITE; \
		} \
	} while (0)

/*
 * Called when node n is at the end of the room; returns the room from there on,
 * 0 when there are too many values.  It comes by now and then, so that interrupts
 * are answered where nothing has to grow.
 */
static pg_noinline uint32_t
json_more_room(JsonParser *parser, uint32_t n)
{
	CHECK_FOR_INTERRUPTS();
	if (n >= parser->max_nodes - 2)
		return 0;
	if (n > parser->capacity - 2)
		json_grow(parser, n + 3);
	return Min(parser->capacity - 2, n + JSON_INTERRUPTS);
}

/*
 * json_parse reads a text.  One loop, longer than a screen: its state is in
 * local variables, which a call for each value would put into memory.
 */
bool
json_parse(JsonParser *parser, const char *text, size_t len, uint32_t max_depth)
{
	JsonScan  scan = {(Bytes) (text ? text : ""), (Bytes) (text ? text : "") + len, parser};
	Bytes	  base = scan.base;
	Bytes	  end = scan.end;
	Bytes	  p = base;
	JsonNode *nodes;
	JsonNode *node;
	uint32_t  n = JSON_ROOT;
	uint32_t  room;
	uint32_t  open = 0; /* the innermost open container */
	uint32_t  last = 0; /* the node before the next one in it */
	uint32_t  depth = 0;
	unsigned  flags;

	parser->text = (const char *) base;
	parser->len = 0;
	parser->nnodes = 0;
	parser->error = NULL;
	parser->error_offset = 0;
	if (len >= UINT32_MAX - 64)
	{
		parser->error = "too long";
		return false;
	}
	parser->len = len;
	if (parser->capacity < len / 16 + 2)
		json_grow(parser, len / 16 + 2 < parser->max_nodes ? len / 16 + 2 : parser->max_nodes);
	nodes = parser->nodes;
	room = Min(parser->capacity - 2, JSON_INTERRUPTS);
	memset(&nodes[0], 0, sizeof(JsonNode));

	if (len >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
		p += 3;
	p = json_skip_space(p, end);

value:
	if (p >= end)
		goto unexpected;
	if (unlikely(n > room))
	{
		room = json_more_room(parser, n);
		if (room == 0)
		{
			json_fail(&scan, p, "too many values");
			return false;
		}
		nodes = parser->nodes;
	}
	nodes[last].next = n;
	last = n;
	node = &nodes[n++];
	node->start = p - base;
	node->next = 0;
	node->child = 0;
	node->count = 0;
	flags = 0;
	switch (*p)
	{
		case '"':
			node->type = JSON_STRING;
			p = json_scan_string(&scan, p + 1, &flags);
			break;
		case '{':
		case '[':
			node->type = *p == '{' ? JSON_OBJECT : JSON_ARRAY;
			if (depth == parser->expect_depth && *p == '{' && nodes[open].type == JSON_ARRAY)
			{
				uint32_t taken = parser->expect(parser->expect_arg, (const char *) p,
												(const char *) end);

				if (taken > 0)
				{
					p += taken;
					flags = JSON_F_TAKEN | JSON_F_REWRITE;
					break;
				}
			}
			if (unlikely(depth >= max_depth))
			{
				p = json_skip_container(&scan, p);
				flags = JSON_F_BAD_DEPTH | JSON_F_REWRITE;
				break;
			}
			depth++;
			node->flags = 0;
			node->next = open;
			open = last;
			p++;
			SKIP_SPACE();
			if (p >= end)
				goto unexpected;
			if (*p == (node->type == JSON_OBJECT ? '}' : ']'))
				goto close;
			node->child = n;
			last = 0;
			if (node->type == JSON_ARRAY)
				goto value;
			node->flags |= JSON_F_REWRITE; /* the order of the keys is not looked at here */
			goto key;
		case '-':
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
		case '8':
		case '9':
			node->type = JSON_NUMBER;
			p = json_scan_number(&scan, p, &flags);
			break;
		case 't':
			node->type = JSON_TRUE;
			p = json_scan_word(&scan, p, "true", 4);
			break;
		case 'f':
			node->type = JSON_FALSE;
			p = json_scan_word(&scan, p, "false", 5);
			break;
		case 'n':
			node->type = JSON_NULL;
			p = json_scan_word(&scan, p, "null", 4);
			break;
		default:
			goto unexpected;
	}
	if (unlikely(p == NULL))
		return false;
	node->end = p - base;
	node->flags = flags;
	nodes[open].flags |= flags & JSON_BUBBLE;

after:
	if (open == 0)
		goto done;
	nodes[open].count++;
	SKIP_SPACE();
	if (p >= end)
		goto unexpected;
	if (nodes[open].type == JSON_ARRAY)
	{
		if (*p == ',')
		{
			p++;
			SKIP_SPACE();
			goto value;
		}
		if (*p == ']')
			goto close;
		goto unexpected;
	}
	if (*p == '}')
		goto close;
	if (*p != ',')
		goto unexpected;
	p++;
	SKIP_SPACE();

key:
	if (p >= end || *p != '"')
		goto unexpected;
	if (unlikely(n > room))
	{
		room = json_more_room(parser, n);
		if (room == 0)
		{
			json_fail(&scan, p, "too many values");
			return false;
		}
		nodes = parser->nodes;
	}
	nodes[last].next = n;
	last = n;
	node = &nodes[n++];
	node->start = p - base;
	node->child = 0;
	node->count = 0;
	node->type = JSON_STRING;
	p = json_scan_string(&scan, p + 1, &flags);
	if (unlikely(p == NULL))
		return false;
	node->end = p - base;
	node->flags = flags;
	nodes[open].flags |= flags & JSON_BUBBLE;
	SKIP_SPACE();
	if (p >= end || *p != ':')
		goto unexpected;
	p++;
	SKIP_SPACE();
	goto value;

close:
	p++;
	node = &nodes[open];
	node->end = p - base;
	last = open;
	open = node->next;
	node->next = 0;
	nodes[open].flags |= node->flags & JSON_BUBBLE;
	depth--;
	goto after;

done:
	p = json_skip_space(p, end);
	if (p < end)
	{
		json_fail(&scan, p, "trailing characters");
		return false;
	}
	parser->nnodes = n;
	return true;

unexpected:
	json_fail(&scan, p, "unexpected character");
	return false;
}
