/*
 * request.c
 *	  Reads the few members of a command that matter here, by scanning the top
 *	  level of the JSON object.  Other members are stepped over, whatever they
 *	  hold; the journal has the whole body for a test to look at.
 */
#include "request.h"
#include "data.h"

#include <stdlib.h>

typedef struct scan
{
	const char *p;
	const char *end;
} scan;

static void
skip_space(scan *s)
{
	while (s->p < s->end && strchr(" \t\r\n", *s->p) != NULL && *s->p != '\0')
		s->p++;
}

/* One UTF-16 unit of an escape as UTF-8; pairs are left as two, which no id here has. */
static size_t
put_utf8(char *out, unsigned long c)
{
	if (c < 0x80)
	{
		out[0] = (char) c;
		return 1;
	}
	if (c < 0x800)
	{
		out[0] = (char) (0xc0 | c >> 6);
		out[1] = (char) (0x80 | (c & 63));
		return 2;
	}
	out[0] = (char) (0xe0 | c >> 12);
	out[1] = (char) (0x80 | (c >> 6 & 63));
	out[2] = (char) (0x80 | (c & 63));
	return 3;
}

/* Read a string; out gets as much of it as fits, with a NUL after it. */
static bool
read_string(scan *s, char *out, size_t size)
{
	size_t n = 0;

	if (s->p == s->end || *s->p != '"')
		return false;
	for (s->p++; s->p < s->end && *s->p != '"'; s->p++)
	{
		char   piece[4];
		size_t len = 1;

		piece[0] = *s->p;
		if (*s->p == '\\')
		{
			if (++s->p == s->end)
				return false;
			switch (*s->p)
			{
				case 'n':
					piece[0] = '\n';
					break;
				case 't':
					piece[0] = '\t';
					break;
				case 'r':
					piece[0] = '\r';
					break;
				case 'b':
					piece[0] = '\b';
					break;
				case 'f':
					piece[0] = '\f';
					break;
				case 'u':
				{
					char hex[5] = {0};

					if (s->end - s->p < 5)
						return false;
					memcpy(hex, s->p + 1, 4);
					len = put_utf8(piece, strtoul(hex, NULL, 16));
					s->p += 4;
					break;
				}
				default:
					piece[0] = *s->p;
			}
		}
		if (n + len < size)
		{
			memcpy(out + n, piece, len);
			n += len;
		}
	}
	if (size > 0)
		out[n] = '\0';
	if (s->p == s->end)
		return false;
	s->p++;
	return true;
}

/* Step over any value. */
static bool
skip_value(scan *s)
{
	int depth = 0;

	skip_space(s);
	for (; s->p < s->end; s->p++)
	{
		char none[1];

		if (*s->p == '"')
		{
			if (!read_string(s, none, 0))
				return false;
			s->p--;
			if (depth == 0)
			{
				s->p++;
				return true;
			}
		}
		else if (*s->p == '{' || *s->p == '[')
			depth++;
		else if (*s->p == '}' || *s->p == ']')
		{
			if (depth == 0)
				return true; /* the object that we are in ends */
			if (--depth == 0)
			{
				s->p++;
				return true;
			}
		}
		else if (*s->p == ',' && depth == 0)
			return true;
	}
	return false;
}

static bool
member(scan *s, const char *key, request *q)
{
	bool string = s->p < s->end && *s->p == '"';
	char text[64];

	if (strcmp(key, "command") == 0 && string)
		return read_string(s, q->command, sizeof(q->command));
	if (strcmp(key, "externalId") == 0 && string)
		return read_string(s, q->external_id, sizeof(q->external_id));
	if (strcmp(key, "cursor") == 0 && string)
	{
		q->has_cursor = true;
		return read_string(s, q->cursor, sizeof(q->cursor));
	}
	if (strcmp(key, "modifiedSince") == 0 && string)
	{
		q->has_since = true;
		if (!read_string(s, text, sizeof(text)))
			return false;
		q->bad_since = !parse_time(text, &q->since);
		return true;
	}
	if (strcmp(key, "pageSize") == 0)
	{
		const char *start = s->p;
		size_t		n;

		if (!skip_value(s))
			return false;
		n = (size_t) (s->p - start);
		if (n > 0 && n < sizeof(text))
		{
			memcpy(text, start, n);
			text[n] = '\0';
			q->page_size = strtol(text, NULL, 10);
		}
		return true;
	}
	return skip_value(s);
}

/* False if the body is no JSON object, as far as a scan can tell. */
bool
request_parse(const char *json, size_t n, request *q)
{
	scan s = {json, json + n};
	char key[64];

	memset(q, 0, sizeof(*q));
	skip_space(&s);
	if (s.p == s.end || *s.p != '{')
		return false;
	s.p++;
	for (;;)
	{
		skip_space(&s);
		if (s.p < s.end && *s.p == '}')
			return true;
		if (!read_string(&s, key, sizeof(key)))
			return false;
		skip_space(&s);
		if (s.p == s.end || *s.p != ':')
			return false;
		s.p++;
		skip_space(&s);
		if (!member(&s, key, q))
			return false;
		skip_space(&s);
		if (s.p < s.end && *s.p == ',')
			s.p++;
		else if (s.p == s.end || *s.p != '}')
			return false;
	}
}

/* A member of an object: a string's text, or another value as it is written. */
bool
request_member(const char *json, size_t n, const char *name, char *out, size_t size)
{
	scan s = {json, json + n};
	char key[64];

	skip_space(&s);
	if (s.p == s.end || *s.p++ != '{')
		return false;
	for (;;)
	{
		const char *start;

		skip_space(&s);
		if (!read_string(&s, key, sizeof(key)))
			return false;
		skip_space(&s);
		if (s.p == s.end || *s.p++ != ':')
			return false;
		skip_space(&s);
		start = s.p;
		if (strcmp(key, name) == 0 && s.p < s.end && *s.p == '"')
			return read_string(&s, out, size);
		if (!skip_value(&s))
			return false;
		if (strcmp(key, name) == 0)
		{
			size_t len = (size_t) (s.p - start);

			if (len >= size)
				return false;
			memcpy(out, start, len);
			out[len] = '\0';
			return true;
		}
		skip_space(&s);
		if (s.p == s.end || *s.p++ != ',')
			return false;
	}
}

/*
 * The resource type that a command is for: "listUsers" and "getUser" both are
 * for "user".  NULL if it is neither.
 */
const char *
request_type(const request *q, char *type, size_t size, bool *single)
{
	const char *at = q->command;
	size_t		n;

	*single = strncmp(at, "get", 3) == 0;
	if (!*single && strncmp(at, "list", 4) != 0)
		return NULL;
	at += *single ? 3 : 4;
	n = strlen(at);
	if (!*single && n > 1 && at[n - 1] == 's')
		n--;
	if (n == 0 || n >= size)
		return NULL;
	memcpy(type, at, n);
	type[n] = '\0';
	if (data_find(type) == NULL && type[0] >= 'A' && type[0] <= 'Z')
		type[0] = (char) (type[0] + 32);
	return type;
}
