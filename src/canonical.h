/*
 * canonical.h
 *	  The canonical form of JSON (RFC 8785 with one exception) and the hash of
 *	  a record.  See canonical.c.
 */
#ifndef FLOHSYNC_CANONICAL_H
#define FLOHSYNC_CANONICAL_H

/* canonical_text returns the palloc'd canonical form of a JSON text; raises 22P02 for bad JSON. */
extern char *canonical_text(const char *json, size_t len, size_t *outlen);

#endif							/* FLOHSYNC_CANONICAL_H */
