/*
 * cache_put.c
 *	  cache_get and cache_put: for who fetches by himself.
 *
 * A miss leaves an observation in Redis, and its token here; a later put of the
 * same session stores only if it is still there, so that an invalidation
 * between the two is not undone.  Other than a lease it keeps nobody waiting.
 * A get that could leave none denies the put.  A put without a get before is
 * stored: the caller says that the value is good now.
 */
#include "postgres.h"

#include "compat.h"

#include "common/hashfn.h"

#include "cache.h"
#include "guc.h"
#include "redis.h"
#include "shmem_cache.h"

#define REMEMBERED	256

/* What this session has looked for; the oldest is forgotten first. */
static struct Seen
{
	uint64		key[2];			/* hash of the key; 0: unused */
	bool		denied;
	CacheLease	lease;
}			seen[REMEMBERED];
static int	next_seen = 0;

static struct Seen *
seen_find(const CacheKey *key, bool create)
{
	uint64		hash[2] = {
		hash_bytes_extended((const unsigned char *) key->text, (int) key->len, 1) | 1,
		hash_bytes_extended((const unsigned char *) key->text, (int) key->len, 2)
	};
	struct Seen *entry;

	for (int i = 0; i < REMEMBERED; i++)
		if (seen[i].key[0] == hash[0] && seen[i].key[1] == hash[1])
			return &seen[i];
	if (!create)
		return NULL;
	entry = &seen[next_seen];
	next_seen = (next_seen + 1) % REMEMBERED;
	memset(entry, 0, sizeof(*entry));
	memcpy(entry->key, hash, sizeof(hash));
	return entry;
}

/* cache_get_denied notes that a get could not be observed: what is put then could be old. */
void
cache_get_denied(const CacheKey *key)
{
	seen_find(key, true)->denied = true;
}

CacheResult
cache_get(const CacheKey *key, const OutboxView *view, Jsonb **value)
{
	struct Seen *entry;
	CacheLease	lease = {.held = false};
	char		other;
	CacheResult result = CACHE_FAILED;

	if (cache_new_lease(&lease, 'G'))
		result = cache_look_at(key, view, value, &lease, &other);
	if (result == CACHE_HIT)
	{
		shmem_cache_worked();
		shmem_cache_count(CACHE_HITS, 1);
		if ((entry = seen_find(key, false)) != NULL)
			memset(entry, 0, sizeof(*entry));
		return result;
	}
	entry = seen_find(key, true);
	entry->denied = !lease.held;
	entry->lease = lease;
	if (result == CACHE_MISS)
	{
		shmem_cache_worked();
		shmem_cache_count(CACHE_MISSES, 1);
	}
	return result;
}

/* cache_put: false when the value is not stored. */
bool
cache_put(const CacheKey *key, const OutboxView *view, Jsonb *value, int64 ttl_ms)
{
	struct Seen *entry = seen_find(key, false);
	StringInfo	encoded;
	char		ms[32];
	RedisReply *reply;
	bool		invalidated;

	if (entry != NULL && entry->denied)
		return false;
	if (entry != NULL)
	{
		/* Once only: whatever becomes of it, another put needs another get. */
		entry->denied = true;
		if (!cache_store(key, view, &entry->lease, value, ttl_ms, &invalidated))
			return false;
		memset(entry, 0, sizeof(*entry));
		return true;
	}
	if ((encoded = cache_encode(view, value)) == NULL)
		return false;
	snprintf(ms, sizeof(ms), INT64_FORMAT, ttl_ms);
	{
		const char *args[2] = {encoded->data, ms};
		size_t		len[2] = {encoded->len, strlen(ms)};

		reply = cache_script(&cache_script_put, key, 2, args, len);
	}
	if (reply == NULL)
		return false;
	if (reply->type == REDIS_IS_ERROR && redis_error(reply) == REDIS_ERROR_WRONG_TYPE)
	{
		shmem_cache_count(CACHE_POISONED, 1);
		(void) cache_delete(key);
		return false;
	}
	if (reply->type != REDIS_IS_INTEGER)
	{
		(void) cache_reply_failed(reply);
		return false;
	}
	shmem_cache_worked();
	if (reply->integer == 1)
		shmem_cache_count(CACHE_STORED, 1);
	return reply->integer == 1;
}
