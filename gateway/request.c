/*
 * request.c
 *	  A request, from its head to its answer.
 *
 * The head: which route, is the client within its limits, is the token good.  Then the
 * body is read, by server.c.  Then the parameters, and the call of the route's
 * function, in a transaction with the role and the claims of the token.  Whether that
 * role may do it is for the database to say.
 */
#include "request.h"

#include <arpa/inet.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config.h"
#include "cors.h"
#include "events.h"
#include "log.h"
#include "metrics.h"
#include "openapi.h"
#include "server.h"
#include "trigger.h"
#include "webhook.h"

const char *
request_header(const Request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

#define ID_BYTES 16

/* Bytes that nobody else has; they are no secret, so many can be made at a time. */
static void
take_random(unsigned char bytes[ID_BYTES])
{
	static unsigned char store[64 * ID_BYTES];
	static size_t		 left;

	if (left == 0)
	{
		if (RAND_bytes(store, sizeof(store)) != 1)
			memset(store, 0, sizeof(store));
		left = sizeof(store);
	}
	left -= ID_BYTES;
	memcpy(bytes, store + left, ID_BYTES);
}

/* X-Request-Id as it came, if it can go into a log and a header. */
static void
take_id(Request *r)
{
	static const char digits[] = "0123456789abcdef";
	const char		 *given = request_header(r, "X-Request-Id");
	char			 *out = r->id;
	unsigned char	  random[ID_BYTES];

	if (given != NULL && given[0] != '\0' && strlen(given) <= REQUEST_ID_MAX &&
		strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=@") ==
			strlen(given))
	{
		snprintf(r->id, sizeof(r->id), "%s", given);
		return;
	}
	take_random(random);
	random[6] = (random[6] & 0x0f) | 0x40;
	random[8] = (random[8] & 0x3f) | 0x80;
	for (int i = 0; i < ID_BYTES; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[random[i] >> 4];
		*out++ = digits[random[i] & 15];
	}
	*out = '\0';
}

/* An address, as inet_ntop writes it, out of "1.2.3.4", "1.2.3.4:5", "2001:db8::1" or "[2001:db8::1]:5". */
static bool
read_address(const char *p, size_t n, char *out, size_t size)
{
	char		  text[64];
	char		 *end;
	unsigned char bytes[16];
	int			  family;

	if (n == 0 || n >= sizeof(text))
		return false;
	memcpy(text, p + (p[0] == '['), n - (p[0] == '['));
	text[n - (p[0] == '[')] = '\0';
	end = strchr(text, p[0] == '[' ? ']' : ':');
	if (p[0] == '[' && end == NULL)
		return false;
	/* What is behind one colon is a port. */
	if (end != NULL && (p[0] == '[' || strchr(end + 1, ':') == NULL))
		*end = '\0';
	family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
	return inet_pton(family, text, bytes) == 1 && inet_ntop(family, bytes, out, size) != NULL;
}

static bool
is_trusted(const char *address)
{
	for (int i = 0; i < config->trusted_proxies.n; i++)
	{
		if (strcmp(config->trusted_proxies.word[i], address) == 0)
			return true;
	}
	return false;
}

/* All X-Forwarded-For in a row: some load balancers add to the one that there is, some add another one. */
static enum MHD_Result
add_forwarded(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	Buf *b = arg;

	(void) kind;
	if (strcasecmp(name, "X-Forwarded-For") == 0 && value != NULL)
	{
		buf_text(b, b->n > 0 ? "," : "");
		buf_text(b, value);
	}
	return MHD_YES;
}

/* Behind load balancers that are trusted, the client is who the first of them that got the request says. */
static void
take_forwarded(Request *r)
{
	Buf	   list = {0};
	size_t end;

	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, add_forwarded, &list);
	end = list.n;
	while (end > 0 && is_trusted(r->peer))
	{
		size_t from = end;
		char   address[64];

		while (from > 0 && list.p[from - 1] != ',')
			from--;
		while (end > from && strchr(" \t", list.p[end - 1]) != NULL)
			end--;
		for (size_t p = from; p < end; p++)
		{
			if (strchr(" \t", list.p[p]) == NULL)
			{
				/* What is no address is from nobody: the last one that is known stays. */
				if (!read_address(list.p + p, end - p, address, sizeof(address)))
					goto done;
				snprintf(r->forwarded, sizeof(r->forwarded), "%s", address);
				r->peer = r->forwarded;
				break;
			}
		}
		end = from > 0 ? from - 1 : 0;
	}
done:
	buf_free(&list);
}

/* Who has one address of IPv6 has as many as there are in its network. */
static void
take_network(Request *r)
{
	unsigned char bytes[16];

	snprintf(r->network, sizeof(r->network), "%s", r->peer);
	if (strchr(r->peer, ':') != NULL && inet_pton(AF_INET6, r->peer, bytes) == 1)
	{
		memset(bytes + 8, 0, 8);
		inet_ntop(AF_INET6, bytes, r->network, sizeof(r->network));
	}
}

static void
take_peer(Request *r)
{
	if (request_header(r, "X-Forwarded-For") != NULL || request_header(r, "Forwarded") != NULL)
	{
		r->local = false;
		take_forwarded(r);
	}
	take_network(r);
}

static bool
body_announced_too_large(Request *r)
{
	const char *length = request_header(r, "Content-Length");

	return length != NULL && strtoull(length, NULL, 10) > (unsigned long long) config->body_limit;
}

static void
too_large(Request *r)
{
	answer_errorf(&r->answer, 413, FLS_TOO_LARGE, "the body is larger than %d bytes",
				  config->body_limit);
}

/* Whether the route takes no token, or the request needs none. */
static bool
open_to(const Request *r)
{
	switch (r->route->permission)
	{
		case FOR_ALL:
		case FOR_SENDERS:
			return true;
		case FOR_METRICS:
			return strcmp(config->metrics, "public") == 0 ||
				(strcmp(config->metrics, "local") == 0 && r->local &&
				 request_header(r, "Authorization") == NULL);
		default:
			return false;
	}
}

void
request_head(Request *r)
{
	char		problem[128];
	char		allow[64];
	const char *coding;

	take_id(r);
	take_peer(r);
	if (!uri_read(r, problem, sizeof(problem)))
	{
		answer_error(&r->answer, 400, FLS_BAD_REQUEST, problem, NULL, NULL);
		goto answered;
	}
	r->route = routes_find(r->method, r->segment, r->nsegments, allow);
	cors_headers(r);
	if (r->route == NULL && allow[0] != '\0' && strcmp(r->method, "OPTIONS") == 0)
	{
		r->answer.status = 204;
		answer_header(&r->answer, "Allow", allow);
		cors_preflight(r, allow);
		goto answered;
	}
	if (r->route == NULL && allow[0] != '\0')
	{
		answer_errorf(&r->answer, 405, FLS_METHOD, "this path has no method %.20s", r->method);
		answer_header(&r->answer, "Allow", allow);
		goto answered;
	}
	if (r->route == NULL)
	{
		answer_error(&r->answer, 404, FLS_NOT_FOUND, "there is no such path", NULL, NULL);
		goto answered;
	}
	coding = request_header(r, "Content-Encoding");
	if (coding != NULL && r->route->kind != ROUTE_WEBHOOK && strcasecmp(coding, "identity") != 0)
	{
		answer_error(&r->answer, 415, FLS_MEDIA_TYPE, "the body must not be encoded", NULL, NULL);
		goto answered;
	}
	if (r->route->kind == ROUTE_WEBHOOK && !webhook_allowed(r))
		goto answered;
	if (body_announced_too_large(r))
	{
		too_large(r);
		goto answered;
	}
	/* A token that the database has to be asked about is looked up when the body is there. */
	if (!open_to(r) && auth_begin(r) && r->answer.status != 0)
		goto answered;
	return;
answered:
	r->answered = true;
}

#define HEADERS_MOST 100 /* more are refused, see framing.c */

typedef struct HeaderList
{
	int			n;
	bool		secrets; /* those that have them, too */
	const char *name[HEADERS_MOST];
	const char *value[HEADERS_MOST];
} HeaderList;

static enum MHD_Result
add_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HeaderList *list = arg;

	(void) kind;
	if (value == NULL || list->n == HEADERS_MOST ||
		(!list->secrets &&
		 (strcasecmp(name, "Authorization") == 0 || strcasecmp(name, "Cookie") == 0 ||
		  strcasecmp(name, "Proxy-Authorization") == 0)))
		return MHD_YES;
	list->name[list->n] = name;
	list->value[list->n++] = value;
	return MHD_YES;
}

/* One that comes more than once is one with all its values (RFC 9110, 5.3). */
static void
put_header(Buf *b, HeaderList *list, int i)
{
	Buf	  value = {0};
	char *lower = must_copy(list->name[i]);

	for (char *p = lower; *p != '\0'; p++)
		*p = *p >= 'A' && *p <= 'Z' ? *p + 32 : *p;
	buf_json_text(b, lower);
	free(lower);
	buf_text(&value, list->value[i]);
	for (int j = i + 1; j < list->n; j++)
	{
		if (list->name[j] != NULL && strcasecmp(list->name[j], list->name[i]) == 0)
		{
			buf_printf(&value, ", %s", list->value[j]);
			list->name[j] = NULL;
		}
	}
	buf_char(b, ':');
	buf_json(b, value.p, value.n);
	buf_free(&value);
}

/* Senders of webhooks may have a secret in Authorization; the database has to see it. */
static char *
headers_of(const Request *r)
{
	HeaderList list = {.secrets = r->route->kind == ROUTE_WEBHOOK};
	Buf		   b = {0};

	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, add_header, &list);
	buf_char(&b, '{');
	for (int i = 0; i < list.n; i++)
	{
		if (list.name[i] == NULL)
			continue;
		if (b.n > 1)
			buf_char(&b, ',');
		put_header(&b, &list, i);
	}
	buf_char(&b, '}');
	return buf_take(&b);
}

/* If-None-Match of a GET. */
static void
apply_etag(Request *r)
{
	const char *tags = request_header(r, "If-None-Match");
	const char *etag = NULL;

	if (tags == NULL || strcmp(r->route->method, "GET") != 0 || r->answer.status != 200)
		return;
	for (int i = 0; i < r->answer.nheaders; i++)
	{
		if (strcmp(r->answer.name[i], "ETag") == 0)
			etag = r->answer.value[i];
	}
	if (etag != NULL && (strcmp(tags, "*") == 0 || strstr(tags, etag) != NULL))
	{
		r->answer.status = 304;
		r->answer.body.n = 0;
		r->answer.shared = NULL;
	}
}

void
request_called(void *arg, const DbResult *result)
{
	Request *r = arg;

	if (result->verdict != DB_OK)
	{
		answer_db_error(&r->answer, result);
		if (r->answer.status == 403 && r->who != NULL)
			metrics_count(METRIC_FORBIDDEN);
	}
	else
	{
		answer_row(&r->answer, result->row, r->route->status);
		apply_etag(r);
	}
	request_answered(r);
}

bool
request_call(Request *r, DbDone done)
{
	r->headers = headers_of(r);
	if (r->route->kind == ROUTE_WEBHOOK)
		webhook_params(r);
	r->task = (DbTask){
		.mode = r->route->mode,
		.statement = route_statement(r->route),
		.values = r->values,
		.lengths = r->lengths,
		.formats = r->formats,
		.role = r->who ? r->who->role : NULL,
		.claims = r->who ? r->who->claims : NULL,
		.user = r->who ? r->who->user : NULL,
		.headers = r->headers,
		.timeout = r->route->timeout,
		.done = done,
		.arg = r,
	};
	db_run(&r->task);
	return true;
}

static void
health_done(void *arg, const DbResult *result)
{
	Request *r = arg;

	if (result->verdict == DB_OK)
		answer_row(&r->answer, result->row, 200);
	else
	{
		r->answer.status = 503;
		buf_text(&r->answer.body, "{\"status\":\"down\",\"database\":\"away\"}");
		answer_header(&r->answer, "Retry-After", "2");
	}
	request_answered(r);
}

static void
metrics_done(void *arg, const DbResult *result)
{
	Request *r = arg;

	r->answer.status = 200;
	r->answer.type = "text/plain; version=0.0.4; charset=utf-8";
	metrics_print(&r->answer.body);
	if (result->verdict == DB_OK)
		buf_add(&r->answer.body, PQgetvalue(result->row, 0, 0), PQgetlength(result->row, 0, 0));
	request_answered(r);
}

static void
answer_live(Request *r, bool ready)
{
	r->answer.status = ready ? 200 : 503;
	buf_printf(&r->answer.body, "{\"status\":\"%s\"}", ready ? "ok" : "unavailable");
	if (!ready)
		answer_header(&r->answer, "Retry-After", "2");
	request_answered(r);
}

static void
run_route(Request *r)
{
	if (r->answer.status != 0)
	{
		request_answered(r);
		return;
	}
	if (!params_read(r))
	{
		request_answered(r);
		return;
	}
	switch (r->route->kind)
	{
		case ROUTE_CALL:
			request_call(r, request_called);
			break;
		case ROUTE_TRIGGER:
			trigger_run(r);
			break;
		case ROUTE_WEBHOOK:
			webhook_run(r);
			break;
		case ROUTE_EVENTS:
			events_run(r);
			break;
		case ROUTE_HEALTH:
			request_call(r, health_done);
			break;
		case ROUTE_METRICS:
			request_call(r, metrics_done);
			break;
		case ROUTE_LIVE:
			answer_live(r, true);
			break;
		case ROUTE_READY:
			answer_live(r, db_up() && !server_stopping());
			break;
		case ROUTE_OPENAPI:
			openapi_run(r);
			apply_etag(r);
			request_answered(r);
			break;
	}
}

void
request_run(Request *r)
{
	if (r->body_too_large)
	{
		too_large(r);
		request_answered(r);
		return;
	}
	if (!open_to(r) && r->who == NULL)
		auth_look_up(r, run_route);
	else
		run_route(r);
}

void
request_free(Request *r)
{
	identity_drop(r->who);
	answer_free(&r->answer);
	buf_free(&r->body);
	for (int i = 0; i < ROUTE_PARAMS; i++)
		free(r->owned[i]);
	free(r->headers);
	free(r->path);
	free(r->query);
	free(r->uri);
	free(r->method);
	free(r);
}
