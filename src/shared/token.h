/*
 * token.h
 *	  Access tokens that all processes share.  See shared/token.c.
 */
#ifndef FLOHSYNC_SHMEM_TOKEN_H
#define FLOHSYNC_SHMEM_TOKEN_H

#include "datatype/timestamp.h"

#define SHMEM_TOKEN_KEY	  32
#define SHMEM_TOKEN_BYTES 4096 /* longer ones are not shared */

extern Size shmem_token_size(void);
extern void shmem_token_startup(struct LWLock *lock);

/*
 * held: does the caller count as a user of the token?  Set here; the caller releases it at
 * the end.
 */
extern bool shmem_token_get(const unsigned char *key, char *token, TimestampTz *until, bool *held);
extern void shmem_token_put(const unsigned char *key, const char *token, TimestampTz until,
							bool *held);
extern void shmem_token_release(const unsigned char *key);

/* The right to ask for a token, of one process at a time. */
extern bool shmem_token_claim(const unsigned char *key, TimestampTz until);
extern void shmem_token_unclaim(void);

#endif /* FLOHSYNC_SHMEM_TOKEN_H */
