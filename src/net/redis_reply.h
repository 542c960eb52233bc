/*
 * redis_reply.h
 *	  Making replies of what hiredis reads.  See redis_reply.c.
 */
#ifndef FLOHSYNC_REDIS_REPLY_H
#define FLOHSYNC_REDIS_REPLY_H

typedef enum RedisType
{
	REDIS_IS_BULK,
	REDIS_IS_STATUS,
	REDIS_IS_INTEGER,
	REDIS_IS_NIL,
	REDIS_IS_ERROR
} RedisType;

/* Good until the next call of redis_run or redis_drop. */
typedef struct RedisReply
{
	RedisType type;
	long long integer;
	size_t	  len;
	char	  str[FLEXIBLE_ARRAY_MEMBER]; /* binary, and NUL-terminated for convenience */
} RedisReply;

struct redisReader;
extern struct redisReader *redis_reply_reader(void);

#endif /* FLOHSYNC_REDIS_REPLY_H */
