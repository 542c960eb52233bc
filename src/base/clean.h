/*
 * clean.h
 *	  Text from outside, made fit for a message.  See clean.c.
 */
#ifndef FLOHSYNC_CLEAN_H
#define FLOHSYNC_CLEAN_H

#include <stddef.h>

/* No longer message is useful. */
#define CLEAN_MAX 4096

/*
 * clean_into writes at most size - 1 bytes and a NUL, and returns their number; out may be
 * the text itself.
 */
extern size_t clean_into(char *out, size_t size, const char *text, size_t len);

/*
 * clean_text is the same, palloc'd; clean that of a C string, which may be NULL, at most
 * CLEAN_MAX bytes.
 */
extern char *clean_text(const char *text, size_t len, size_t max);
extern char *clean(const char *text);

/* clean_words also makes one blank of several, and leaves out those at the beginning. */
extern char *clean_words(const char *text, size_t len, size_t max);

/*
 * clean_json is for a JSON text, or the beginning of one: what may not stand in
 * a message is written as an escape, so that the text says what it said.
 */
extern char *clean_json(const char *text, size_t len, size_t max);

/* clean_id makes an id that can be stored and compared with others, whatever the bytes were. */
extern const char *clean_id(const char *data, int len, int max, int *outlen);

#endif /* FLOHSYNC_CLEAN_H */
