/*
 * buf.h
 *	  A byte buffer that grows.  See buf.c.
 */
#ifndef UPSTREAM_BUF_H
#define UPSTREAM_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct buf
{
	char  *p;
	size_t n;	/* bytes used */
	size_t cap; /* bytes allocated */
} buf;

extern void *must_alloc(size_t n); /* zeroed; exits when there is no memory */
extern char *must_strdup(const char *s);

extern void buf_grow(buf *b, size_t extra);
extern void buf_free(buf *b);
extern void buf_str(buf *b, const char *s);
extern void buf_int(buf *b, int64_t v);
extern void buf_pad_int(buf *b, uint64_t v, int width);
extern void buf_fill(buf *b, int c, size_t n);
extern void buf_printf(buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern void buf_json(buf *b, const char *s, size_t n); /* a quoted JSON string */
extern void buf_json_str(buf *b, const char *s);	   /* the same, "null" for NULL */

/* Make sure that extra more bytes fit. */
static inline void
buf_room(buf *b, size_t extra)
{
	if (b->cap - b->n < extra)
		buf_grow(b, extra);
}

static inline void
buf_put(buf *b, const void *data, size_t n)
{
	buf_room(b, n + 1);
	memcpy(b->p + b->n, data, n);
	b->n += n;
}

static inline void
buf_char(buf *b, char c)
{
	buf_room(b, 2);
	b->p[b->n++] = c;
}

/* Append a string literal; its length is known to the compiler. */
#define buf_lit(b, s) buf_put((b), "" s, sizeof(s) - 1)

#endif
