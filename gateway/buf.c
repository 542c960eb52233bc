/*
 * buf.c
 *	  A growing byte buffer, and memory that is never NULL.
 *
 * What comes from outside is limited before it gets here, so memory that is not
 * to be had is the end of the process: whoever started it starts it anew.
 */
#include "base/standalone.h"

#include "buf.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mb/pg_wchar.h"

static _Noreturn void
out_of_memory(void)
{
	fputs("flohsync-http: out of memory\n", stderr);
	exit(1);
}

void *
must_have(void *p)
{
	if (p == NULL)
		out_of_memory();
	return p;
}

void *
must_alloc(size_t size)
{
	return must_have(calloc(1, size));
}

void *
must_realloc(void *p, size_t size)
{
	return must_have(realloc(p, size));
}

char *
must_copy_n(const char *text, size_t n)
{
	char *copy = must_alloc(n + 1);

	if (n > 0)
		memcpy(copy, text, n);
	return copy;
}

char *
must_copy(const char *text)
{
	return must_copy_n(text, strlen(text));
}

static void
buf_room(Buf *b, size_t n)
{
	size_t size = b->size ? b->size : 256;

	if (n > (size_t) 1 << 31)
		out_of_memory();
	while (size < b->n + n + 1)
		size *= 2;
	if (size != b->size)
	{
		b->p = must_realloc(b->p, size);
		b->size = size;
	}
}

void
buf_add(Buf *b, const void *bytes, size_t n)
{
	buf_room(b, n);
	if (n > 0)
		memcpy(b->p + b->n, bytes, n);
	b->n += n;
	b->p[b->n] = '\0';
}

void
buf_text(Buf *b, const char *text)
{
	buf_add(b, text, strlen(text));
}

void
buf_char(Buf *b, char c)
{
	buf_add(b, &c, 1);
}

void
buf_printf(Buf *b, const char *format, ...)
{
	va_list args;
	int		n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0)
		return;
	buf_room(b, n);
	va_start(args, format);
	vsnprintf(b->p + b->n, n + 1, format, args);
	va_end(args);
	b->n += n;
}

bool
is_text(const char *p, size_t n)
{
	return n <= INT_MAX && pg_encoding_verifymbstr(PG_UTF8, p, (int) n) == (int) n;
}

void
buf_json(Buf *b, const char *text, size_t n)
{
	size_t from = 0;
	size_t i = 0;

	buf_char(b, '"');
	while (i < n)
	{
		unsigned char c = text[i];
		int			  length = c < 0x80 ? 1 :
										  pg_encoding_verifymbchar(PG_UTF8, text + i, (int) Min(n - i, 4));

		if (c >= 0x20 && c != '"' && c != '\\' && length > 0)
		{
			i += length;
			continue;
		}
		buf_add(b, text + from, i - from);
		if (length < 0)
			buf_text(b, "\xEF\xBF\xBD");
		else if (c == '"' || c == '\\')
		{
			buf_char(b, '\\');
			buf_char(b, c);
		}
		else if (c == '\n')
			buf_text(b, "\\n");
		else
			buf_printf(b, "\\u%04x", c);
		from = ++i;
	}
	buf_add(b, text + from, i - from);
	buf_char(b, '"');
}

void
buf_json_text(Buf *b, const char *text)
{
	if (text == NULL)
		buf_text(b, "null");
	else
		buf_json(b, text, strlen(text));
}

void
buf_free(Buf *b)
{
	free(b->p);
	*b = (Buf){0};
}

char *
buf_take(Buf *b)
{
	char *p = b->p ? b->p : must_alloc(1);

	*b = (Buf){0};
	return p;
}
