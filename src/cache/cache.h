/*
 * cache.h
 *	  Single records in Redis.  See cache.c.
 */
#ifndef FLOHSYNC_CACHE_H
#define FLOHSYNC_CACHE_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "net/redis.h"
#include "record/outbox.h"

#define CACHE_TOKEN_BYTES 16

typedef struct CacheKey
{
	uint64		writes; /* shmem_cache_writes() from before the connector was looked up */
	pg_uuid_t	connector;
	Datum		name;		 /* text: what the caller calls the connector */
	Datum		type;		 /* text */
	Datum		external_id; /* text */
	const char *text;		 /* as Redis has it */
	size_t		len;
} CacheKey;

typedef enum CacheState
{
	CACHE_OFF,		/* there is no Redis */
	CACHE_BYPASS,	/* not to be asked, or not to be believed, now */
	CACHE_INACTIVE, /* the tables do not know of this Redis: the invalidator must tell them */
	CACHE_READY
} CacheState;

typedef enum CacheResult
{
	CACHE_HIT,
	CACHE_MISS,
	CACHE_FAILED
} CacheResult;

/* A placeholder of ours that stands for a key. */
typedef struct CacheLease
{
	bool held;
	bool has_token;
	char value[1 + CACHE_TOKEN_BYTES];
} CacheLease;

extern char *cache_key_text(const pg_uuid_t *connector, const text *type, const text *external_id,
							size_t *len);
extern CacheState  cache_enter(const CacheKey *key, OutboxView *view);
extern CacheResult cache_read(const CacheKey *key, const OutboxView *view, Jsonb **value,
							  CacheLease *lease);
extern bool		   cache_may_store(void);
extern bool		   cache_store(const CacheKey *key, const OutboxView *view, const CacheLease *lease,
							   Jsonb *value, int64 ttl_ms, bool *invalidated);
extern void		   cache_give_up(const CacheKey *key, const CacheLease *lease);
extern void		   cache_post_give_up(const CacheKey *key, const CacheLease *lease);
extern CacheResult cache_get(const CacheKey *key, const OutboxView *view, Jsonb **value);
extern void		   cache_get_denied(const CacheKey *key);
extern bool cache_put(const CacheKey *key, const OutboxView *view, Jsonb *value, int64 ttl_ms);

/* of cache/put.c */
typedef struct Script
{
	const char *text;
	char		sha[41]; /* empty: not computed yet */
} Script;

extern Script	   cache_script_put;
extern CacheResult cache_look_at(const CacheKey *key, const OutboxView *view, Jsonb **value,
								 CacheLease *lease, char *other);
extern StringInfo  cache_encode(const OutboxView *view, Jsonb *value);
extern RedisReply *cache_script(Script *script, const CacheKey *key, int nargs,
								const char *const *args, const size_t *args_len);
extern RedisReply *cache_delete(const CacheKey *key);
extern bool		   cache_reply_failed(const RedisReply *reply);

#endif /* FLOHSYNC_CACHE_H */
