/*
 * redis_connect.c
 *	  Connecting to Redis, and finding out who it is.
 */
#include "postgres.h"

#include "base/compat.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/hashfn.h"
#include "storage/fd.h"

#include "base/guc.h"
#include "base/guc_file.h"
#include "net/redis.h"
#include "net/redis_private.h"

static bool
redis_socket(int family)
{
	int on = 1;

	if (!AcquireExternalFD())
		return redis_set_problem("too many open files");
	redis.fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (redis.fd < 0)
	{
		ReleaseExternalFD();
		return redis_set_problem("could not create socket");
	}
	if (family != AF_UNIX)
	{
		(void) setsockopt(redis.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		(void) setsockopt(redis.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	}
	redis.line = wait_channel_open(redis.fd);
	return true;
}

static bool
redis_connect_to(const struct sockaddr *address, socklen_t len)
{
	int		  error = 0;
	socklen_t size = sizeof(error);

	if (!redis_socket(address->sa_family))
		return false;
	if (connect(redis.fd, address, len) < 0)
		error = errno;
	if (error == EINPROGRESS || error == EINTR)
	{
		if (!redis_wait(true))
		{
			redis_drop();
			return redis_set_problem("connection timed out");
		}
		if (getsockopt(redis.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
			error = errno;
	}
	if (error != 0)
	{
		char text[128];

		redis_drop();
		snprintf(text, sizeof(text), "no connection: %s", strerror(error));
		return redis_set_problem(text);
	}
	return true;
}

static bool
redis_connect(const RedisAddress *address)
{
	struct addrinfo	 hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	struct addrinfo *volatile list = NULL;
	volatile bool connected = false;
	char		  port[16];
	int			  rc;

	if (address->local)
	{
		struct sockaddr_un sun;

		memset(&sun, 0, sizeof(sun));
		sun.sun_family = AF_UNIX;
		strlcpy(sun.sun_path, address->host, sizeof(sun.sun_path));
		return redis_connect_to((struct sockaddr *) &sun, sizeof(sun));
	}
	snprintf(port, sizeof(port), "%d", address->port);
	/* The system's resolver cannot be interrupted; an address needs none. */
	rc = getaddrinfo(address->host, port, &hints, &found);
	if (rc != 0)
	{
		char text[128];

		snprintf(text, sizeof(text), "could not resolve its host name: %s", gai_strerror(rc));
		return redis_set_problem(text);
	}
	list = found;
	PG_TRY();
	{
		for (struct addrinfo *a = found; a != NULL && !connected; a = a->ai_next)
			connected = redis_connect_to(a->ai_addr, a->ai_addrlen);
	}
	PG_FINALLY();
	{
		freeaddrinfo(list);
	}
	PG_END_TRY();
	return connected;
}

static bool
redis_start_tls(const RedisAddress *address)
{
	char problem[200] = "";

	redis.tls = redis_tls_open(redis.fd, address->host, flohsync_redis_ca_file, problem,
							   sizeof(problem));
	if (redis.tls == NULL)
		return redis_set_problem(problem);
	for (;;)
	{
		TlsWant want = redis_tls_handshake(redis.tls, problem, sizeof(problem));

		if (want == TLS_DONE)
			return true;
		if (want == TLS_FAILED)
			return redis_set_problem(problem);
		if (!redis_wait(want == TLS_WRITE))
			return redis_set_problem("TLS handshake timed out");
	}
}

/* The value of a line "name:value" of INFO; NULL when it is not there. */
static const char *
redis_info_line(const RedisReply *info, const char *name, size_t *len)
{
	size_t		name_len = strlen(name);
	const char *p = info->str;

	for (const char *end = info->str + info->len; p < end;)
	{
		const char *next = memchr(p, '\n', end - p);
		size_t		n = (next ? next : end) - p;

		if (n > name_len && memcmp(p, name, name_len) == 0 && p[name_len] == ':')
		{
			p += name_len + 1;
			n -= name_len + 1;
			while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == '\n'))
				n--;
			*len = n;
			return p;
		}
		p += n + 1;
	}
	return NULL;
}

/* Notes who the server is, from the replies to INFO; it must be a master. */
static bool
redis_note_server(const RedisReply *server, const RedisReply *replication)
{
	const char *parts[3];
	size_t		len[3];
	uint64		hash = 0;

	if (server->type != REDIS_IS_BULK)
		return redis_fail(server);
	if (replication->type != REDIS_IS_BULK)
		return redis_fail(replication);
	parts[0] = redis_info_line(server, "run_id", &len[0]);
	parts[1] = redis_info_line(replication, "master_replid", &len[1]);
	parts[2] = redis_info_line(replication, "role", &len[2]);
	if (parts[0] == NULL || parts[1] == NULL || parts[2] == NULL || len[0] == 0 || len[1] == 0)
		return redis_set_problem("INFO does not identify the server");
	if (len[2] != 6 || memcmp(parts[2], "master", 6) != 0)
		return redis_set_problem("it is not a master");
	for (int i = 0; i < 2; i++)
		hash = hash_bytes_extended((const unsigned char *) parts[i], (int) len[i], hash);
	hash = hash_bytes_extended((const unsigned char *) redis.url, (int) strlen(redis.url), hash);
	redis.server = hash == 0 ? 1 : hash;
	INSTR_TIME_SET_CURRENT(redis.verified_at);
	return true;
}

/* redis_greet says who we are, unless address is NULL, and asks who it is. */
bool
redis_greet(const RedisAddress *address)
{
	char		 database[16];
	const char	*auth[3] = {"AUTH"};
	const char	*choose[2] = {"SELECT", database};
	const char	*ask_server[2] = {"INFO", "server"};
	const char	*ask_replication[2] = {"INFO", "replication"};
	RedisCommand commands[4];
	int			 n = 0;

	if (address != NULL && address->has_password)
	{
		int argc = 1;

		if (address->user[0] != '\0')
			auth[argc++] = address->user;
		auth[argc++] = address->password;
		commands[n++] = (RedisCommand){argc, auth, NULL};
	}
	if (address != NULL && address->database != 0)
	{
		snprintf(database, sizeof(database), "%d", address->database);
		commands[n++] = (RedisCommand){2, choose, NULL};
	}
	commands[n++] = (RedisCommand){2, ask_server, NULL};
	commands[n++] = (RedisCommand){2, ask_replication, NULL};
	if (!redis_exchange(commands, n))
		return false;
	for (int i = 0; i < n - 2; i++)
		if (redis.replies[i]->type != REDIS_IS_STATUS)
			return redis_fail(redis.replies[i]);
	if (redis_note_server(redis.replies[n - 2], redis.replies[n - 1]))
		return true;
	redis_drop();
	return false;
}

/*
 * The password of an address that holds none, from the first line of
 * flohsync.redis_password_file.
 */
static bool
redis_read_password(RedisAddress *address)
{
	char		text[sizeof(address->password) + 1];
	const char *problem = NULL;
	char		message[200];
	ssize_t		n;
	size_t		len = 0;

	if (address->has_password)
		return true;
	if (flohsync_redis_password_file[0] == '\0')
		return address->user[0] == '\0' ||
			redis_set_problem("flohsync.redis_url names a user without a password, and"
							  " flohsync.redis_password_file is not set");
	n = guc_file_read(flohsync_redis_password_file, text, sizeof(text), &problem);
	if (problem == NULL)
	{
		while (len < n && text[len] != '\n')
			len++;
		if (len > 0 && len < n && text[len - 1] == '\r')
			len--;
		if (len == 0)
			problem = "its first line is empty";
		else if (len >= sizeof(address->password))
			problem = "its first line is too long";
		else if (memchr(text, '\0', len) != NULL)
			problem = "its first line is not valid text";
	}
	if (problem == NULL)
	{
		memcpy(address->password, text, len);
		address->password[len] = '\0';
		address->has_password = true;
	}
	explicit_bzero(text, sizeof(text));
	if (problem == NULL)
		return true;
	snprintf(message, sizeof(message),
			 "the file of flohsync.redis_password_file cannot be used: %s", problem);
	return redis_set_problem(message);
}

/* redis_open_anew connects, and greets; false: see redis_problem(). */
bool
redis_open_anew(long connect_ms)
{
	volatile RedisAddress address;
	volatile bool		  good = false;
	const char *problem = guc_parse_redis_url(flohsync_redis_url, (RedisAddress *) &address);

	redis_drop();
	free(redis.url);
	redis.url = strdup(flohsync_redis_url);
	if (redis.url == NULL)
		problem = "out of memory";
	if (problem)
	{
		explicit_bzero((RedisAddress *) &address, sizeof(address));
		return redis_set_problem(problem);
	}
	redis_set_deadline(connect_ms);
	PG_TRY();
	{
		good = redis_read_password((RedisAddress *) &address) &&
			redis_connect((RedisAddress *) &address);
		if (good && address.tls)
			good = redis_start_tls((RedisAddress *) &address);
		if (good)
		{
			redis.reader = redis_reply_reader();
			good = redis.reader != NULL || redis_set_problem("out of memory");
		}
		if (good)
		{
			redis_set_deadline(Max(redis.answer_ms, connect_ms));
			good = redis_greet((RedisAddress *) &address);
		}
	}
	PG_CATCH();
	{
		explicit_bzero((RedisAddress *) &address, sizeof(address));
		redis_drop();
		PG_RE_THROW();
	}
	PG_END_TRY();
	explicit_bzero((RedisAddress *) &address, sizeof(address));
	/* The password was in what was sent. */
	if (redis.out)
		explicit_bzero(redis.out, redis.out_room);
	if (!good)
		redis_drop();
	return good;
}
