/*
 * json_text.c
 *	  What a parsed text says: strings without their escapes, members by name.
 */
#ifdef FLOHSYNC_STANDALONE
#include "shim.h"
#else
#include "postgres.h"
#endif

#include "json.h"

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

uint32_t
json_string_decode(const JsonParser *parser, const JsonNode *node, char *out)
{
	Bytes		p = (Bytes) parser->text + node->start + 1;
	Bytes		end = (Bytes) parser->text + node->end - 1;
	char	   *start = out;

	if ((node->flags & JSON_F_ESCAPED) == 0)
	{
		memcpy(out, p, end - p);
		return end - p;
	}
	while (p < end)
	{
		int			unit;

		if (*p != '\\')
		{
			*out++ = *p++;
			continue;
		}
		p += 2;
		switch (p[-1])
		{
			case 'b':
				*out++ = '\b';
				continue;
			case 'f':
				*out++ = '\f';
				continue;
			case 'n':
				*out++ = '\n';
				continue;
			case 'r':
				*out++ = '\r';
				continue;
			case 't':
				*out++ = '\t';
				continue;
			case 'u':
				break;
			default:
				*out++ = p[-1];
				continue;
		}
		unit = json_hex4(p);
		p += 4;
		if (unit >= 0xD800 && unit <= 0xDFFF)
		{
			int			low = -1;

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
		out = json_put_utf8(out, unit == 0 ? 0xFFFD : unit);
	}
	return out - start;
}

/* For a value without escapes of its own, which is all that callers ask for. */
bool
json_string_equals(const JsonParser *parser, const JsonNode *node, const char *value, uint32_t len)
{
	uint32_t	raw = node->end - node->start - 2;
	char		buf[256];

	if (likely((node->flags & JSON_F_ESCAPED) == 0))
		return raw == len && memcmp(parser->text + node->start + 1, value, len) == 0;
	if (raw > sizeof(buf) || raw < len)
		return false;
	return json_string_decode(parser, node, buf) == len && memcmp(buf, value, len) == 0;
}

uint32_t
json_member(const JsonParser *parser, uint32_t object, const char *key, uint32_t len)
{
	const JsonNode *nodes = parser->nodes;
	uint32_t	found = 0;

	if (nodes[object].type != JSON_OBJECT)
		return 0;
	for (uint32_t i = nodes[object].child; i != 0; i = nodes[nodes[i].next].next)
	{
		if (json_string_equals(parser, &nodes[i], key, len))
			found = nodes[i].next;
	}
	return found;
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
