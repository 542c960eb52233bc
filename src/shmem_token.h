/*
 * shmem_token.h
 *	  Access tokens that all processes share.  See shmem_token.c.
 */
#ifndef FLOHSYNC_SHMEM_TOKEN_H
#define FLOHSYNC_SHMEM_TOKEN_H

#include "datatype/timestamp.h"

#define SHMEM_TOKEN_KEY		32
#define SHMEM_TOKEN_BYTES	4096	/* longer ones are not shared */

extern Size shmem_token_size(void);
extern void shmem_token_startup(struct LWLock *lock);

extern bool shmem_token_get(const unsigned char *key, char *token, TimestampTz *until);
extern void shmem_token_put(const unsigned char *key, const char *token, TimestampTz until);

#endif							/* FLOHSYNC_SHMEM_TOKEN_H */
