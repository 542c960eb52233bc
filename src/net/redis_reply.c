/*
 * redis_reply.c
 *	  Making replies of what hiredis reads.
 *
 * hiredis calls these back, so there is malloc here, and neither palloc nor
 * ereport.  A reply is one value: what says that it is a list, or of a type that
 * RESP2 does not have, is an error, whatever length it claims.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include <hiredis/hiredis.h>

#include "net/redis_reply.h"

static RedisReply *
reply_make(RedisType type, const char *str, size_t len, long long integer)
{
	RedisReply *reply = malloc(offsetof(RedisReply, str) + len + 1);

	if (reply == NULL)
		return NULL;
	reply->type = type;
	reply->integer = integer;
	reply->len = len;
	if (len > 0)
		memcpy(reply->str, str, len);
	reply->str[len] = '\0';
	return reply;
}

static void *
reply_string(const redisReadTask *task, char *str, size_t len)
{
	return reply_make(task->type == REDIS_REPLY_ERROR	   ? REDIS_IS_ERROR :
						  task->type == REDIS_REPLY_STATUS ? REDIS_IS_STATUS :
															 REDIS_IS_BULK,
					  str, len, 0);
}

static void *
reply_integer(const redisReadTask *task, long long integer)
{
	return reply_make(REDIS_IS_INTEGER, NULL, 0, integer);
}

static void *
reply_nil(const redisReadTask *task)
{
	return reply_make(REDIS_IS_NIL, NULL, 0, 0);
}

/* NULL makes the reader give up. */
#if HIREDIS_MAJOR >= 1
static void *
reply_array(const redisReadTask *task, size_t elements)
{
	return NULL;
}

static void *
reply_double(const redisReadTask *task, double value, char *str, size_t len)
{
	return NULL;
}

static void *
reply_bool(const redisReadTask *task, int value)
{
	return NULL;
}
#else
static void *
reply_array(const redisReadTask *task, int elements)
{
	return NULL;
}
#endif

static redisReplyObjectFunctions reply_functions = {
	.createString = reply_string,
	.createArray = reply_array,
	.createInteger = reply_integer,
#if HIREDIS_MAJOR >= 1
	.createDouble = reply_double,
	.createBool = reply_bool,
#endif
	.createNil = reply_nil,
	.freeObject = free,
};

/* redis_reply_reader makes a reader whose replies are RedisReply; free() frees one. */
redisReader *
redis_reply_reader(void)
{
	return redisReaderCreateWithFunctions(&reply_functions);
}
