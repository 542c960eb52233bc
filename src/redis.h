/*
 * redis.h
 *	  A client of Redis: one connection per process.  See redis.c.
 */
#ifndef FLOHSYNC_REDIS_H
#define FLOHSYNC_REDIS_H

#define REDIS_MAX_PIPELINE	64

typedef enum RedisType
{
	REDIS_IS_BULK, REDIS_IS_STATUS, REDIS_IS_INTEGER, REDIS_IS_NIL, REDIS_IS_ERROR
} RedisType;

/* Good until the next call of redis_run or redis_drop. */
typedef struct RedisReply
{
	RedisType	type;
	long long	integer;
	size_t		len;
	char		str[FLEXIBLE_ARRAY_MEMBER]; /* binary, and NUL-terminated for convenience */
} RedisReply;

typedef struct RedisCommand
{
	int			argc;
	const char **argv;
	const size_t *len;
} RedisCommand;

/* What an error reply means for what comes next. */
typedef enum RedisError
{
	REDIS_ERROR_OTHER,			/* nothing that we know of */
	REDIS_ERROR_NO_WRITES,		/* it is full or cannot save: reads still work */
	REDIS_ERROR_NOT_NOW,		/* it is loading, busy, or without its master */
	REDIS_ERROR_NOT_MASTER,
	REDIS_ERROR_CONFIGURATION,	/* wrong password, missing right, a cluster */
	REDIS_ERROR_NO_SCRIPT,
	REDIS_ERROR_WRONG_TYPE
} RedisError;

extern bool redis_open(long connect_ms, long answer_ms);
extern bool redis_run(const RedisCommand *commands, int n, RedisReply **replies);
extern void redis_post(const RedisCommand *command);
extern void redis_drop(void);
extern bool redis_reply_too_long(void);
extern uint64 redis_server(void);
extern RedisError redis_error(const RedisReply *reply);
extern bool redis_fail(const RedisReply *reply);
extern const char *redis_problem(void);

#endif							/* FLOHSYNC_REDIS_H */
