/*
 * token_cache.h
 *	  What verified tokens were found to be.  See token_cache.c.
 */
#ifndef FLOHSYNC_TOKEN_CACHE_H
#define FLOHSYNC_TOKEN_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#define TOKEN_CACHE_ENTRIES 4096

typedef struct TokenCache TokenCache;

/* It must not call a function of the cache. */
typedef void (*TokenCacheFree)(void *value);

/* For at most so many tokens; NULL: no memory.  free_value may be NULL. */
extern TokenCache *token_cache_create(int entries, TokenCacheFree free_value);
extern void		   token_cache_free(TokenCache *cache);

/*
 * token_cache_get returns the value of a token, NULL when there is none at this time.
 * It stays the cache's, and may be freed by any later call of a function here.
 */
extern void *token_cache_get(TokenCache *cache, const char *token, size_t len, time_t now);

/*
 * token_cache_put makes a value the cache's until a time; false when it has not been
 * kept, and was freed.  A value of the same token that is there already is freed.
 */
extern bool token_cache_put(TokenCache *cache, const char *token, size_t len, void *value,
							time_t expires_at);

extern void token_cache_forget(TokenCache *cache, const char *token, size_t len);
extern void token_cache_flush(TokenCache *cache);
extern int	token_cache_count(const TokenCache *cache);

#endif /* FLOHSYNC_TOKEN_CACHE_H */
