/*
 * buf.c
 *	  A byte buffer that grows, and the few ways of writing to it that the
 *	  server needs.  Running out of memory ends the program.
 */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void *
must_alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (p == NULL)
	{
		fputs("upstream: out of memory\n", stderr);
		exit(70);
	}
	return p;
}

char *
must_strdup(const char *s)
{
	size_t n = strlen(s) + 1;

	return memcpy(must_alloc(n), s, n);
}

void
buf_grow(buf *b, size_t extra)
{
	size_t cap = b->cap ? b->cap : 256;
	char  *p;

	while (cap - b->n < extra)
		cap *= 2;
	p = realloc(b->p, cap);
	if (p == NULL)
	{
		fputs("upstream: out of memory\n", stderr);
		exit(70);
	}
	b->p = p;
	b->cap = cap;
}

void
buf_free(buf *b)
{
	free(b->p);
	memset(b, 0, sizeof(*b));
}

void
buf_str(buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

void
buf_int(buf *b, int64_t v)
{
	if (v < 0)
	{
		buf_char(b, '-');
		v = -v;
	}
	buf_pad_int(b, (uint64_t) v, 1);
}

/* An unsigned number with leading zeros up to width digits. */
void
buf_pad_int(buf *b, uint64_t v, int width)
{
	char digits[24];
	int	 at = sizeof(digits);

	do
	{
		digits[--at] = (char) ('0' + v % 10);
		v /= 10;
	} while (v > 0);
	while ((int) sizeof(digits) - at < width && at > 0)
		digits[--at] = '0';
	buf_put(b, digits + at, sizeof(digits) - (size_t) at);
}

void
buf_fill(buf *b, int c, size_t n)
{
	buf_room(b, n + 1);
	memset(b->p + b->n, c, n);
	b->n += n;
}

void
buf_printf(buf *b, const char *format, ...)
{
	va_list args;
	int		n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	buf_room(b, (size_t) n + 1);
	va_start(args, format);
	vsnprintf(b->p + b->n, (size_t) n + 1, format, args);
	va_end(args);
	b->n += (size_t) n;
}

/* Bytes that are no ASCII pass as they are: the caller's text is UTF-8, or is meant not to be. */
void
buf_json(buf *b, const char *s, size_t n)
{
	buf_char(b, '"');
	for (size_t i = 0; i < n; i++)
	{
		unsigned char c = (unsigned char) s[i];

		if (c == '"' || c == '\\')
		{
			buf_char(b, '\\');
			buf_char(b, (char) c);
		}
		else if (c < 0x20)
			buf_printf(b, "\\u%04x", c);
		else
			buf_char(b, (char) c);
	}
	buf_char(b, '"');
}

void
buf_json_str(buf *b, const char *s)
{
	if (s == NULL)
		buf_lit(b, "null");
	else
		buf_json(b, s, strlen(s));
}
