/*
 * crypto_memory.h
 *	  Clear texts in memory of PostgreSQL.  See crypto_memory.c.
 */
#ifndef FLOHSYNC_CRYPTO_MEMORY_H
#define FLOHSYNC_CRYPTO_MEMORY_H

#include "utils/palloc.h"

extern void	 crypto_wipe_with(MemoryContext context, void *data, size_t len);
extern char *crypto_join(MemoryContext context, const char *a, const char *b, const char *c);

#endif /* FLOHSYNC_CRYPTO_MEMORY_H */
