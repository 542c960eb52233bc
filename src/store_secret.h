/*
 * store_secret.h
 *	  Secrets of connectors, in their table and in clear.  See store_secret.c.
 */
#ifndef FLOHSYNC_STORE_SECRET_H
#define FLOHSYNC_STORE_SECRET_H

#include "source.h"

extern void store_put_secret(Datum connector, const char *name, const char *value);
extern SourceSecret *store_read_secrets(Datum connector, const char *only, int *n, MemoryContext context);
extern int64 store_rotate_secrets(void);

#endif							/* FLOHSYNC_STORE_SECRET_H */
