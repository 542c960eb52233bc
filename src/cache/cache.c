/*
 * cache.c
 *	  Single records in Redis: the format of values, and when they are valid
 *	  and may be stored.
 *
 *	value		 'V' '1' epoch (8 bytes) mark (7 random bytes) JSON
 *	lease		 'L' token (16 random bytes): a reader is fetching
 *	observation	 'G' token: read with cache_get, which allows a put
 *	tombstone	 'T' alone: recently invalidated; nothing is stored for a while
 *
 * The mark distinguishes two equal values: the head of a value serves as an
 * observation just as a token does.
 *
 * A read, in this order: which Redis is this; is the key pending, what is its
 * epoch (outbox.c, with a snapshot of its own); GET.  A value of this epoch is
 * then newer than every invalidation committed before the read began:
 * - an invalidation that is not pending any more was deleted from Redis before
 *   its row was deleted, so before GET;
 * - a value that is stored has a lease that existed when its fetch began and
 *   still when it was stored (compare and set, in Redis).  Deleting the key
 *   removes the lease, so fetches that began before cannot store.
 * So after the commit of a change no read that begins gets a value fetched
 * before it; a hit costs no message to Redis.  Whatever is lost in Redis
 * (evicted, flushed, expired) only means that nothing is stored.
 *
 * A fetched value is not stored when it may be older than the lease or
 * uncommitted: under REPEATABLE READ, and in a transaction that has written.
 * SERIALIZABLE transactions, and standbys, do not use the cache.
 *
 * No error is raised because of Redis, except by a cancel.  An error reply is
 * never treated as "not found".
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "base/memory_page.h"
#include "base/wait.h"
#include "cache/cache.h"
#include "json/json.h"
#include "json/jsonb.h"
#include "net/crypto.h"
#include "net/redis.h"
#include "shared/cache.h"

#define VALUE_HEAD		 10
#define VALUE_JSON		 (1 + CACHE_TOKEN_BYTES)
#define CACHE_MAX_NODES	 (1024 * 1024)
#define CACHE_KEEP_NODES (16 * 1024)
#define POLL_FIRST_MS	 5
#define POLL_LAST_MS	 50

/* cache_key_text is what Redis knows a record by. */
char *
cache_key_text(const pg_uuid_t *connector, const text *type, const text *external_id, size_t *len)
{
	Datum		   id = DirectFunctionCall1(uuid_out, UUIDPGetDatum(connector));
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "cr:");
	appendStringInfoString(&out, DatumGetCString(id));
	appendStringInfoChar(&out, ':');
	appendBinaryStringInfo(&out, VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
	appendStringInfoChar(&out, ':');
	appendBinaryStringInfo(&out, VARDATA_ANY(external_id), VARSIZE_ANY_EXHDR(external_id));
	*len = out.len;
	return out.data;
}

/* KEYS[1]; ARGV: placeholder or head of a value, value, ms */
static Script script_store = {
	"local v=redis.call('GET',KEYS[1]) "
	"if v and string.sub(v,1,#ARGV[1])==ARGV[1] then redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1 end return 0"};

/* ARGV: placeholder */
static Script script_give_up = {
	"if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0"};

/* ARGV: head of values that count, placeholder, ms.  What stands in the way is returned. */
static Script script_take = {
	"local v=redis.call('GET',KEYS[1]) "
	"if v then local t=string.sub(v,1,1) local p=#v==#ARGV[2] "
	"if (p and t=='L') or v=='T' or (p and t=='G' and string.sub(ARGV[2],1,1)=='G') or string.sub(v,1,10)==ARGV[1] then return v end end "
	"redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1"};

/* ARGV: value, ms */
Script cache_script_put = {"if redis.call('GET',KEYS[1])=='T' then return 0 end "
						   "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return 1"};

/* Counts a failure; the server log hears of it when that opens the breaker. */
static void
cache_failed(void)
{
	shmem_cache_count(CACHE_ERRORS, 1);
	if (shmem_cache_failed())
		ereport(LOG,
				(errmsg("flohsync cache disabled temporarily: Redis: %s", redis_problem()),
				 errhidestmt(true), errhidecontext(true)));
}

/*
 * cache_reply_failed judges an error reply.  True: the connection is good, and Redis
 * may be asked again.
 */
bool
cache_reply_failed(const RedisReply *reply)
{
	if (reply->type == REDIS_IS_ERROR && redis_error(reply) == REDIS_ERROR_NO_WRITES)
	{
		/* What is stored can still be read. */
		shmem_cache_count(CACHE_ERRORS, 1);
		return true;
	}
	(void) redis_fail(reply);
	cache_failed();
	return false;
}

static RedisReply *
cache_run(int argc, const char **argv, const size_t *len)
{
	RedisCommand command = {argc, argv, len};
	RedisReply	*reply;

	if (redis_run(&command, 1, &reply))
		return reply;
	if (!redis_reply_too_long())
		cache_failed();
	return NULL;
}

RedisReply *
cache_delete(const CacheKey *key)
{
	const char *argv[2] = {"DEL", key->text};
	size_t		len[2] = {3, key->len};

	return cache_run(2, argv, len);
}

/* Runs a script on a key; Redis gets its text when it does not know it. */
RedisReply *
cache_script(Script *script, const CacheKey *key, int nargs, const char *const *args,
			 const size_t *args_len)
{
	const char *argv[8] = {"EVALSHA", script->sha, "1", key->text};
	size_t		len[8] = {7, 40, 1, key->len};
	RedisReply *reply;

	if (script->sha[0] == '\0')
	{
		unsigned char digest[CRYPTO_SHA1_BYTES];

		if (!crypto_sha1(script->text, strlen(script->text), digest))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute SHA-1")));
		crypto_hex_encode(digest, sizeof(digest), script->sha);
	}
	for (int i = 0; i < nargs; i++)
	{
		argv[4 + i] = args[i];
		len[4 + i] = args_len[i];
	}
	reply = cache_run(4 + nargs, argv, len);
	if (reply && reply->type == REDIS_IS_ERROR && redis_error(reply) == REDIS_ERROR_NO_SCRIPT)
	{
		argv[0] = "EVAL";
		len[0] = 4;
		argv[1] = script->text;
		len[1] = strlen(script->text);
		reply = cache_run(4 + nargs, argv, len);
	}
	return reply;
}

static void
cache_value_head(char *head, uint64 epoch)
{
	head[0] = 'V';
	head[1] = '1';
	for (int i = 0; i < 8; i++)
		head[2 + i] = (char) (epoch >> (56 - 8 * i));
}

/*
 * Parses JSON that jsonb makes short work of; NULL: it is none.  Whatever is not, we do not
 * store.
 */
static JsonParser *
cache_parse_harmless(const char *text, size_t len)
{
	static JsonParser *parser = NULL;

	if (parser == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		parser = json_parser_create_limited(CACHE_MAX_NODES);
		MemoryContextSwitchTo(old);
	}
	if (json_parse(parser, text, len, FLOHSYNC_MAX_NESTING + 1) &&
		(parser->nodes[JSON_ROOT].flags & JSON_F_BAD) == 0 &&
		(len * JSON_MOST_WEIGHT <= memory_record_limit() ||
		 json_weight(parser, JSON_ROOT, NULL) <= memory_record_limit()))
		return parser;
	json_parser_trim(parser, CACHE_KEEP_NODES);
	return NULL;
}

static bool
cache_is_harmless(const char *text, size_t len)
{
	JsonParser *parser = cache_parse_harmless(text, len);

	if (parser)
		json_parser_trim(parser, CACHE_KEEP_NODES);
	return parser != NULL;
}

/* The JSON of a value, or NULL when it is none. */
static Jsonb *
cache_parse(const char *text, size_t len)
{
	JsonParser *parser;
	Jsonb	   *value;

	if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true) ||
		!(parser = cache_parse_harmless(text, len)))
		return NULL;
	value = json_to_jsonb(parser);
	json_parser_trim(parser, CACHE_KEEP_NODES);
	return value;
}

/*
 * cache_enter says whether Redis may be asked for a key, and what must hold for
 * what it answers.
 */
CacheState
cache_enter(const CacheKey *key, OutboxView *view)
{
	memset(view, 0, sizeof(*view));
	if (flohsync_redis_url[0] == '\0')
		return CACHE_OFF;
	if (IsolationIsSerializable() || RecoveryInProgress() || !shmem_cache_allowed())
		return CACHE_BYPASS;
	if (!redis_open(flohsync_redis_connect_timeout, flohsync_redis_timeout))
	{
		cache_failed();
		return CACHE_BYPASS;
	}
	if (!outbox_view_memoized(key->name, &key->connector, key->type, view))
		outbox_view_and_memoize(key->name, key->writes, &key->connector, key->type,
								key->external_id, view);
	if (view->server != 0 && view->server == redis_server() && !view->pending)
		return CACHE_READY;
	/* Redis is available, and there are no further requests: report that to the breaker. */
	shmem_cache_worked();
	return view->server != 0 && view->server == redis_server() ? CACHE_BYPASS : CACHE_INACTIVE;
}

/* cache_may_store: is what we fetch now certainly committed, and not older than now? */
bool
cache_may_store(void)
{
	return !IsolationUsesXactSnapshot() && !TransactionIdIsValid(GetTopTransactionIdIfAny());
}

/* Gives a placeholder its token, when it is to be put under a key: a hit needs none. */
static bool
cache_make_token(CacheLease *lease)
{
	if (!lease->has_token)
		lease->has_token = pg_strong_random(lease->value + 1, CACHE_TOKEN_BYTES);
	return lease->has_token;
}

/* SET key placeholder NX PX; a reply, or NULL. */
static RedisReply *
cache_set_new(const CacheKey *key, const CacheLease *lease, const char *ms)
{
	const char *argv[6] = {"SET", key->text, lease->value, "NX", "PX", ms};
	size_t		len[6] = {3, key->len, sizeof(lease->value), 2, 2, strlen(ms)};

	return cache_run(6, argv, len);
}

/* Has a lease take the place of what is there, unless that is a value that counts. */
static RedisReply *
cache_take(const CacheKey *key, const char *head, const CacheLease *lease, const char *ms)
{
	const char *args[3] = {head, lease->value, ms};
	size_t		len[3] = {VALUE_HEAD, sizeof(lease->value), strlen(ms)};

	return cache_script(&script_take, key, 3, args, len);
}

/* A value that we would never have stored: it goes, and with it the connection. */
static CacheResult
cache_drop_too_long(const CacheKey *key)
{
	shmem_cache_count(CACHE_POISONED, 1);
	if (!redis_open(flohsync_redis_connect_timeout, flohsync_redis_timeout))
		cache_failed();
	else if (cache_delete(key) != NULL)
		return CACHE_MISS;
	return CACHE_FAILED;
}

/*
 * cache_look_at judges what is under a key.  A value that counts is returned,
 * and its head takes the place of an observation's token;
 * otherwise *taken tells whether our placeholder (NULL: we want none) stands
 * there now, and *other what else does: its first letter, or '\0'.
 *
 * Longer than a screen: one reply of Redis after the other decides what comes next.
 */
CacheResult
cache_look_at(const CacheKey *key, const OutboxView *view, Jsonb **value, CacheLease *lease,
			  char *other)
{
	const char *get[2] = {"GET", key->text};
	size_t		get_len[2] = {3, key->len};
	char		head[VALUE_HEAD];
	char		ms[16];
	RedisReply *reply = cache_run(2, get, get_len);

	*value = NULL;
	*other = '\0';
	cache_value_head(head, view->epoch);
	snprintf(ms, sizeof(ms), "%d", flohsync_cache_lease_time);
	for (int attempt = 0; reply != NULL && attempt < 3; attempt++)
	{
		bool ours = reply->type == REDIS_IS_BULK && reply->len > 0;

		if (ours && reply->len > VALUE_JSON && memcmp(reply->str, head, VALUE_HEAD) == 0)
		{
			*value = cache_parse(reply->str + VALUE_JSON, reply->len - VALUE_JSON);
			if (*value != NULL)
			{
				if (lease != NULL && lease->value[0] == 'G')
				{
					memcpy(lease->value, reply->str, sizeof(lease->value));
					lease->held = true;
				}
				return CACHE_HIT;
			}
		}
		else if (ours &&
				 ((reply->len == 1 && reply->str[0] == 'T') ||
				  (reply->len == sizeof(lease->value) &&
				   (reply->str[0] == 'L' || reply->str[0] == 'G'))))
		{
			*other = reply->str[0];
			if (lease == NULL || *other != 'G')
				return CACHE_MISS;
			if (lease->value[0] == 'G')
			{
				/* The previous reader has seen the same: its token is equivalent to a new one. */
				memcpy(lease->value, reply->str, sizeof(lease->value));
				lease->held = true;
				return CACHE_MISS;
			}
			*other = '\0';
		}
		else if (reply->type == REDIS_IS_STATUS || reply->type == REDIS_IS_INTEGER)
		{
			/* To GET that is no answer. */
			if (attempt == 0)
				return cache_reply_failed(reply) ? CACHE_MISS : CACHE_FAILED;
			lease->held = true;
			return CACHE_MISS;
		}
		else if (reply->type == REDIS_IS_NIL)
		{
			/* After the first attempt it means that another reader was faster. */
			if (lease != NULL && attempt > 0)
				*other = 'L';
			if (lease == NULL || attempt > 0 || !cache_make_token(lease))
				return CACHE_MISS;
			if ((reply = cache_set_new(key, lease, ms)) != NULL && reply->type == REDIS_IS_ERROR)
				return cache_reply_failed(reply) ? CACHE_MISS : CACHE_FAILED;
			continue;
		}
		else if (reply->type == REDIS_IS_ERROR && redis_error(reply) != REDIS_ERROR_WRONG_TYPE)
			return cache_reply_failed(reply) ? CACHE_MISS : CACHE_FAILED;

		/* A value of another epoch is replaced; a foreign one is removed. */
		if (!(ours && reply->len > VALUE_HEAD && reply->str[0] == 'V' && reply->str[1] == '1' &&
			  memcmp(reply->str, head, VALUE_HEAD) != 0) &&
			!(ours && reply->str[0] == 'G'))
		{
			shmem_cache_count(CACHE_POISONED, 1);
			if ((reply = cache_delete(key)) == NULL)
				break;
			if (reply->type == REDIS_IS_ERROR)
				return cache_reply_failed(reply) ? CACHE_MISS : CACHE_FAILED;
		}
		if (lease == NULL || !cache_make_token(lease))
			return CACHE_MISS;
		reply = cache_take(key, head, lease, ms);
	}
	return reply == NULL && redis_reply_too_long() ? cache_drop_too_long(key) : CACHE_FAILED;
}

/*
 * cache_read reads a key.  After a miss, the lease is held if the caller may
 * store the fetched value; NULL: it does not want to.  A reader that finds
 * another's lease waits for the value.
 */
CacheResult
cache_read(const CacheKey *key, const OutboxView *view, Jsonb **value, CacheLease *lease)
{
	int waited = 0;
	int pause = POLL_FIRST_MS;

	if (lease)
	{
		memset(lease, 0, sizeof(*lease));
		lease->value[0] = 'L';
	}
	if (flohsync_cache_without_lease)
		lease = NULL;
	for (;;)
	{
		char		other;
		CacheResult result = cache_look_at(key, view, value, lease, &other);

		if (result == CACHE_HIT)
			shmem_cache_count(CACHE_HITS, 1);
		if (result == CACHE_FAILED)
			return result;
		shmem_cache_worked();
		if (result == CACHE_HIT)
			return result;
		if (other != 'L' || waited >= flohsync_cache_lease_wait)
		{
			shmem_cache_count(CACHE_MISSES, 1);
			return result;
		}
		if (waited == 0)
			shmem_cache_count(CACHE_WAITED, 1);
		pause = Min(pause, flohsync_cache_lease_wait - waited);
		wait_ms(pause, WAIT_REDIS);
		waited += Max(pause, 1);
		/* Readers that wait must not all wake up at the same time. */
		pause = Min(POLL_LAST_MS, pause + pause / 2 + MyProcPid % 5);
		if (!redis_open(flohsync_redis_connect_timeout, flohsync_redis_timeout))
		{
			cache_failed();
			return CACHE_FAILED;
		}
		if (redis_server() != view->server)
			return CACHE_FAILED;
	}
}

/* The value as Redis keeps it; NULL: it cannot be stored. */
StringInfo
cache_encode(const OutboxView *view, Jsonb *value)
{
	StringInfo out = makeStringInfo();
	char	   head[VALUE_JSON];

	cache_value_head(head, view->epoch);
	if (!pg_strong_random(head + VALUE_HEAD, VALUE_JSON - VALUE_HEAD))
		return NULL;
	appendBinaryStringInfo(out, head, VALUE_JSON);
	(void) JsonbToCString(out, &value->root, VARSIZE(value));
	if (out->len > flohsync_cache_max_value_size * INT64CONST(1024) ||
		!cache_is_harmless(out->data + VALUE_JSON, out->len - VALUE_JSON))
		return NULL;
	return out;
}

/* Is the connection still, or again, one to the Redis that the read began with? */
static bool
cache_same_redis(const OutboxView *view)
{
	if (!shmem_cache_allowed())
		return false;
	if (!redis_open(flohsync_redis_connect_timeout, flohsync_redis_timeout))
	{
		cache_failed();
		return false;
	}
	return redis_server() == view->server;
}

/*
 * cache_store puts a fetched value in the place of the lease.  False: it is not
 * stored; *invalidated, because the lease is not there any more.
 */
bool
cache_store(const CacheKey *key, const OutboxView *view, const CacheLease *lease, Jsonb *value,
			int64 ttl_ms, bool *invalidated)
{
	StringInfo	encoded = cache_encode(view, value);
	char		ms[32];
	RedisReply *reply;

	*invalidated = false;
	if (encoded == NULL)
	{
		if (lease->held)
			cache_give_up(key, lease);
		return false;
	}
	if (!cache_same_redis(view))
		return false;
	snprintf(ms, sizeof(ms), INT64_FORMAT, ttl_ms);
	if (flohsync_cache_without_lease)
	{
		const char *argv[5] = {"SET", key->text, encoded->data, "PX", ms};
		size_t		len[5] = {3, key->len, encoded->len, 2, strlen(ms)};

		return cache_run(5, argv, len) != NULL;
	}
	else
	{
		const char *args[3] = {lease->value, encoded->data, ms};
		size_t		args_len[3] = {sizeof(lease->value), encoded->len, strlen(ms)};

		reply = cache_script(&script_store, key, 3, args, args_len);
	}
	if (reply == NULL)
		return false;
	if (reply->type != REDIS_IS_INTEGER)
	{
		/* It is full: the lease would only make others wait. */
		if (cache_reply_failed(reply))
			cache_give_up(key, lease);
		return false;
	}
	if (reply->integer == 1)
	{
		shmem_cache_count(CACHE_STORED, 1);
		return true;
	}
	shmem_cache_count(CACHE_REFUSED, 1);
	*invalidated = true;
	return false;
}

/* cache_give_up takes our lease away: there is nothing to store. */
void
cache_give_up(const CacheKey *key, const CacheLease *lease)
{
	const char *args[1] = {lease->value};
	size_t		len[1] = {sizeof(lease->value)};
	RedisReply *reply;

	if (!shmem_cache_allowed())
		return;
	if (!redis_open(flohsync_redis_connect_timeout, flohsync_redis_timeout))
		cache_failed();
	else if ((reply = cache_script(&script_give_up, key, 1, args, len)) != NULL &&
			 reply->type == REDIS_IS_ERROR)
		(void) cache_reply_failed(reply);
}

/* cache_post_give_up does the same after an error, when nothing may be waited for. */
void
cache_post_give_up(const CacheKey *key, const CacheLease *lease)
{
	const char	*argv[5] = {"EVAL", script_give_up.text, "1", key->text, lease->value};
	size_t		 len[5] = {4, strlen(script_give_up.text), 1, key->len, sizeof(lease->value)};
	RedisCommand command = {5, argv, len};

	redis_post(&command);
}
