/*
 * metrics.c
 *	  What this server counts, in the text format of Prometheus, and the line of
 *	  the log for each request.
 *
 * Labels are routes of the table, never paths as they were asked for: their number
 * is not in the hands of clients.
 */
#include "metrics.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "db.h"
#include "events.h"
#include "log.h"
#include "loop.h"
#include "request.h"
#include "server.h"
#include "trigger.h"

#define STATUSES 20
#define BOUNDS	 13
#define ROUTES	 128

static const char *const bound_names[BOUNDS] = {"0.001", "0.0025", "0.005", "0.01", "0.025",
												"0.05",	 "0.1",	   "0.25",	"0.5",	"1",
												"2.5",	 "5",	   "+Inf"};
static const int64_t	 bounds[BOUNDS - 1] = {1000,   2500,   5000,   10000,	25000,	 50000,
											   100000, 250000, 500000, 1000000, 2500000, 5000000};

typedef struct RouteNumbers
{
	struct
	{
		unsigned status;
		long	 n;
	} status[STATUSES];
	long   bucket[BOUNDS];
	double seconds;
	long   n;
} RouteNumbers;

static RouteNumbers by_route[ROUTES + 1]; /* the last one: no route */
static long			counts[METRIC_COUNT];

void
metrics_count(Metric metric)
{
	counts[metric]++;
}

static void
log_request(Request *r, int64_t took, bool complete)
{
	char	 path[300] = "";
	LogField f[] = {
		LOG_TEXT("method", r->method),
		LOG_TEXT("path", path),
		LOG_NUMBER("status", r->answer.status),
		LOG_NUMBER("us", took),
		LOG_NUMBER("bytes", (long long) (r->answer.shared ? r->answer.shared_n : r->answer.body.n)),
		LOG_TEXT("id", r->id),
		LOG_TEXT("client", r->peer),
		LOG_TEXT("subject", r->who ? r->who->subject : NULL),
		LOG_TEXT("role", r->who ? r->who->role : NULL),
		LOG_TEXT("code", r->answer.code[0] ? r->answer.code : NULL),
		LOG_TEXT("aborted", complete ? NULL : "yes"),
	};

	if (!log_wants(LOG_REQUEST))
		return;
	/* Without the query, which may have a token or what a person was searched by. */
	snprintf(path, sizeof(path), "%.*s", (int) strcspn(r->uri, "?"), r->uri);
	log_line(LOG_REQUEST, "request", f, sizeof(f) / sizeof(f[0]));
}

void
metrics_request(Request *r, bool complete)
{
	RouteNumbers *n = &by_route[r->route != NULL ? r->route - routes : ROUTES];
	int64_t		  took = clock_us() - r->begun;
	int			  i;

	for (i = 0; i < STATUSES - 1; i++)
	{
		if (n->status[i].n == 0 || n->status[i].status == r->answer.status)
			break;
	}
	n->status[i].status = r->answer.status;
	n->status[i].n++;
	/* What waits for others says nothing of how fast this server is. */
	if (r->route == NULL || r->route->kind != ROUTE_EVENTS)
	{
		for (i = 0; i < BOUNDS - 1 && took > bounds[i]; i++)
			;
		n->bucket[i]++;
		n->seconds += (double) took / 1e6;
		n->n++;
	}
	log_request(r, took, complete);
}

static void
head(Buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP flohsync_http_%s %s\n# TYPE flohsync_http_%s %s\n", name, help, name,
			   type);
}

static void
one(Buf *b, const char *name, const char *type, const char *help, double value)
{
	head(b, name, type, help);
	buf_printf(b, "flohsync_http_%s %.17g\n", name, value);
}

static double
resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long  size;
	long  pages = 0;

	if (f == NULL)
		return 0;
	if (fscanf(f, "%ld %ld", &size, &pages) != 2)
		pages = 0;
	fclose(f);
	return (double) pages * (double) sysconf(_SC_PAGESIZE);
}

static const char *
route_labels(int i, char *text, size_t size)
{
	snprintf(text, size, "method=\"%s\",route=\"%s\"", i < nroutes ? routes[i].method : "",
			 i < nroutes ? routes[i].path : "");
	return text;
}

void
metrics_print(Buf *b)
{
	ServerNumbers s = server_numbers();
	DbNumbers	  d = db_numbers();
	char		  labels[200];

	head(b, "requests_total", "counter", "Requests answered, by route and status.");
	for (int i = 0; i <= ROUTES; i++)
	{
		for (int j = 0; j < STATUSES && by_route[i].status[j].n > 0; j++)
			buf_printf(b, "flohsync_http_requests_total{%s,status=\"%u\"} %ld\n",
					   route_labels(i, labels, sizeof(labels)), by_route[i].status[j].status,
					   by_route[i].status[j].n);
	}
	head(b, "request_duration_seconds", "histogram",
		 "Time from the head of a request to the end of its answer.");
	for (int i = 0; i <= ROUTES; i++)
	{
		long sum = 0;

		if (by_route[i].n == 0)
			continue;
		route_labels(i, labels, sizeof(labels));
		for (int j = 0; j < BOUNDS; j++)
		{
			sum += by_route[i].bucket[j];
			buf_printf(b, "flohsync_http_request_duration_seconds_bucket{%s,le=\"%s\"} %ld\n",
					   labels, bound_names[j], sum);
		}
		buf_printf(b, "flohsync_http_request_duration_seconds_sum{%s} %.6f\n", labels,
				   by_route[i].seconds);
		buf_printf(b, "flohsync_http_request_duration_seconds_count{%s} %ld\n", labels,
				   by_route[i].n);
	}
	one(b, "connections", "gauge", "Connections of clients.", s.connections);
	one(b, "connections_accepted_total", "counter", "Connections of clients that were taken.",
		(double) s.accepted);
	one(b, "connections_cut_total", "counter",
		"Connections that were closed for slowness or lack of room.", (double) s.cut);
	one(b, "requests_active", "gauge", "Requests that are being read, worked for or answered.",
		s.active);
	one(b, "event_clients", "gauge", "Clients of /api/events.", events_clients());
	one(b, "triggers_waiting", "gauge", "Triggers that wait for the end of their run.",
		triggers_waiting());
	head(b, "database_connections", "gauge", "Connections to the database.");
	buf_printf(b, "flohsync_http_database_connections{state=\"busy\"} %d\n", d.busy);
	buf_printf(b, "flohsync_http_database_connections{state=\"idle\"} %d\n", d.connected - d.busy);
	one(b, "database_waiting", "gauge", "Requests that wait for a connection to the database.",
		d.waiting);
	one(b, "database_up", "gauge", "Whether there is a connection to the database.", db_up());
	one(b, "bad_tokens_total", "counter", "Requests with a token that is no good.",
		(double) counts[METRIC_BAD_TOKEN]);
	one(b, "forbidden_total", "counter", "Requests that the role of their token may not make.",
		(double) counts[METRIC_FORBIDDEN]);
	one(b, "rate_limited_total", "counter", "Requests refused with 429.",
		(double) counts[METRIC_RATE_LIMITED]);
	one(b, "tokens_cached_total", "counter", "Tokens that were known already.",
		(double) counts[METRIC_TOKEN_CACHED]);
	one(b, "tokens_verified_total", "counter", "Tokens that were verified or looked up.",
		(double) counts[METRIC_TOKEN_VERIFIED]);
	one(b, "resident_memory_bytes", "gauge", "Memory of this process.", resident());
}
