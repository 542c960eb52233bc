/*
 * invalidator.c
 *	  Delivers invalidations to Redis.
 *
 *	  settle what needs no Redis --> connect --> is it the Redis we know? --no--> new epoch for all
 *	                                   --> read a batch
 *	                                         delete its keys
 *	                                         delete its rows --> again, until there is none
 *
 * Reading and deleting rows are separate transactions, and none is open while
 * talking to Redis.  A process that dies in between leaves the rows, and the keys
 * are deleted again: delivery is at least once and idempotent.
 */
#include "postgres.h"

#include "base/compat.h"

#include "utils/memutils.h"

#include "base/db.h"
#include "base/guc.h"
#include "cache/invalidator.h"
#include "net/redis.h"
#include "record/outbox.h"
#include "shared/cache.h"

#define INVALIDATOR_BATCH	   10000
#define INVALIDATOR_KEYS	   500 /* of one command */
#define INVALIDATOR_CONNECT_MS 1000
#define INVALIDATOR_ANSWER_MS  5000

/* KEYS; ARGV: ms */
static const char *const script_hold_off =
	"for _,k in ipairs(KEYS) do redis.call('SET',k,'T','PX',ARGV[1]) end return #KEYS";

/* Deletes up to INVALIDATOR_KEYS keys a command, or leaves marks of holdoff ms in their place. */
static bool
invalidator_delete(const OutboxBatch *batch, int holdoff)
{
	int			  room = INVALIDATOR_KEYS + 4;
	int			  ncommands = 0;
	RedisCommand *commands = palloc(sizeof(RedisCommand) * (batch->n / INVALIDATOR_KEYS + 1));
	RedisReply	 *replies[REDIS_MAX_PIPELINE];
	char		  ms[16];
	char		  count[16];

	snprintf(ms, sizeof(ms), "%d", holdoff);
	for (int from = 0; from < batch->n; from += INVALIDATOR_KEYS)
	{
		int			 n = Min(INVALIDATOR_KEYS, batch->n - from);
		const char **argv = palloc(sizeof(char *) * room);
		size_t		*len = palloc(sizeof(size_t) * room);
		int			 argc = 0;

		if (holdoff > 0)
		{
			/* One of these says how many keys there are: all commands but the last have as many. */
			char *number = pstrdup((snprintf(count, sizeof(count), "%d", n), count));

			argv[argc] = "EVAL";
			len[argc++] = 4;
			argv[argc] = script_hold_off;
			len[argc++] = strlen(script_hold_off);
			argv[argc] = number;
			len[argc++] = strlen(number);
		}
		else
		{
			argv[argc] = "DEL";
			len[argc++] = 3;
		}
		memcpy(argv + argc, batch->keys + from, sizeof(char *) * n);
		memcpy(len + argc, batch->key_len + from, sizeof(size_t) * n);
		argc += n;
		if (holdoff > 0)
		{
			argv[argc] = ms;
			len[argc++] = strlen(ms);
		}
		commands[ncommands++] = (RedisCommand){argc, argv, len};
	}
	for (int from = 0; from < ncommands; from += REDIS_MAX_PIPELINE)
	{
		int n = Min(REDIS_MAX_PIPELINE, ncommands - from);

		if (!redis_run(commands + from, n, replies))
			return false;
		for (int i = 0; i < n; i++)
		{
			if (replies[i]->type == REDIS_IS_INTEGER)
				continue;
			/* It is full: there is room for no mark, and for nothing that one would keep out. */
			if (holdoff > 0 && replies[i]->type == REDIS_IS_ERROR &&
				redis_error(replies[i]) == REDIS_ERROR_NO_WRITES)
				return invalidator_delete(batch, 0);
			return redis_fail(replies[i]);
		}
	}
	return true;
}

/* What can be done without Redis; returns the Redis that the cache is in. */
static uint64
invalidator_settle(bool bound)
{
	uint64 server;
	int64  cleared;

	db_begin("settling the cache's outbox");
	if (bound)
		(void) outbox_bound(flohsync_cache_outbox_max);
	cleared = outbox_settle();
	server = outbox_server();
	db_commit();
	if (cleared > 0)
		shmem_cache_count(CACHE_CLEARED, cleared);
	return server;
}

static InvalidatorOutcome
invalidator_no_redis(void)
{
	(void) invalidator_settle(true);
	return INVALIDATOR_NO_REDIS;
}

/* invalidator_keep_small does what can be done without Redis. */
InvalidatorOutcome
invalidator_keep_small(void)
{
	bool waiting;

	(void) invalidator_settle(true);
	db_begin("looking for invalidations");
	waiting = outbox_waiting();
	db_commit();
	return waiting ? INVALIDATOR_NO_REDIS : INVALIDATOR_DONE;
}

/* invalidator_drain delivers all that is in the outbox. */
InvalidatorOutcome
invalidator_drain(void)
{
	MemoryContext	   context;
	InvalidatorOutcome outcome = INVALIDATOR_DONE;

	if (flohsync_redis_url[0] == '\0')
	{
		db_begin("emptying the cache's outbox");
		outbox_deactivate();
		db_commit();
		return INVALIDATOR_DONE;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "flohsync invalidations",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		OutboxBatch	  batch;
		uint64		  server = invalidator_settle(false);
		MemoryContext old;
		bool		  delivered;

		MemoryContextReset(context);
		if (!redis_open(INVALIDATOR_CONNECT_MS, INVALIDATOR_ANSWER_MS))
		{
			outcome = invalidator_no_redis();
			break;
		}
		if (redis_server() != server)
		{
			bool active;

			db_begin("noting which Redis the cache is in");
			active = outbox_activate(redis_server());
			db_commit();
			if (!active)
			{
				outcome = INVALIDATOR_MUST_WAIT;
				break;
			}
			shmem_cache_count(CACHE_CLEARED, 1);
		}
		db_begin("reading invalidations");
		outbox_batch(&batch, INVALIDATOR_BATCH, context);
		db_commit();
		if (batch.n == 0)
		{
			/* What came in between is found next time; readers learn when nothing did. */
			db_begin("looking for invalidations");
			(void) outbox_waiting();
			db_commit();
			break;
		}
		old = MemoryContextSwitchTo(context);
		delivered = invalidator_delete(&batch, flohsync_cache_holdoff);
		MemoryContextSwitchTo(old);
		if (!delivered)
		{
			outcome = invalidator_no_redis();
			break;
		}
		db_begin("removing delivered invalidations");
		outbox_done(&batch);
		/* What a crash brings back is delivered again. */
		db_commit_async();
		shmem_cache_count(CACHE_INVALIDATED, batch.n);
	}
	MemoryContextDelete(context);
	return outcome;
}
