/*
 * text.c
 *	  What a parsed text says: strings without their escapes, members by name.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/flohsync.h"
#include "json/json.h"

/*
 * What jsonb_in was measured to allocate for a value, on PostgreSQL 15: it frees
 * nothing until it is done.  Each array and object has a state and room for four
 * elements or members; an element or a member has two or three times its size, as
 * its container grows by doubling; a string is copied from token to value.
 */
#define WEIGHT_OBJECT 700
#define WEIGHT_ARRAY  320
#define WEIGHT_VALUE  140
#define WEIGHT_BYTE	  3

typedef const unsigned char *Bytes;

static char *
json_put_utf8(char *out, unsigned c)
{
	if (c < 0x80)
		*out++ = c;
	else
	{
		if (c < 0x800)
			*out++ = 0xC0 | c >> 6;
		else
		{
			if (c < 0x10000)
				*out++ = 0xE0 | c >> 12;
			else
			{
				*out++ = 0xF0 | c >> 18;
				*out++ = 0x80 | (c >> 12 & 0x3F);
			}
			*out++ = 0x80 | (c >> 6 & 0x3F);
		}
		*out++ = 0x80 | (c & 0x3F);
	}
	return out;
}

/*
 * p is at a backslash; writes what the escape stands for, 4 bytes at most, and returns what
 * follows.
 */
static Bytes
json_decode_escape(Bytes p, Bytes end, char *out, size_t *n)
{
	int unit;

	*n = 1;
	p += 2;
	switch (p[-1])
	{
		case 'b':
			*out = '\b';
			return p;
		case 'f':
			*out = '\f';
			return p;
		case 'n':
			*out = '\n';
			return p;
		case 'r':
			*out = '\r';
			return p;
		case 't':
			*out = '\t';
			return p;
		case 'u':
			break;
		default:
			*out = p[-1];
			return p;
	}
	unit = json_hex4(p);
	p += 4;
	if (unit >= 0xD800 && unit <= 0xDFFF)
	{
		int low = -1;

		if (unit <= 0xDBFF && end - p >= 6 && p[0] == '\\' && p[1] == 'u')
			low = json_hex4(p + 2);
		if (low >= 0xDC00 && low <= 0xDFFF)
		{
			unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
			p += 6;
		}
		else
			unit = 0xFFFD;
	}
	*n = json_put_utf8(out, unit == 0 ? 0xFFFD : unit) - out;
	return p;
}

uint32_t
json_string_decode(const JsonParser *parser, const JsonNode *node, char *out)
{
	Bytes p = (Bytes) parser->text + node->start + 1;
	Bytes end = (Bytes) parser->text + node->end - 1;
	char *start = out;

	if ((node->flags & JSON_F_ESCAPED) == 0)
	{
		memcpy(out, p, end - p);
		return end - p;
	}
	while (p < end)
	{
		size_t n;

		if (*p != '\\')
		{
			*out++ = *p++;
			continue;
		}
		p = json_decode_escape(p, end, out, &n);
		out += n;
	}
	return out - start;
}

bool
json_string_equals(const JsonParser *parser, const JsonNode *node, const char *value, uint32_t len)
{
	Bytes		p = (Bytes) parser->text + node->start + 1;
	Bytes		end = (Bytes) parser->text + node->end - 1;
	const char *limit = value + len;

	if (likely((node->flags & JSON_F_ESCAPED) == 0))
		return end - p == len && (len == 0 || memcmp(p, value, len) == 0);
	while (p < end)
	{
		char   c[4];
		size_t n = 1;

		if (*p == '\\')
			p = json_decode_escape(p, end, c, &n);
		else
			c[0] = *p++;
		if (limit - value < n || memcmp(value, c, n) != 0)
			return false;
		value += n;
	}
	return value == limit;
}

uint32_t
json_member(const JsonParser *parser, uint32_t object, const char *key, uint32_t len)
{
	const JsonNode *nodes = parser->nodes;
	uint32_t		found = 0;

	if (nodes[object].type != JSON_OBJECT)
		return 0;
	for (uint32_t i = nodes[object].child; i != 0; i = nodes[nodes[i].next].next)
	{
		if (json_string_equals(parser, &nodes[i], key, len))
			found = nodes[i].next;
	}
	return found;
}

/* The nodes of a value follow it in the array, in the order of the text. */
size_t
json_weight(const JsonParser *parser, uint32_t node, uint32_t *depth)
{
	const JsonNode *nodes = parser->nodes;
	uint32_t		ends[FLOHSYNC_MAX_NESTING * 2 + 1]; /* of the containers around a node */
	uint32_t		open = 0;
	uint32_t		deepest = 0;
	size_t			weight = (size_t) (nodes[node].end - nodes[node].start) * WEIGHT_BYTE;

	for (uint32_t i = node; i < parser->nnodes && nodes[i].start < nodes[node].end; i++)
	{
		switch (nodes[i].type)
		{
			case JSON_OBJECT:
				weight += WEIGHT_OBJECT;
				break;
			case JSON_ARRAY:
				weight += WEIGHT_ARRAY;
				break;
			default:
				weight += WEIGHT_VALUE;
				continue;
		}
		while (open > 0 && ends[open - 1] <= nodes[i].start)
			open--;
		if (open < lengthof(ends))
			ends[open++] = nodes[i].end;
		deepest = Max(deepest, open);
	}
	if (depth)
		*depth = deepest;
	return weight;
}

bool
json_is_integer(const JsonParser *parser, const JsonNode *node)
{
	const char *p = parser->text + node->start;
	const char *end = parser->text + node->end;

	if (node->type != JSON_NUMBER)
		return false;
	for (p += *p == '-'; p < end; p++)
	{
		if (*p < '0' || *p > '9')
			return false;
	}
	return true;
}

/* A number of zeros: not 1e-400, which is none. */
static bool
json_is_zero(Bytes p, Bytes end)
{
	bool any = false;

	for (p += p < end && *p == '-'; p < end; p++)
	{
		if (*p != '0' && *p != '.')
			return false;
		any |= *p == '0';
	}
	return any;
}

/*
 * json_says_no is the one rule for what says no, in whatever type an upstream
 * writes its booleans: null, false, 0, and the texts of these, "no", "off", "f"
 * and "n".  What is empty says neither no nor yes; anything else says yes.
 */
bool
json_says_no(const JsonParser *parser, uint32_t node)
{
	static const char *const words[] = {"false", "no", "off", "f", "n", "null"};
	const JsonNode			*item = &parser->nodes[node];
	Bytes					 p = (Bytes) parser->text + item->start;
	Bytes					 end = (Bytes) parser->text + item->end;

	if (item->type == JSON_NULL || item->type == JSON_FALSE)
		return true;
	if (item->type == JSON_NUMBER)
		return json_is_zero(p, end);
	if (item->type == JSON_ARRAY && item->child != 0)
	{
		for (uint32_t i = item->child; i != 0; i = parser->nodes[i].next)
			if (!json_says_no(parser, i))
				return false;
		return true;
	}
	if (item->type != JSON_STRING)
		return false;
	for (p++, end--; p < end && *p == ' ';)
		p++;
	while (p < end && end[-1] == ' ')
		end--;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
	{
		const char *w = words[i];
		Bytes		q = p;

		while (q < end && *w && (*q | 0x20) == *w)
			q++, w++;
		if (q == end && *w == '\0' && q > p)
			return true;
	}
	return json_is_zero(p, end);
}

/* json_says_yes: it is not empty, and does not say no. */
bool
json_says_yes(const JsonParser *parser, uint32_t node)
{
	const JsonNode *item = &parser->nodes[node];
	bool			empty = item->type == JSON_STRING ?
				   item->end - item->start == 2 :
				   (item->type == JSON_OBJECT || item->type == JSON_ARRAY) && item->child == 0;

	return !empty && !json_says_no(parser, node);
}
