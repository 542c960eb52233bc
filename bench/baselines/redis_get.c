/*
 * redis_get.c
 *	  Bare GETs through hiredis, one after the other: redis_get SOCKET KEY N.
 *	  Prints microseconds for each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <hiredis/hiredis.h>

int
main(int argc, char **argv)
{
	redisContext   *redis = argc == 4 ? redisConnectUnix(argv[1]) : NULL;
	int				n = argc == 4 ? atoi(argv[3]) : 0;
	struct timespec from;
	struct timespec to;

	if (redis == NULL || redis->err || n <= 0)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < n; i++)
	{
		redisReply *reply = redisCommand(redis, "GET %s", argv[2]);

		if (reply == NULL || reply->type != REDIS_REPLY_STRING)
			return 1;
		freeReplyObject(reply);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%.3f\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / 1e3 / n);
	redisFree(redis);
	return 0;
}
