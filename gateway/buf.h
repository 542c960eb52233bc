/*
 * buf.h
 *	  A growing byte buffer, and memory that is never NULL.  See buf.c.
 */
#ifndef GATEWAY_BUF_H
#define GATEWAY_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct Buf
{
	char  *p; /* NULL while nothing was added; else a zero byte follows the last one */
	size_t n;
	size_t size;
} Buf;

extern void *must_have(void *p);	  /* ends the program for NULL */
extern void *must_alloc(size_t size); /* zeroed */
extern void *must_realloc(void *p, size_t size);
extern char *must_copy(const char *text);
extern char *must_copy_n(const char *text, size_t n);

extern void buf_add(Buf *b, const void *bytes, size_t n);
extern void buf_text(Buf *b, const char *text);
extern void buf_char(Buf *b, char c);
extern void buf_printf(Buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A JSON string, with its quotes; bytes that are no UTF-8 become U+FFFD. */
extern void buf_json(Buf *b, const char *text, size_t n);
/* A JSON string, or null for NULL. */
extern void buf_json_text(Buf *b, const char *text);

extern void buf_free(Buf *b);
/* The bytes, which the caller frees; the buffer is empty then. */
extern char *buf_take(Buf *b);

/* Whether bytes are UTF-8 as PostgreSQL takes it: valid, without a zero byte. */
extern bool is_text(const char *p, size_t n);

#endif /* GATEWAY_BUF_H */
