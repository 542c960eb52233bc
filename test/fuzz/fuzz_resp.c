/*
 * fuzz_resp.c
 *	  libFuzzer target: what a server that calls itself Redis may answer, in
 *	  pieces, and addresses of one.
 *
 * The first byte says how long the pieces are.  Every reply must be a value
 * that is no longer than what was read; after an error nothing is read on.
 */
#include "base/standalone.h"

#include <hiredis/hiredis.h>

#include "base/guc_redis.h"
#include "net/redis_reply.h"

jmp_buf *standalone_catch = NULL;

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_address(const uint8_t *data, size_t size)
{
	char		 text[1024];
	size_t		 len = Min(size, sizeof(text) - 1);
	RedisAddress address;
	const char	*problem;

	memcpy(text, data, len);
	text[len] = '\0';
	problem = guc_parse_redis_url(text, &address);
	if (problem == NULL &&
		(address.host[0] == '\0' || strlen(address.host) >= sizeof(address.host) ||
		 address.port < 1 || address.port > 65535 || address.database < 0))
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	redisReader *reader;
	size_t		 piece;
	size_t		 fed = 0;

	check_address(data, size);
	if (size < 2)
		return 0;
	piece = data[0] + 1;
	data++;
	size--;
	reader = redis_reply_reader();
	while (fed < size)
	{
		size_t n = Min(piece, size - fed);
		void  *reply = NULL;

		if (redisReaderFeed(reader, (const char *) data + fed, n) != REDIS_OK)
			break;
		fed += n;
		for (;;)
		{
			RedisReply *r;

			if (redisReaderGetReply(reader, &reply) != REDIS_OK)
			{
				if (reply != NULL)
					abort();
				redisReaderFree(reader);
				return 0;
			}
			if (reply == NULL)
				break;
			r = reply;
			if (r->len > fed || r->str[r->len] != '\0' || r->type < REDIS_IS_BULK ||
				r->type > REDIS_IS_ERROR)
				abort();
			free(reply);
		}
	}
	redisReaderFree(reader);
	return 0;
}
