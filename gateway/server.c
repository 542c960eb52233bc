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
 * - When connections get scarce, those go that have waited, or sent, for longest since
 *	 they had an answer.
 * - What two programs in a row could read differently is refused with 400: see
 *	 framing_problem.
 */
#include "server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config.h"
#include "framing.h"
#include "listen.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"

#define HEAD_LIMIT (32 * 1024)
#define SWEEP_MS   500
/* A longer answer is handed over in parts, so that it is seen how it is taken. */
#define WHOLE_LIMIT (64 * 1024)
#define PART		(16 * 1024)
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
	int most = config->connections - config->connections / 10;
	int left = config->connections / 20 + 1;

	if (numbers.connections - ncut < most)
		return;
	for (Conn *c = oldest; c != NULL && left > 0; c = c->prev)
	{
		if ((c->state == CONN_HEAD || c->state == CONN_BODY) && !c->cut)
		{
			conn_cut(c);
			left--;
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
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_ITC;

	listen_fd = listen_open();
	if (listen_fd < 0)
		return false;
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
	listen_close(listen_fd);
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

const char *
server_address(void)
{
	return listen_address(listen_fd);
}
