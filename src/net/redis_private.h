/*
 * redis_private.h
 *	  The connection to Redis, for redis.c and redis_connect.c alone, which
 *	  include redis.h before.
 */
#ifndef FLOHSYNC_REDIS_PRIVATE_H
#define FLOHSYNC_REDIS_PRIVATE_H

#include "portability/instr_time.h"

#include "base/guc_redis.h"
#include "base/wait.h"
#include "net/redis_tls.h"

struct redisReader;

typedef struct RedisState
{
	int					fd; /* -1: closed */
	RedisTls		   *tls;
	WaitChannel		   *line;
	struct redisReader *reader;
	bool				busy;
	char			   *url; /* that it was opened with; malloc */
	uint64				server;
	instr_time			verified_at;
	instr_time			deadline_from;
	long				deadline_ms;
	long				answer_ms;
	char			   *out; /* commands to be sent; malloc */
	size_t				out_len;
	size_t				out_room;
	RedisReply		   *replies[REDIS_MAX_PIPELINE];
	int					nreplies;
	bool				too_long; /* what ended the connection was a reply over the limit */
	char				problem[256];
} RedisState;

extern RedisState redis;

extern void redis_set_deadline(long ms);
extern bool redis_set_problem(const char *problem);
extern bool redis_wait(bool write);
extern bool redis_exchange(const RedisCommand *commands, int n);

/* of redis_connect.c */
extern bool redis_greet(const RedisAddress *address);
extern bool redis_open_anew(long connect_ms);

#endif /* FLOHSYNC_REDIS_PRIVATE_H */
