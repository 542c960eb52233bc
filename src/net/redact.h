/*
 * redact.h
 *	  Finds secrets in a text, however they are spelled.  See redact.c.
 */
#ifndef FLOHSYNC_REDACT_H
#define FLOHSYNC_REDACT_H

#include <stdbool.h>
#include <stddef.h>

#define REDACT_MIN	   4 /* shorter secrets are in any text */
#define REDACT_TELLING 8 /* so much of the beginning of one is hidden, too */

/*
 * redact is a copy of a text with "***" for each of some secrets (NULL: none) in
 * it; palloc'd, with a NUL behind it, "?" for NULs within, and as long as the text at most.
 */
extern char *redact(const char *const *secrets, int n, const char *text, size_t len);

/*
 * redact_finds: does a text hold one of some secrets, and all of it?  Those below
 * REDACT_TELLING bytes do not count.
 */
extern bool redact_finds(const char *const *secrets, int n, const char *text, size_t len);

#endif /* FLOHSYNC_REDACT_H */
