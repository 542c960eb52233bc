/*
 * put.c
 *	  cache_get and cache_put: for callers that fetch themselves.
 *
 * A miss leaves an observation in Redis, and its token here; of a hit the head
 * of the value is remembered.  The next put of the same session stores only if
 * that is unchanged, and the epoch is the same, so that an invalidation between
 * the two is not undone.  Unlike a lease it does not make other readers wait.
 *
 * A get without an observation prevents the put: Redis was not asked, or
 * the fetched value may be outdated or never be committed.  So does one that has
 * been evicted by many others.  A put without a previous get is stored: the caller
 * asserts that the value is current.
 */
#include "postgres.h"

#include "base/compat.h"

#include "common/hashfn.h"

#include "base/guc.h"
#include "cache/cache.h"
#include "net/redis.h"
#include "shared/cache.h"

#define REMEMBERED	   256
#define FORGOTTEN_BITS (1024 * 1024)

/* What this session has looked for; the oldest is forgotten first. */
static struct Seen
{
	uint64	   key[2]; /* hash of the key; 0: unused */
	bool	   denied;
	OutboxView view;
	CacheLease lease;
} seen[REMEMBERED];
static int next_seen = 0;

/* A bit for each key that was forgotten; that it stands for others as well only denies more. */
static uint8 forgotten[FORGOTTEN_BITS / 8];

static void
seen_hash(const CacheKey *key, uint64 *hash)
{
	hash[0] = hash_bytes_extended((const unsigned char *) key->text, (int) key->len, 1) | 1;
	hash[1] = hash_bytes_extended((const unsigned char *) key->text, (int) key->len, 2);
}

static bool
seen_forgotten(const uint64 *hash)
{
	uint64 bit = hash[1] % FORGOTTEN_BITS;

	return (forgotten[bit / 8] & (1 << (bit % 8))) != 0;
}

static void
seen_forget(const struct Seen *entry)
{
	uint64 bit = entry->key[1] % FORGOTTEN_BITS;

	if (entry->key[0] != 0)
		forgotten[bit / 8] |= 1 << (bit % 8);
}

static struct Seen *
seen_find(const uint64 *hash, bool create)
{
	struct Seen *entry;

	for (int i = 0; i < REMEMBERED; i++)
		if (seen[i].key[0] == hash[0] && seen[i].key[1] == hash[1])
			return &seen[i];
	if (!create)
		return NULL;
	entry = &seen[next_seen];
	next_seen = (next_seen + 1) % REMEMBERED;
	seen_forget(entry);
	memset(entry, 0, sizeof(*entry));
	memcpy(entry->key, hash, sizeof(entry->key));
	return entry;
}

/* cache_get_denied notes that a get could not be observed: what is put then could be old. */
void
cache_get_denied(const CacheKey *key)
{
	uint64 hash[2];

	seen_hash(key, hash);
	seen_find(hash, true)->denied = true;
}

CacheResult
cache_get(const CacheKey *key, const OutboxView *view, Jsonb **value)
{
	struct Seen *entry;
	uint64		 hash[2];
	CacheLease	 lease = {.value = {'G'}};
	char		 other;
	CacheResult result = cache_look_at(key, view, value, cache_may_store() ? &lease : NULL, &other);

	seen_hash(key, hash);
	entry = seen_find(hash, true);
	entry->denied = !lease.held;
	entry->view = *view;
	entry->lease = lease;
	if (result != CACHE_FAILED)
	{
		shmem_cache_worked();
		shmem_cache_count(result == CACHE_HIT ? CACHE_HITS : CACHE_MISSES, 1);
	}
	return result;
}

/* cache_put: false when the value is not stored. */
bool
cache_put(const CacheKey *key, const OutboxView *view, Jsonb *value, int64 ttl_ms)
{
	struct Seen *entry;
	uint64		 hash[2];
	StringInfo	 encoded;
	char		 ms[32];
	RedisReply	*reply;
	bool		 invalidated;

	if (!cache_may_store())
		return false;
	seen_hash(key, hash);
	entry = seen_find(hash, false);
	if (entry != NULL ? entry->denied : seen_forgotten(hash))
		return false;
	if (entry != NULL)
	{
		/* Once only: whatever becomes of it, another put needs another get. */
		entry->denied = true;
		/* With another epoch, all that was there then is void, and so is what was fetched. */
		if (entry->view.server != view->server || entry->view.epoch != view->epoch)
			return false;
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
