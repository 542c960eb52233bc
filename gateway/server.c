/*
 * server.c
 *	  The HTTP server: connections of clients, their limits, and the framing of
 *	  requests.
 *
 * libmicrohttpd reads and writes; its epoll is watched by ours, so all of it
 * happens in the one thread.  While the database works for a request, its
 * connection is suspended: it costs no thread, and no connection to the database
 * either once that has answered.
 *
 * - The head of a request and its body have a time each, as a whole, and so has each
 *	 part of its answer: a byte now and then does not make it longer.  Who takes longer
 *	 is cut off.
 * - When connections get scarce, those that have waited longest for a request go; if
 *	 these are too few, those that have been sending one for longest.
 * - What two programs in a row could read differently is refused with 400: see
 *	 framing_problem.
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config.h"
#include "framing.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"

#define HEAD_LIMIT (32 * 1024)
#define SWEEP_MS   500
/* A longer answer is handed over in parts, so that it is seen how it is taken. */
#define WHOLE_LIMIT (64 * 1024)
#define PART		(16 * 1024)
/*
 * What the system keeps of answers for one connection: by itself it takes megabytes from
 * somebody who asks for much and reads nothing.
 */
#define SEND_BUFFER (128 * 1024)
#define PARAMETERS	100 /* of a query; request.c refuses less */
/* A body that nobody wants is read up to this, so that its sender sees the answer. */
#define DISCARD_LIMIT (8 * 1024 * 1024)

static struct MHD_Daemon *mhd;
static Watch			  watch;
static Timer			  sweeper;
static Conn				 *conns; /* that which began to wait for a request last comes first */
static Conn				 *oldest;
static int				  ncut; /* connections that are cut, and still there */
static ServerNumbers	  numbers;
static bool				  stopping;
static char				 *socket_path;
static int				  listen_fd = -1;

void
conn_state(Conn *conn, ConnState state, int64_t milliseconds)
{
	conn->state = state;
	conn->deadline = milliseconds > 0 ? loop_now() + milliseconds : 0;
}

static void
conn_cut(Conn *conn)
{
	if (conn->cut)
		return;
	conn->cut = true;
	ncut++;
	numbers.cut++;
	shutdown(conn->fd, SHUT_RDWR);
}

static void
conn_take_out(Conn *conn)
{
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		conns = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	else
		oldest = conn->prev;
}

static void
conn_put_first(Conn *conn)
{
	conn->prev = NULL;
	conn->next = conns;
	if (conns != NULL)
		conns->prev = conn;
	else
		oldest = conn;
	conns = conn;
}

/* Half of what may be open for nothing is let go at once. */
static void
make_room(void)
{
	static const ConnState states[] = {CONN_HEAD, CONN_BODY};
	int					   most = config->connections - config->connections / 10;
	int					   left = config->connections / 20 + 1;

	if (numbers.connections - ncut < most)
		return;
	for (int i = 0; i < 2 && left > 0; i++)
	{
		for (Conn *c = oldest; c != NULL && left > 0; c = c->prev)
		{
			if (c->state == states[i] && !c->cut)
			{
				conn_cut(c);
				left--;
			}
		}
	}
}

static void
sweep(void *arg)
{
	(void) arg;
	for (Conn *c = conns; c != NULL; c = c->next)
	{
		if (c->deadline != 0 && c->deadline <= loop_now())
			conn_cut(c);
	}
}

static void
conn_address(Conn *conn, const struct sockaddr *sa)
{
	if (sa != NULL && sa->sa_family == AF_INET)
	{
		const struct sockaddr_in *in = (const struct sockaddr_in *) sa;

		inet_ntop(AF_INET, &in->sin_addr, conn->address, sizeof(conn->address));
		conn->local = ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	else if (sa != NULL && sa->sa_family == AF_INET6)
	{
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *) sa;

		if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr))
		{
			inet_ntop(AF_INET, in->sin6_addr.s6_addr + 12, conn->address, sizeof(conn->address));
			conn->local = in->sin6_addr.s6_addr[12] == 127;
		}
		else
		{
			inet_ntop(AF_INET6, &in->sin6_addr, conn->address, sizeof(conn->address));
			conn->local = IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
		}
	}
	else
	{
		snprintf(conn->address, sizeof(conn->address), "unix");
		conn->local = true;
	}
}

static void
request_forget(Request *r)
{
	r->conn->request = NULL;
	numbers.active--;
	request_free(r);
}

static void
connection_changed(void *arg, struct MHD_Connection *connection, void **context,
				   enum MHD_ConnectionNotificationCode code)
{
	Conn *conn = *context;

	(void) arg;
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		const union MHD_ConnectionInfo *fd =
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		const union MHD_ConnectionInfo *client =
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

		conn = must_alloc(sizeof(Conn));
		conn->fd = fd->connect_fd;
		conn_address(conn, client != NULL ? client->client_addr : NULL);
		conn_put_first(conn);
		numbers.connections++;
		numbers.accepted++;
		conn_state(conn, CONN_HEAD, config->header_timeout * 1000);
		*context = conn;
		make_room();
	}
	else if (conn != NULL)
	{
		conn_take_out(conn);
		ncut -= conn->cut;
		/* Not of every request that begins, the library says that it ends. */
		if (conn->request != NULL)
			request_forget(conn->request);
		free(conn);
		*context = NULL;
		numbers.connections--;
	}
}

/* The request line has been read. */
static void *
request_begins(void *arg, const char *uri, struct MHD_Connection *connection)
{
	Request						   *r = must_alloc(sizeof(Request));
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	int parameters = 0;

	(void) arg;
	r->connection = connection;
	r->conn = info->socket_context;
	r->uri = must_copy(uri != NULL ? uri : "");
	r->uri_at = uri;
	r->begun = clock_us();
	r->peer = r->conn->address;
	r->local = r->conn->local;
	r->conn->request = r;
	numbers.active++;
	/* With so many the library would neither go on nor end. */
	for (const char *p = strchr(r->uri, '&'); p != NULL; p = strchr(p + 1, '&'))
		parameters++;
	if (parameters > PARAMETERS)
		conn_cut(r->conn);
	return r;
}

static void
request_ends(void *arg, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode code)
{
	Request *r = *context;

	(void) arg;
	(void) connection;
	if (r == NULL)
		return;
	*context = NULL;
	if (r->seen)
		metrics_request(r, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	conn_state(r->conn, CONN_HEAD, config->idle_timeout * 1000);
	conn_take_out(r->conn);
	conn_put_first(r->conn);
	/* All of the answer is on its way; there is not to be another request. */
	if (stopping)
		conn_cut(r->conn);
	request_forget(r);
}

/* A long answer, of which the client takes one part after the other. */
typedef struct Parts
{
	Conn	   *conn;
	const char *text;
	size_t		n;
	char	   *owned; /* NULL: it is shared */
} Parts;

static ssize_t
next_part(void *arg, uint64_t position, char *to, size_t most)
{
	Parts *parts = arg;
	size_t n = parts->n - (size_t) position;

	if (n > most)
		n = most;
	memcpy(to, parts->text + position, n);
	conn_state(parts->conn, CONN_SEND, config->send_timeout * 1000);
	return (ssize_t) n;
}

static void
parts_free(void *arg)
{
	Parts *parts = arg;

	free(parts->owned);
	free(parts);
}

static struct MHD_Response *
answer_in_parts(Request *r, size_t n)
{
	Parts *parts = must_alloc(sizeof(Parts));

	*parts = (Parts){r->conn, r->answer.shared, n, NULL};
	if (parts->text == NULL)
	{
		parts->text = parts->owned = r->answer.body.p;
		/* Its size is kept for the log. */
		r->answer.body.p = NULL;
	}
	return MHD_create_response_from_callback(n, PART, next_part, parts, parts_free);
}

static enum MHD_Result
queue_answer(Request *r)
{
	Answer				*a = &r->answer;
	struct MHD_Response *response = a->stream;
	enum MHD_Result		 result;
	size_t				 n = a->shared != NULL ? a->shared_n : a->body.n;

	r->queued = true;
	if (response == NULL && n > WHOLE_LIMIT)
		response = answer_in_parts(r, n);
	else if (response == NULL && a->shared != NULL)
		response = MHD_create_response_from_buffer(n, (void *) a->shared, MHD_RESPMEM_PERSISTENT);
	else if (response == NULL && n > 0)
	{
		/* Kept for the log: only the bytes go. */
		response = MHD_create_response_from_buffer(n, a->body.p, MHD_RESPMEM_MUST_FREE);
		if (response != NULL)
			a->body.p = NULL;
	}
	else if (response == NULL)
		response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return MHD_NO;
	a->stream = NULL;
	if (n > 0)
		MHD_add_response_header(response, "Content-Type", a->type ? a->type : "application/json");
	MHD_add_response_header(response, "X-Request-Id", r->id);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	for (int i = 0; i < a->nheaders; i++)
		MHD_add_response_header(response, a->name[i], a->value[i]);
	if (a->close || r->last || stopping)
		MHD_add_response_header(response, "Connection", "close");
	if (r->conn->state != CONN_STREAM)
		conn_state(r->conn, CONN_SEND, config->send_timeout * 1000);
	result = MHD_queue_response(r->connection, a->status, response);
	MHD_destroy_response(response);
	return result;
}

static bool
has_body(const Request *r)
{
	return request_header(r, "Content-Length") != NULL ||
		request_header(r, "Transfer-Encoding") != NULL;
}

static bool
body_is_discarded(const Request *r)
{
	const char *length = request_header(r, "Content-Length");

	return request_header(r, "Expect") == NULL &&
		(length == NULL || strtoull(length, NULL, 10) <= DISCARD_LIMIT);
}

static enum MHD_Result
handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *data, size_t *size, void **context)
{
	Request *r = *context;

	(void) arg;
	(void) connection;
	(void) url;
	if (r == NULL || r->conn == NULL)
		return MHD_NO;
	if (!r->seen)
	{
		char problem[128];

		r->seen = true;
		r->method = must_copy(method);
		if (!framing_ok(r, method, version, problem, sizeof(problem)))
		{
			snprintf(r->id, sizeof(r->id), "-");
			answer_error(&r->answer, strncmp(problem, "501", 3) == 0 ? 501 : 400, FLS_BAD_REQUEST,
						 strncmp(problem, "501", 3) == 0 ? problem + 4 : problem, NULL, NULL);
			r->answer.close = true;
			r->answered = true;
		}
		else
			request_head(r);
		/* See framing.c. */
		r->last = request_header(r, "Transfer-Encoding") != NULL;
		/*
		 * Who sends a body does not see an answer before it is sent: then it is read, and
		 * thrown away.  Unless it is too long for that, or waits for our word.
		 */
		if (r->answered && (r->answer.close || (has_body(r) && !body_is_discarded(r))))
		{
			r->answer.close = true;
			return queue_answer(r);
		}
		conn_state(r->conn, CONN_BODY, config->body_timeout * 1000);
		return MHD_YES;
	}
	if (*size > 0)
	{
		if (r->answered || r->body.n + *size > (size_t) config->body_limit)
		{
			r->body_too_large = true;
			r->body_discarded += *size;
			if (r->body_discarded > DISCARD_LIMIT)
				return MHD_NO;
		}
		else
			buf_add(&r->body, data, *size);
		*size = 0;
		return MHD_YES;
	}
	if (!r->running && !r->answered)
	{
		r->running = true;
		conn_state(r->conn, CONN_WORK, 0);
		r->in_handler = true;
		request_run(r);
		r->in_handler = false;
	}
	if (r->answered)
		return r->queued ? MHD_YES : queue_answer(r);
	r->suspended = true;
	MHD_suspend_connection(r->connection);
	return MHD_YES;
}

void
request_answered(Request *r)
{
	r->answered = true;
	if (r->in_handler || !r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->connection);
}

static int
listen_unix(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int				   fd;
	mode_t			   mask;

	if (strlen(path) >= sizeof(sa.sun_path))
	{
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	/* One that nobody listens on any more is in the way. */
	if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) == 0)
	{
		errno = EADDRINUSE;
		close(fd);
		return -1;
	}
	if (errno == ECONNREFUSED)
		unlink(path);
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	mask = umask(0117);
	if (fd >= 0 && bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0)
	{
		close(fd);
		fd = -1;
	}
	umask(mask);
	if (fd >= 0)
		socket_path = must_copy(path);
	return fd;
}

static int
listen_tcp(const char *where, const char **problem)
{
	char			*host = must_copy(where);
	char			*port = strrchr(host, ':');
	char			*name = host;
	struct addrinfo	 hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	int				 fd = -1;
	int				 one = 1;
	int				 buffer = SEND_BUFFER;
	int				 error;

	if (port == NULL)
	{
		*problem = "it is not of the form address:port";
		free(host);
		return -1;
	}
	*port++ = '\0';
	if (name[0] == '[' && strlen(name) > 1 && name[strlen(name) - 1] == ']')
	{
		name[strlen(name) - 1] = '\0';
		name++;
	}
	error = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, port, &hints, &list);
	free(host);
	if (error != 0)
	{
		*problem = gai_strerror(error);
		return -1;
	}
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 &&
		(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
		 setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)) != 0 ||
		 bind(fd, list->ai_addr, list->ai_addrlen) != 0))
	{
		*problem = strerror(errno);
		close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd;
}

/* Where it listens: the port may have been left to the system. */
const char *
server_address(void)
{
	static char				text[128];
	struct sockaddr_storage sa;
	socklen_t				n = sizeof(sa);
	const char			   *colon = strrchr(config->listen, ':');

	if (listen_fd < 0 || config->listen[0] == '/' || colon == NULL ||
		getsockname(listen_fd, (struct sockaddr *) &sa, &n) != 0)
		return config->listen;
	snprintf(text, sizeof(text), "%.*s:%d", (int) (colon - config->listen), config->listen,
			 ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &sa)->sin6_port :
											  ((struct sockaddr_in *) &sa)->sin_port));
	return text;
}

/* As many file descriptors as there may be. */
static void
raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < (rlim_t) config->connections + 300)
	{
		config->connections = limit.rlim_cur > 332 ? (int) limit.rlim_cur - 300 : 32;
		log_message(LOG_WARNING, "the limit of open files allows %d connections only",
					config->connections);
	}
}

static void __attribute__((format(printf, 2, 0)))
library_says(void *arg, const char *format, va_list args)
{
	char text[512];

	(void) arg;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	/* That a client went away is not worth a line. */
	if (log_wants(LOG_REQUEST) && getenv("FLOHSYNC_HTTP_LIBRARY_LOG") != NULL)
		log_message(LOG_INFO, "libmicrohttpd: %s", text);
}

static void
mhd_event(void *arg, uint32_t events)
{
	(void) arg;
	(void) events; /* server_turn runs it anyway */
}

bool
server_start(void)
{
	const union MHD_DaemonInfo *info;
	const char				   *problem = NULL;
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_ITC;

	raise_limit();
	if (config->listen[0] == '/')
		listen_fd = listen_unix(config->listen);
	else
		listen_fd = listen_tcp(config->listen, &problem);
	if (listen_fd < 0 || listen(listen_fd, SOMAXCONN) != 0)
	{
		log_message(LOG_ERROR, "could not listen on \"%s\": %s", config->listen,
					problem ? problem : strerror(errno));
		return false;
	}
	if (config->listen[0] != '/' && strncmp(config->listen, "127.", 4) != 0 &&
		strncmp(config->listen, "[::1]", 5) != 0 && strncmp(config->listen, "localhost:", 10) != 0)
		log_message(
			LOG_WARNING,
			"listening on \"%s\": what clients send is not encrypted, so nothing but a TLS proxy "
			"should reach it",
			config->listen);
	mhd = MHD_start_daemon(
		flags, 0, NULL, NULL, handle, NULL, MHD_OPTION_EXTERNAL_LOGGER, library_says, NULL,
		MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned) config->connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		(unsigned) config->connections_per_address, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t) HEAD_LIMIT, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
#if MHD_VERSION >= 0x00097701
		MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1,
#else
		MHD_OPTION_STRICT_FOR_CLIENT, 1,
#endif
		MHD_OPTION_NOTIFY_CONNECTION, connection_changed, NULL, MHD_OPTION_NOTIFY_COMPLETED,
		request_ends, NULL, MHD_OPTION_URI_LOG_CALLBACK, request_begins, NULL,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
	info = mhd != NULL ? MHD_get_daemon_info(mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (info == NULL)
	{
		log_message(LOG_ERROR, "could not start the HTTP server");
		return false;
	}
	loop_watch(&watch, info->epoll_fd, EPOLLIN, mhd_event, NULL);
	loop_every(&sweeper, SWEEP_MS, sweep, NULL);
	return true;
}

int64_t
server_turn(void)
{
	MHD_UNSIGNED_LONG_LONG most;

	MHD_run(mhd);
	if (MHD_get_timeout(mhd, &most) != MHD_YES || most > 1000)
		return 1000;
	return (int64_t) most;
}

bool
server_stopping(void)
{
	return stopping;
}

void
server_quiesce(void)
{
	stopping = true;
	listen_fd = MHD_quiesce_daemon(mhd);
	if (listen_fd >= 0)
		close(listen_fd);
	if (socket_path != NULL)
		unlink(socket_path);
	for (Conn *c = conns; c != NULL; c = c->next)
	{
		if (c->state == CONN_HEAD)
			conn_cut(c);
	}
}

void
server_stop(void)
{
	loop_unwatch(&watch);
	MHD_stop_daemon(mhd);
}

ServerNumbers
server_numbers(void)
{
	return numbers;
}
