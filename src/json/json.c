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
#include "shim.h"
#else
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/memory_page.h"
#endif

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/flohsync.h"
#include "json/json.h"

#define JSON_BUBBLE		(JSON_F_BAD | JSON_F_REWRITE)

#define JSON_DEFAULT_NODES		0x7FFFFFFF
#define JSON_MIN_CAPACITY		1024

/* As many values as this are a large arena. */
#define JSON_LARGE				(1024 * 1024)

/* After so many values, or brackets, interrupts are answered. */
#define JSON_INTERRUPTS			(1 << 20)

/* With at most this many digits every decimal number survives a double. */
#define JSON_SAFE_DIGITS		15

typedef const unsigned char *Bytes;

typedef struct JsonScan
{
	Bytes		base;
	Bytes		end;
	JsonParser *parser;
} JsonScan;

JsonParser *
json_parser_create(void)
{
	JsonParser *parser = palloc0(sizeof(JsonParser));

	parser->context = CurrentMemoryContext;
	parser->max_nodes = JSON_DEFAULT_NODES;
	parser->max_number_length = UINT32_MAX;
	parser->max_exponent = INT32_MAX / 4;
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

static Bytes
json_fail(JsonScan *scan, Bytes at, const char *error)
{
	scan->parser->error = at >= scan->end ? "unexpected end" : error;
	scan->parser->error_offset = at - scan->base;
	return NULL;
}

static void
json_grow(JsonParser *parser, uint32_t wanted)
{
	size_t		had = parser->capacity;
	size_t		capacity = Max(had, JSON_MIN_CAPACITY);

	/* What is not used counts as well: large arenas grow by smaller steps. */
	while (capacity < wanted)
		capacity = capacity < JSON_LARGE ? capacity * 2 : Max(wanted, capacity + capacity / 4);
	if (capacity > had)
		capacity = had + memory_room(parser->memory, (Max(wanted, had) - had) * sizeof(JsonNode),
									 (capacity - had) * sizeof(JsonNode)) / sizeof(JsonNode);
	if (parser->nodes == NULL)
		parser->nodes = MemoryContextAllocHuge(parser->context, (Size) capacity * sizeof(JsonNode));
	else if (capacity > parser->capacity)
		parser->nodes = repalloc_huge(parser->nodes, (Size) capacity * sizeof(JsonNode));
	parser->capacity = capacity;
}

/* p is at a backslash; returns the byte after the escape, a pair of surrogates being one. */
static Bytes
json_scan_escape(JsonScan *scan, Bytes p, unsigned *flags)
{
	int			unit;

	*flags |= JSON_F_ESCAPED | JSON_F_REWRITE;
	if (scan->end - p < 2)
		return json_fail(scan, scan->end, NULL);
	switch (p[1])
	{
		case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
			return p + 2;
		case 'u':
			break;
		default:
			return json_fail(scan, p, "unknown escape");
	}
	for (int i = 2; i < 6; i++)
	{
		if (p + i >= scan->end)
			return json_fail(scan, scan->end, NULL);
		if (hex_digit(p[i]) < 0)
			return json_fail(scan, p, "\\u without four hex digits");
	}
	unit = json_hex4(p + 2);
	p += 6;
	if (unit >= 0xD800 && unit <= 0xDBFF && scan->end - p >= 6 && p[0] == '\\' && p[1] == 'u')
	{
		int			low = json_hex4(p + 2);

		if (low >= 0xDC00 && low <= 0xDFFF)
			return p + 6;
	}
	if (unit == 0 || (unit >= 0xD800 && unit <= 0xDFFF))
		*flags |= JSON_F_BAD_ESCAPE;
	return p;
}

/* p is after the opening quote; returns the byte after the closing one. */
static inline Bytes
json_scan_string(JsonScan *scan, Bytes p, unsigned *flags_out)
{
	Bytes		end = scan->end;
	unsigned	flags = 0;
	unsigned	high = 0;

	for (;;)
	{
#ifdef __SSE2__
		while (end - p >= 16)
		{
			__m128i		chunk = _mm_loadu_si128((const __m128i *) p);
			__m128i		stop;
			unsigned	mask;

			stop = _mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8('"')),
								_mm_cmpeq_epi8(chunk, _mm_set1_epi8('\\')));
			stop = _mm_or_si128(stop, _mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1F)), chunk));
			mask = _mm_movemask_epi8(stop);
			if (mask != 0)
			{
				high |= _mm_movemask_epi8(chunk) & (mask ^ (mask - 1));
				p += __builtin_ctz(mask);
				goto stopped;
			}
			high |= _mm_movemask_epi8(chunk);
			p += 16;
		}
#endif
		while (p < end && *p != '"' && *p != '\\' && *p >= 0x20)
			high |= *p++ & 0x80;
		if (unlikely(p >= end))
			return json_fail(scan, end, NULL);
#ifdef __SSE2__
stopped:
#endif
		if (likely(*p == '"'))
			break;
		if (*p != '\\')
			return json_fail(scan, p, "control character in a string");
		p = json_scan_escape(scan, p, &flags);
		if (p == NULL)
			return NULL;
	}
	if (high)
		flags |= JSON_F_NON_ASCII;
	*flags_out = flags;
	return p + 1;
}

/* Whether a literal is out of bounds; also true where numeric input would fail for a zero. */
static bool
json_number_is_bad(const JsonParser *parser, Bytes p, Bytes end)
{
	int64_t		point = 0;		/* digits between the first significant one and the point */
	int64_t		exponent = 0;
	bool		significant = false;
	bool		fraction = false;

	if (end - p > parser->max_number_length)
		return true;
	for (; p < end && *p != 'e' && *p != 'E'; p++)
	{
		if (*p == '.')
			fraction = true;
		else if (*p != '-')
		{
			if (*p != '0')
				significant = true;
			if (significant ? !fraction : fraction)
				point += significant ? 1 : -1;
		}
	}
	if (p < end)
	{
		bool		negative = p[1] == '-';

		for (p += (p[1] == '-' || p[1] == '+') ? 2 : 1; p < end; p++)
			exponent = exponent < INT32_MAX ? exponent * 10 + (*p - '0') : exponent;
		if (negative)
			exponent = -exponent;
	}
	if (!significant)
		return exponent < -4096 || exponent >= INT32_MAX / 2;
	exponent += point - 1;
	return exponent > parser->max_exponent || exponent < -(int64_t) parser->max_exponent;
}

/* p is at the first byte of a number; returns the byte after it. */
static inline Bytes
json_scan_number(JsonScan *scan, Bytes p, unsigned *flags_out)
{
	Bytes		end = scan->end;
	Bytes		start = p;
	Bytes		whole;
	Bytes		fraction = NULL;
	unsigned	flags = 0;
	bool		exponent = false;

	if (*p == '-')
		p++;
	whole = p;
	if (p < end && *p == '0')
		p++;
	else
	{
		while (p < end && (unsigned) (*p - '0') <= 9)
			p++;
		if (p == whole)
			return json_fail(scan, p, "a number without digits");
	}
	if (p < end && *p == '.')
	{
		fraction = ++p;
		while (p < end && (unsigned) (*p - '0') <= 9)
			p++;
		if (p == fraction)
			return json_fail(scan, p, "a number without digits after the point");
	}
	if (p < end && (*p | 0x20) == 'e')
	{
		Bytes		digits;

		exponent = true;
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		digits = p;
		while (p < end && (unsigned) (*p - '0') <= 9)
			p++;
		if (p == digits)
			return json_fail(scan, p, "a number without digits in its exponent");
	}

	/* Canonical as it stands: short, no exponent, no -0, no idle zero, not below 1e-6. */
	if (exponent || p - whole > JSON_SAFE_DIGITS)
		flags = JSON_F_REWRITE;
	else if (fraction == NULL ? (whole != start && *whole == '0')
			 : (p[-1] == '0' || (*whole == '0' && *fraction == '0')))
		flags = JSON_F_REWRITE;
	if ((exponent || p - start > 64) && json_number_is_bad(scan->parser, start, p))
		flags |= JSON_F_BAD_NUMBER;
	*flags_out = flags;
	return p;
}

static inline Bytes
json_scan_word(JsonScan *scan, Bytes p, const char *word, int len)
{
	for (int i = 0; i < len; i++)
	{
		if (p + i >= scan->end || p[i] != (unsigned char) word[i])
			return json_fail(scan, p + i, "unexpected character");
	}
	return p + len;
}

static Bytes
json_skip_space(Bytes p, Bytes end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

static void
json_push_bracket(JsonParser *parser, size_t depth, bool object)
{
	size_t		byte = depth / 8;

	if (byte >= parser->brackets_size)
	{
		size_t		size = parser->brackets_size ? parser->brackets_size * 2 : 64;

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
					break;		/* closed below */
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
	do { \
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

bool
json_parse(JsonParser *parser, const char *text, size_t len, uint32_t max_depth)
{
	JsonScan	scan = {(Bytes) (text ? text : ""), (Bytes) (text ? text : "") + len, parser};
	Bytes		base = scan.base;
	Bytes		end = scan.end;
	Bytes		p = base;
	JsonNode   *nodes;
	JsonNode   *node;
	uint32_t	n = JSON_ROOT;
	uint32_t	room;
	uint32_t	open = 0;		/* the innermost open container */
	uint32_t	last = 0;		/* the node before the next one in it */
	uint32_t	depth = 0;
	unsigned	flags;

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
			node->flags |= JSON_F_REWRITE;	/* the order of the keys is not looked at here */
			goto key;
		case '-': case '0': case '1': case '2': case '3': case '4':
		case '5': case '6': case '7': case '8': case '9':
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
