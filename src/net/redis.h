/*
 * redis.h
 *	  A client of Redis: one connection per process.  See redis.c.
 */
#ifndef FLOHSYNC_REDIS_H
#define FLOHSYNC_REDIS_H

#include "net/redis_reply.h"

#define REDIS_MAX_PIPELINE 64

typedef struct RedisCommand
{
	int			  argc;
	const char	**argv;
	const size_t *len;
} RedisCommand;

/* What an error reply means for what comes next. */
typedef enum RedisError
{
	REDIS_ERROR_OTHER,	   /* nothing that we know of */
	REDIS_ERROR_NO_WRITES, /* it is full or cannot save: reads still work */
	REDIS_ERROR_NOT_NOW,   /* it is loading, busy, or without its master */
	REDIS_ERROR_NOT_MASTER,
	REDIS_ERROR_CONFIGURATION, /* wrong password, missing right, a cluster */
	REDIS_ERROR_NO_SCRIPT,
	REDIS_ERROR_WRONG_TYPE
} RedisError;

extern bool		   redis_open(long connect_ms, long answer_ms);
extern bool		   redis_run(const RedisCommand *commands, int n, RedisReply **replies);
extern void		   redis_post(const RedisCommand *command);
extern void		   redis_drop(void);
extern bool		   redis_reply_too_long(void);
extern uint64	   redis_server(void);
extern RedisError  redis_error(const RedisReply *reply);
extern bool		   redis_fail(const RedisReply *reply);
extern const char *redis_problem(void);

#endif /* FLOHSYNC_REDIS_H */
