/*
 * redis.c
 *	  A client of Redis, one connection per process.
 *
 * hiredis formats commands and reads replies, and nothing else of it is used:
 * the socket is ours, never blocks, and is waited for together with the latch
 * (wait.c), so that every wait ends on cancel, termination and its deadline.
 * What is spoken is RESP2, which every version of hiredis and Redis knows.
 * Connecting is in redis_connect.c.
 *
 *	  closed --> connecting --> greeted (AUTH, SELECT, INFO) --> idle <--> busy
 *
 * - A connection is busy from the first byte of a command to the last byte of
 *   its replies.  One that was left busy, whatever the reason (time-out, cancel,
 *   error), is closed: a late reply can never be taken for another's.
 * - What comes while the connection is idle ends it, too.
 * - After any I/O or protocol error it is closed.  An error reply is a reply.
 * - More bytes than the largest value has are no reply (see also redis_reply.c).
 * - Who the server is, is asked when connecting and then once a second: its
 *   run_id and the id of its history, and that it is a master.  redis_server()
 *   changes with them: what it held before may have come back from a dump, or
 *   lack deletions that another server acknowledged.
 * - What is said of failures has no user, password, key or value in it.
 */
#include "postgres.h"

#include "base/compat.h"

#include <hiredis/hiredis.h>
#include <sys/socket.h>
#include <unistd.h>

#include "portability/instr_time.h"
#include "storage/fd.h"

#include "base/clean.h"
#include "base/guc.h"
#include "base/wait.h"
#include "net/redis.h"
#include "net/redis_private.h"

#define REDIS_VERIFY_MS	  1000
#define REDIS_READ_BYTES  (16 * 1024)
#define REDIS_REPLY_EXTRA (64 * 1024) /* a reply may be so much longer than the largest value */
#define REDIS_KEEP_OUT	  (256 * 1024)

RedisState redis = {.fd = -1};

static long
redis_elapsed_ms(const instr_time *since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *since);
	return (long) INSTR_TIME_GET_MILLISEC(now);
}

void
redis_set_deadline(long ms)
{
	INSTR_TIME_SET_CURRENT(redis.deadline_from);
	redis.deadline_ms = ms;
}

bool
redis_set_problem(const char *problem)
{
	clean_into(redis.problem, sizeof(redis.problem), problem, strlen(problem));
	return false;
}

const char *
redis_problem(void)
{
	return redis.problem;
}

static void
redis_free_replies(void)
{
	for (int i = 0; i < redis.nreplies; i++)
		free(redis.replies[i]);
	redis.nreplies = 0;
}

/* redis_drop closes the connection, whatever it is doing. */
void
redis_drop(void)
{
	redis_free_replies();
	if (redis.line)
		wait_channel_close(redis.line);
	redis.line = NULL;
	if (redis.tls)
		redis_tls_close(redis.tls);
	redis.tls = NULL;
	if (redis.reader)
		redisReaderFree(redis.reader);
	redis.reader = NULL;
	if (redis.fd >= 0)
	{
		close(redis.fd);
		ReleaseExternalFD();
	}
	redis.fd = -1;
	redis.busy = false;
	redis.out_len = 0;
	redis.server = 0;
}

/* Bytes */

/* Waits for the socket; false when the time is up. */
bool
redis_wait(bool write)
{
	for (;;)
	{
		long left = redis.deadline_ms - redis_elapsed_ms(&redis.deadline_from);

		/* Look once more, in case the process was not scheduled for a while. */
		if (wait_channel(redis.line, write, Max(left, 0), WAIT_REDIS))
			return true;
		if (left <= 0)
			return redis_set_problem("it did not reply in time");
	}
}

static bool
redis_lost(int error)
{
	char text[128];

	snprintf(text, sizeof(text), "the connection was lost%s%s", error ? ": " : "",
			 error ? strerror(error) : "");
	return redis_set_problem(text);
}

static bool
redis_send(void)
{
	size_t sent = 0;

	while (sent < redis.out_len)
	{
		size_t n = 0;
		bool   write = true;

		if (redis.tls)
		{
			TlsWant want = redis_tls_write(redis.tls, redis.out + sent, redis.out_len - sent, &n);

			if (want == TLS_FAILED)
				return redis_lost(0);
			write = want != TLS_READ;
		}
		else
		{
			ssize_t rc = send(redis.fd, redis.out + sent, redis.out_len - sent, MSG_NOSIGNAL);

			if (rc < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
				return redis_lost(errno);
			n = Max(rc, 0);
		}
		sent += n;
		if (n == 0 && !redis_wait(write))
			return false;
	}
	redis.out_len = 0;
	if (redis.out_room > REDIS_KEEP_OUT)
	{
		free(redis.out);
		redis.out = NULL;
		redis.out_room = 0;
	}
	return true;
}

/* Reads what is there, at least a byte. */
static bool
redis_receive(char *buffer, size_t size, size_t *got)
{
	if (redis.tls)
	{
		for (;;)
		{
			TlsWant want = redis_tls_read(redis.tls, buffer, size, got);

			if (want == TLS_DONE)
				return true;
			if (want == TLS_FAILED)
				return redis_lost(0);
			if (!redis_wait(want == TLS_WRITE))
				return false;
		}
	}
	for (;;)
	{
		ssize_t rc;

		if (!redis_wait(false))
			return false;
		rc = recv(redis.fd, buffer, size, 0);
		if (rc > 0)
		{
			*got = rc;
			return true;
		}
		if (rc == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return redis_lost(rc == 0 ? 0 : errno);
	}
}

/* Reads n replies into redis.replies. */
static bool
redis_read_replies(int n)
{
	static char buffer[REDIS_READ_BYTES];
	size_t		limit = (size_t) flohsync_cache_max_value_size * 1024 + REDIS_REPLY_EXTRA;
	size_t		fed = 0;

	while (redis.nreplies < n)
	{
		void  *reply = NULL;
		size_t got;

		if (redisReaderGetReply(redis.reader, &reply) != REDIS_OK)
			return redis_set_problem("its reply violates the protocol");
		if (reply != NULL)
		{
			redis.replies[redis.nreplies++] = reply;
			fed = 0;
			continue;
		}
		if (fed > limit)
		{
			redis.too_long = true;
			return redis_set_problem("its reply is too long");
		}
		if (!redis_receive(buffer, sizeof(buffer), &got))
			return false;
		fed += got;
		if (redisReaderFeed(redis.reader, buffer, got) != REDIS_OK)
			return redis_set_problem("out of memory");
	}
	/* There is no further request. */
	if (redis.reader->pos < redis.reader->len)
		return redis_set_problem("it sent an unexpected reply");
	return true;
}

/* Puts a command behind those to be sent. */
static bool
redis_append(const RedisCommand *command)
{
	char	 *text = NULL;
	long long len = redisFormatCommandArgv(&text, command->argc, command->argv, command->len);

	if (len < 0 || text == NULL)
		return redis_set_problem("out of memory");
	if (redis.out_len + len > redis.out_room)
	{
		size_t room = Max(redis.out_room * 2, redis.out_len + len + 4096);
		char  *out = realloc(redis.out, room);

		if (out == NULL)
		{
			redisFreeCommand(text);
			return redis_set_problem("out of memory");
		}
		redis.out = out;
		redis.out_room = room;
	}
	memcpy(redis.out + redis.out_len, text, len);
	redis.out_len += len;
	redisFreeCommand(text);
	return true;
}

/* Unsolicited data would be mistaken for the next reply. */
static bool
redis_is_quiet(void)
{
	ssize_t rc;
	char	byte;

	if (redis.tls)
	{
		TlsWant want = redis_tls_peek(redis.tls);

		if (want == TLS_DONE)
			return redis_set_problem("it sent an unexpected reply");
		return want != TLS_FAILED || redis_lost(0);
	}
	rc = recv(redis.fd, &byte, 1, MSG_PEEK);
	if (rc > 0)
		return redis_set_problem("it sent an unexpected reply");
	if (rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return true;
	return redis_lost(rc == 0 ? 0 : errno);
}

/* Sends commands and reads their replies; false: the connection is closed. */
bool
redis_exchange(const RedisCommand *commands, int n)
{
	volatile bool done = false;

	Assert(n <= REDIS_MAX_PIPELINE);
	redis_free_replies();
	redis.out_len = 0;
	redis.busy = true;
	PG_TRY();
	{
		bool good = redis_is_quiet();

		for (int i = 0; i < n && good; i++)
			good = redis_append(&commands[i]);
		done = good && redis_send() && redis_read_replies(n);
	}
	PG_CATCH();
	{
		redis_drop();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!done)
	{
		redis_drop();
		return false;
	}
	redis.busy = false;
	return true;
}

/*
 * redis_open has a connection to the server of flohsync.redis_url, whose
 * identity was verified at most a second ago; false: see redis_problem().
 */
bool
redis_open(long connect_ms, long answer_ms)
{
	redis.answer_ms = answer_ms;
	redis.too_long = false;
	if (redis.fd >= 0 && !redis.busy && strcmp(redis.url, flohsync_redis_url) == 0)
	{
		if (redis_elapsed_ms(&redis.verified_at) < REDIS_VERIFY_MS)
			return true;
		redis_set_deadline(answer_ms);
		if (redis_greet(NULL))
			return true;
		/* It may just have been restarted, or have closed an idle connection. */
	}
	return redis_open_anew(connect_ms);
}

/*
 * redis_run sends commands and waits for their replies.  False: there is no
 * connection any more, and it is unknown whether they were executed.
 */
bool
redis_run(const RedisCommand *commands, int n, RedisReply **replies)
{
	if (redis.fd < 0 || redis.busy)
	{
		redis_drop();
		return redis_set_problem("there is no connection");
	}
	redis_set_deadline(redis.answer_ms);
	redis.too_long = false;
	if (!redis_exchange(commands, n))
		return false;
	memcpy(replies, redis.replies, sizeof(RedisReply *) * n);
	return true;
}

/*
 * redis_post sends a command if that can be done at once, and closes the
 * connection: for when there is no time, or no way, to wait.  Does not raise.
 */
void
redis_post(const RedisCommand *command)
{
	size_t n;

	if (redis.fd >= 0 && !redis.busy)
	{
		redis.out_len = 0;
		if (redis_append(command))
		{
			if (redis.tls)
				(void) redis_tls_write(redis.tls, redis.out, redis.out_len, &n);
			else
				(void) send(redis.fd, redis.out, redis.out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
	}
	redis_drop();
}

/* redis_reply_too_long: did the last redis_run fail for a reply longer than any value may be? */
bool
redis_reply_too_long(void)
{
	return redis.fd < 0 && redis.too_long;
}

/* redis_server is the identity of the server that we are connected to, 0: of none. */
uint64
redis_server(void)
{
	return redis.server;
}

RedisError
redis_error(const RedisReply *reply)
{
	/* clang-format off */
	static const struct
	{
		const char *word;
		RedisError	error;
	}			words[] = {
		{"OOM", REDIS_ERROR_NO_WRITES},
		{"MISCONF", REDIS_ERROR_NO_WRITES},
		{"NOREPLICAS", REDIS_ERROR_NO_WRITES},
		{"LOADING", REDIS_ERROR_NOT_NOW},
		{"BUSY", REDIS_ERROR_NOT_NOW},
		{"MASTERDOWN", REDIS_ERROR_NOT_NOW},
		{"CLUSTERDOWN", REDIS_ERROR_NOT_NOW},
		{"TRYAGAIN", REDIS_ERROR_NOT_NOW},
		{"READONLY", REDIS_ERROR_NOT_MASTER},
		{"UNKILLABLE", REDIS_ERROR_NOT_NOW},
		{"NOAUTH", REDIS_ERROR_CONFIGURATION},
		{"WRONGPASS", REDIS_ERROR_CONFIGURATION},
		{"NOPERM", REDIS_ERROR_CONFIGURATION},
		{"MOVED", REDIS_ERROR_CONFIGURATION},
		{"ASK", REDIS_ERROR_CONFIGURATION},
		{"NOSCRIPT", REDIS_ERROR_NO_SCRIPT},
		{"WRONGTYPE", REDIS_ERROR_WRONG_TYPE},
	};
	/* clang-format on */
	size_t len = strcspn(reply->str, " \r\n");

	for (size_t i = 0; i < lengthof(words); i++)
		if (strlen(words[i].word) == len && memcmp(words[i].word, reply->str, len) == 0)
			return words[i].error;
	return REDIS_ERROR_OTHER;
}

/*
 * redis_fail takes a reply that is not what was asked for as a failure of the
 * connection.  Always false.  Of an error only the first word is told: the
 * rest may quote what was sent.
 */
bool
redis_fail(const RedisReply *reply)
{
	char   text[128];
	size_t len = strcspn(reply->str, " \r\n");

	if (reply->type != REDIS_IS_ERROR)
		strlcpy(text, "its reply is of an unexpected type", sizeof(text));
	else
		snprintf(text, sizeof(text), "it replied with the error %.*s", (int) Min(len, 40),
				 reply->str);
	redis_drop();
	return redis_set_problem(text);
}
