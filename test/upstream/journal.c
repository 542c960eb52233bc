/*
 * journal.c
 *	  Counts requests, keeps the last of them with headers and body, and lets
 *	  a test wait for an event instead of sleeping.
 *
 * Requests come from the server's one request thread; waiting and the
 * counting of held answers happen in others, hence the mutex.  Control
 * requests, and connections that carry only such, are not counted.
 */
#include "journal.h"
#include "data.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define KEPT	  1000 /* requests kept */
#define BODY_KEPT 4096 /* bytes of a request's body kept */

typedef struct entry
{
	long	 number;
	int64_t	 at;
	long	 connection;
	char	 command[80];
	char	 type[64];
	long	 page;
	unsigned status;
	size_t	 records;
	size_t	 bytes;
	char	 method[16];
	buf		 path;
	buf		 uri;
	buf		 headers; /* JSON members */
	buf		 body;
	buf		 faults;
} entry;

typedef struct type_count
{
	char type[64];
	long requests;
} type_count;

/* A connection's number, given with its first command. */
typedef struct mark
{
	long number;
} mark;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  happened = PTHREAD_COND_INITIALIZER;
static int			   waiting = 0;

static entry	  entries[KEPT];
static type_count type_counts[MAX_TYPES];
static int		  types_counted = 0;
static long		  requests = 0;
static long		  fired = 0;
static long		  hanging = 0;
static long		  open_now = 0; /* requests whose answer is not given yet */
static long		  open_most = 0;
static long		  connections = 0;
static long		  connections_open = 0;
static uint64_t	  records_sent = 0;
static uint64_t	  bytes_sent = 0;

static void
tell(void)
{
	if (waiting > 0)
		pthread_cond_broadcast(&happened);
}

void *
journal_connection_opened(void)
{
	return must_alloc(sizeof(mark));
}

void
journal_connection_closed(void *m)
{
	pthread_mutex_lock(&lock);
	if (m != NULL && ((mark *) m)->number > 0)
		connections_open--;
	tell();
	pthread_mutex_unlock(&lock);
	free(m);
}

static long
connection_number(call *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	mark *m = info != NULL ? info->socket_context : NULL;

	if (m == NULL)
		return 0;
	if (m->number == 0)
	{
		m->number = ++connections;
		connections_open++;
	}
	return m->number;
}

static enum MHD_Result
put_header(void *closure, enum MHD_ValueKind kind, const char *key, const char *value)
{
	buf	  *b = closure;
	size_t start;

	(void) kind;
	if (b->n > 0)
		buf_char(b, ',');
	start = b->n;
	buf_json(b, key, strlen(key));
	for (size_t i = start; i < b->n; i++)
		if (b->p[i] >= 'A' && b->p[i] <= 'Z')
			b->p[i] = (char) (b->p[i] + 32);
	buf_char(b, ':');
	buf_json_str(b, value);
	return MHD_YES;
}

static void
count_type(const char *type)
{
	int i = 0;

	while (i < types_counted && strcmp(type_counts[i].type, type) != 0)
		i++;
	if (i == MAX_TYPES)
		return;
	if (i == types_counted)
	{
		strncpy(type_counts[i].type, type, sizeof(type_counts[i].type) - 1);
		type_counts[i].requests = 0;
		types_counted++;
	}
	type_counts[i].requests++;
}

/* A command has come in. */
void
journal_request(call *c, const char *command, const char *type, long page)
{
	entry *e;

	pthread_mutex_lock(&lock);
	e = &entries[requests % KEPT];
	e->number = ++requests;
	e->at = clock_now();
	e->connection = connection_number(c);
	strncpy(e->command, command, sizeof(e->command) - 1);
	strncpy(e->type, type, sizeof(e->type) - 1);
	e->page = page;
	e->status = 0;
	e->records = e->bytes = 0;
	strncpy(e->method, c->method, sizeof(e->method) - 1);
	e->path.n = e->uri.n = e->headers.n = e->body.n = e->faults.n = 0;
	buf_str(&e->path, c->url);
	buf_str(&e->uri, c->uri);
	MHD_get_connection_values(c->connection, MHD_HEADER_KIND, put_header, &e->headers);
	if (c->body.n > 0)
		buf_put(&e->body, c->body.p, c->body.n < BODY_KEPT ? c->body.n : BODY_KEPT);
	if (*type)
		count_type(type);
	open_now += !c->counted;
	c->counted = true;
	if (open_now > open_most)
		open_most = open_now;
	tell();
	pthread_mutex_unlock(&lock);
}

/* A request is done with, whatever became of it. */
void
journal_completed(call *c)
{
	if (!c->counted)
		return;
	pthread_mutex_lock(&lock);
	open_now--;
	pthread_mutex_unlock(&lock);
}

/* What is answered to the last one. */
void
journal_outcome(unsigned status, size_t records, size_t bytes, const char *faults)
{
	entry *e;

	pthread_mutex_lock(&lock);
	e = &entries[(requests + KEPT - 1) % KEPT];
	e->status = status;
	e->records = records;
	e->bytes = bytes;
	if (faults != NULL)
		buf_str(&e->faults, faults);
	records_sent += records;
	bytes_sent += bytes;
	pthread_mutex_unlock(&lock);
}

void
journal_fired(void)
{
	pthread_mutex_lock(&lock);
	fired++;
	tell();
	pthread_mutex_unlock(&lock);
}

void
journal_hanging(int by)
{
	pthread_mutex_lock(&lock);
	hanging += by;
	tell();
	pthread_mutex_unlock(&lock);
}

/* Start counting anew.  Open connections and held answers stay counted. */
void
journal_clear(void)
{
	pthread_mutex_lock(&lock);
	requests = fired = 0;
	open_most = open_now;
	connections = connections_open;
	records_sent = bytes_sent = 0;
	types_counted = 0;
	tell();
	pthread_mutex_unlock(&lock);
}

static bool
reached(const journal_goal *g)
{
	long seen = requests;

	if (g->type[0])
	{
		seen = 0;
		for (int i = 0; i < types_counted; i++)
			if (strcmp(type_counts[i].type, g->type) == 0)
				seen = type_counts[i].requests;
	}
	if (g->open < 0 && connections_open > 0)
		return false;
	return seen >= g->requests && hanging >= g->hanging && fired >= g->fired &&
		connections_open >= g->open;
}

/* Wait for the goal; false when the time is over first.  Not for the request thread. */
bool
journal_wait(const journal_goal *goal, long timeout_ms)
{
	struct timespec until;
	bool			ok;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000)
	{
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&lock);
	waiting++;
	while (!(ok = reached(goal)))
		if (pthread_cond_timedwait(&happened, &lock, &until) == ETIMEDOUT)
		{
			ok = reached(goal);
			break;
		}
	waiting--;
	pthread_mutex_unlock(&lock);
	return ok;
}

/* JSON members with the counters. */
void
journal_counts(buf *b)
{
	pthread_mutex_lock(&lock);
	buf_printf(b, "\"requests\":%ld,\"byType\":{", requests);
	for (int i = 0; i < types_counted; i++)
	{
		if (i > 0)
			buf_char(b, ',');
		buf_json_str(b, type_counts[i].type);
		buf_printf(b, ":%ld", type_counts[i].requests);
	}
	buf_printf(b,
			   "},\"connections\":{\"total\":%ld,\"open\":%ld},\"hanging\":%ld,"
			   "\"openRequests\":{\"now\":%ld,\"most\":%ld},\"fired\":%ld,"
			   "\"recordsSent\":%llu,\"bytesSent\":%llu",
			   connections, connections_open, hanging, open_now, open_most, fired,
			   (unsigned long long) records_sent, (unsigned long long) bytes_sent);
	pthread_mutex_unlock(&lock);
}

/* JSON member with the last requests, the newest last. */
void
journal_put(buf *b, long last)
{
	long first;

	pthread_mutex_lock(&lock);
	if (last > KEPT)
		last = KEPT;
	first = requests > last ? requests - last : 0;
	buf_lit(b, "\"entries\":[");
	for (long i = first; i < requests; i++)
	{
		entry *e = &entries[i % KEPT];

		buf_printf(b, "%s{\"number\":%ld,\"at\":\"", i > first ? "," : "", e->number);
		put_time(b, e->at);
		buf_printf(b, "\",\"connection\":%ld,\"path\":", e->connection);
		buf_json(b, e->path.p, e->path.n);
		buf_lit(b, ",\"uri\":");
		buf_json(b, e->uri.p, e->uri.n);
		buf_printf(b, ",\"method\":\"%s\",\"command\":", e->method);
		buf_json_str(b, e->command);
		buf_lit(b, ",\"type\":");
		buf_json_str(b, e->type);
		buf_printf(b,
				   ",\"page\":%ld,\"status\":%u,\"records\":%zu,\"bytes\":%zu,\"faults\":", e->page,
				   e->status, e->records, e->bytes);
		buf_json(b, e->faults.p, e->faults.n);
		buf_lit(b, ",\"headers\":{");
		buf_put(b, e->headers.p ? e->headers.p : "", e->headers.n);
		buf_lit(b, "},\"body\":");
		buf_json(b, e->body.p, e->body.n);
		buf_char(b, '}');
	}
	buf_char(b, ']');
	pthread_mutex_unlock(&lock);
}
