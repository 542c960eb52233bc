/*
 * token_cache.c
 *	  What verified tokens were found to be, so that a token is verified once.
 *
 * A token is known by the SHA-256 of its text; the text itself is not kept.  The table
 * has a fixed number of entries, and the one that was used least recently gives way.
 * It is for what was found to be right only: who sends wrong tokens displaces nothing.
 *
 * Invariants:
 *	- An entry in use is in the chain of its bucket and in the list of use, once each;
 *	  others are in the free list (linked by next) and in none of these.
 *	- used_first was used last; used_last gives way first.
 *	- A value is freed exactly once: when it is replaced, displaced, expired and asked
 *	  for, forgotten, flushed, or not kept.
 */
#include "base/standalone.h"

#include "net/crypto.h"
#include "token_cache.h"

#define NONE		(-1)
#define MAX_ENTRIES (1 << 20)

typedef struct TokenEntry
{
	unsigned char digest[CRYPTO_SHA256_BYTES];
	void		 *value;
	time_t		  expires_at;
	int			  next;	 /* in its bucket, or in the free list */
	int			  newer; /* in the list of use */
	int			  older;
} TokenEntry;

struct TokenCache
{
	TokenEntry	  *entries;
	int			  *buckets;
	uint32_t	   mask; /* of the number of a bucket */
	int			   nentries;
	int			   count;
	int			   free;
	int			   used_first;
	int			   used_last;
	TokenCacheFree free_value;
};

static void
cache_reset(TokenCache *cache)
{
	for (uint32_t i = 0; i <= cache->mask; i++)
		cache->buckets[i] = NONE;
	for (int i = 0; i < cache->nentries; i++)
		cache->entries[i].next = i + 1 < cache->nentries ? i + 1 : NONE;
	cache->free = 0;
	cache->used_first = cache->used_last = NONE;
	cache->count = 0;
}

TokenCache *
token_cache_create(int entries, TokenCacheFree free_value)
{
	TokenCache *cache = calloc(1, sizeof(TokenCache));
	uint32_t	buckets = 1;

	entries = Max(1, Min(entries, MAX_ENTRIES));
	while (buckets < (uint32_t) entries)
		buckets *= 2;
	if (cache == NULL)
		return NULL;
	cache->entries = calloc(entries, sizeof(TokenEntry));
	cache->buckets = calloc(buckets, sizeof(int));
	if (cache->entries == NULL || cache->buckets == NULL)
	{
		free(cache->entries);
		free(cache->buckets);
		free(cache);
		return NULL;
	}
	cache->nentries = entries;
	cache->mask = buckets - 1;
	cache->free_value = free_value;
	cache_reset(cache);
	return cache;
}

static void
cache_drop_value(TokenCache *cache, void *value)
{
	if (cache->free_value != NULL && value != NULL)
		cache->free_value(value);
}

/* The digest is as good as random: any of its bits make the number of a bucket. */
static int *
cache_bucket(TokenCache *cache, const unsigned char *digest)
{
	uint32_t hash;

	memcpy(&hash, digest, sizeof(hash));
	return &cache->buckets[hash & cache->mask];
}

static int
cache_find(TokenCache *cache, const unsigned char *digest)
{
	int i = *cache_bucket(cache, digest);

	while (
		i != NONE &&
		!crypto_equal(cache->entries[i].digest, CRYPTO_SHA256_BYTES, digest, CRYPTO_SHA256_BYTES))
		i = cache->entries[i].next;
	return i;
}

static void
cache_take_from_use(TokenCache *cache, int i)
{
	TokenEntry *entry = &cache->entries[i];

	*(entry->newer == NONE ? &cache->used_first :
							 &cache->entries[entry->newer].older) = entry->older;
	*(entry->older == NONE ? &cache->used_last :
							 &cache->entries[entry->older].newer) = entry->newer;
}

static void
cache_put_into_use(TokenCache *cache, int i)
{
	TokenEntry *entry = &cache->entries[i];

	entry->newer = NONE;
	entry->older = cache->used_first;
	*(entry->older == NONE ? &cache->used_last : &cache->entries[entry->older].newer) = i;
	cache->used_first = i;
}

static void
cache_remove(TokenCache *cache, int i)
{
	TokenEntry *entry = &cache->entries[i];
	int		   *link = cache_bucket(cache, entry->digest);
	void	   *value = entry->value;

	while (*link != i)
		link = &cache->entries[*link].next;
	*link = entry->next;
	cache_take_from_use(cache, i);
	memset(entry, 0, sizeof(*entry));
	entry->next = cache->free;
	cache->free = i;
	cache->count--;
	cache_drop_value(cache, value);
}

void *
token_cache_get(TokenCache *cache, const char *token, size_t len, time_t now)
{
	unsigned char digest[CRYPTO_SHA256_BYTES];
	int			  i;

	if (!crypto_sha256(token, len, digest))
		return NULL;
	i = cache_find(cache, digest);
	if (i == NONE)
		return NULL;
	if (cache->entries[i].expires_at <= now)
	{
		cache_remove(cache, i);
		return NULL;
	}
	cache_take_from_use(cache, i);
	cache_put_into_use(cache, i);
	return cache->entries[i].value;
}

bool
token_cache_put(TokenCache *cache, const char *token, size_t len, void *value, time_t expires_at)
{
	unsigned char digest[CRYPTO_SHA256_BYTES];
	TokenEntry	 *entry;
	int			 *bucket;
	int			  i;

	if (value == NULL || !crypto_sha256(token, len, digest))
	{
		cache_drop_value(cache, value);
		return false;
	}
	i = cache_find(cache, digest);
	if (i != NONE)
		cache_remove(cache, i);
	if (cache->free == NONE)
		cache_remove(cache, cache->used_last);
	i = cache->free;
	entry = &cache->entries[i];
	cache->free = entry->next;
	memcpy(entry->digest, digest, sizeof(digest));
	entry->value = value;
	entry->expires_at = expires_at;
	bucket = cache_bucket(cache, digest);
	entry->next = *bucket;
	*bucket = i;
	cache_put_into_use(cache, i);
	cache->count++;
	return true;
}

void
token_cache_forget(TokenCache *cache, const char *token, size_t len)
{
	unsigned char digest[CRYPTO_SHA256_BYTES];
	int			  i = crypto_sha256(token, len, digest) ? cache_find(cache, digest) : NONE;

	if (i != NONE)
		cache_remove(cache, i);
}

void
token_cache_flush(TokenCache *cache)
{
	while (cache->used_last != NONE)
		cache_remove(cache, cache->used_last);
}

int
token_cache_count(const TokenCache *cache)
{
	return cache->count;
}

void
token_cache_free(TokenCache *cache)
{
	if (cache == NULL)
		return;
	token_cache_flush(cache);
	free(cache->entries);
	free(cache->buckets);
	free(cache);
}
