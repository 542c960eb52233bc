/*
 * http.c
 *	  HTTP over libcurl's multi interface, driven by wait.c.
 *
 * A client has one easy handle and so one kept connection, and at most one
 * request under way.  http_start sends it as far as that goes without
 * waiting; http_finish waits for the end.  Between the two the caller may do
 * other work: the answer gathers in the socket.  Clients of one group
 * (http_group.c) go on together.
 *
 * Rules that hold here:
 * - callbacks never raise and never palloc: a longjmp through libcurl's frames
 *   would leave it broken; they note what happened, and we tell afterwards;
 * - calls into libcurl have all signals blocked, so that the resolver
 *   thread that it may start inherits the mask, and no handler of PostgreSQL
 *   runs in that thread; but for those that only ask of what has come;
 * - the address is judged when the socket is opened, after name resolution:
 *   nothing can change between the check and the connection (outbound.c);
 * - bytes of an answer are counted as decoded (libcurl 7.88 has no working
 *   limit of its own for answers of unknown length);
 * - a redirect is followed, by hand, only to the origin that was asked, with
 *   the method and body that were sent, and a few times: what goes with a
 *   request, credentials above all, never goes anywhere else.
 */
#include "postgres.h"

#include "base/compat.h"

#include <signal.h>
#include <sys/socket.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "net/crypto.h"
#include "net/http.h"
#include "net/http_private.h"

#define HTTP_LARGE_BUFFER (16 * 1024 * 1024) /* from here on a buffer grows by smaller steps */
#define HTTP_SLOW_S		  30 /* so long under 1 kB/s, or half the time that a request has */

static sigset_t http_saved_mask;
static int		http_depth = 0;

void
http_enter(void)
{
	sigset_t all;

	if (http_depth++ > 0)
		return;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &http_saved_mask);
}

void
http_leave(void)
{
	if (--http_depth == 0)
		sigprocmask(SIG_SETMASK, &http_saved_mask, NULL);
}

/* Makes a buffer larger; what it held is not left behind if that is secret. */
static bool
http_grow(HttpClient *client, HttpBuffer *b, size_t size)
{
	char *bigger = client->is_secret ? malloc(size) : realloc(b->data, size);

	if (bigger == NULL)
		return false;
	if (client->is_secret && b->data != NULL)
	{
		memcpy(bigger, b->data, b->len);
		crypto_wipe(b->data, b->size);
		free(b->data);
	}
	b->data = bigger;
	b->size = size;
	return true;
}

static size_t
http_on_body(char *data, size_t size, size_t count, void *arg)
{
	HttpClient *client = arg;
	HttpBuffer *b = &client->buffers[client->current];
	size_t		n = size * count;

	if (n > client->max_bytes - b->len)
	{
		client->too_large = true;
		return 0;
	}
	if (b->len + n + 1 > b->size)
	{
		size_t extra;
		size_t want = Max(b->size < HTTP_LARGE_BUFFER ? b->size * 2 : b->size + b->size / 4,
						  b->len + n + 65536);

		want = Min(want, client->max_bytes + 1);
		/* To measure takes longer than to receive a page for which there is room. */
		if (client->waited_for && !client->measured && client->memory)
		{
			client->memory_left = memory_left(client->memory);
			client->measured = true;
		}
		if (want - b->size > client->memory_left)
		{
			client->memory_exceeded = true;
			return 0;
		}
		extra = want - b->size;
		if (b->ahead && !http_ahead_grow(client->group, extra))
		{
			client->memory_exceeded = true;
			return 0;
		}
		if (!http_grow(client, b, want))
		{
			client->out_of_memory = true;
			return 0;
		}
		client->memory_left -= extra;
		if (!b->ahead)
			memory_outside((int64) extra);
	}
	memcpy(b->data + b->len, data, n);
	b->len += n;
	return n;
}

static size_t
http_on_header(char *data, size_t size, size_t count, void *arg)
{
	HttpClient		 *client = arg;
	size_t			  n = size * count;
	static const char name[] = "retry-after:";

	client->header_bytes += n;
	client->nheaders++;
	if (client->header_bytes > FLOHSYNC_MAX_HEADER_BYTES || client->nheaders > FLOHSYNC_MAX_HEADERS)
	{
		client->too_large = true;
		return 0;
	}
	/* A new status line starts the headers of another answer. */
	if (n > 5 && memcmp(data, "HTTP/", 5) == 0)
		client->retry_after[0] = '\0';
	if (n > sizeof(name) && pg_strncasecmp(data, name, sizeof(name) - 1) == 0)
	{
		size_t from = sizeof(name) - 1;

		while (from < n && (data[from] == ' ' || data[from] == '\t'))
			from++;
		while (n > from && (data[n - 1] == '\r' || data[n - 1] == '\n' || data[n - 1] == ' '))
			n--;
		n = Min(n - from, sizeof(client->retry_after) - 1);
		memcpy(client->retry_after, data + from, n);
		client->retry_after[n] = '\0';
	}
	return size * count;
}

static curl_socket_t
http_on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpClient *client = arg;

	if (!outbound_allowed(client->policy, &address->addr, client->blocked, sizeof(client->blocked)))
		return CURL_SOCKET_BAD;
	return http_group_opened(client->group,
							 socket(address->family, address->socktype | SOCK_CLOEXEC,
									address->protocol));
}

/*
 * Makes a client in malloc'ed memory, of a group or of its own; NULL: a further
 * one would take more file descriptors than there are.
 *
 * Longer than a screen: a list of options.
 */
static HttpClient *
http_client_make(HttpGroup *group)
{
	static bool		initialised = false;
	OutboundPolicy *policy = outbound_policy(flohsync_http_allowed_networks);
	HttpClient	   *client = calloc(1, sizeof(HttpClient));
	CURLcode		rc = CURLE_OK;
	bool			further = group != NULL;

	if (client == NULL)
	{
		outbound_free(policy);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	client->policy = policy;
	http_enter();
	if (!initialised)
		rc = http_memory_init();
	if (rc == CURLE_OK)
	{
		initialised = true;
		client->group = further ? group : http_group_create();
		if (client->group)
			client->group->nclients++;
		client->easy = curl_easy_init();
	}
	if (client->group != NULL && client->easy != NULL)
	{
		CURL *e = client->easy;

#define SET(option, value) \
	do \
	{ \
		if (rc == CURLE_OK) \
			rc = curl_easy_setopt(e, option, value); \
	} while (0)
		SET(CURLOPT_NOSIGNAL, 1L);
		SET(CURLOPT_QUICK_EXIT, 1L);
		SET(CURLOPT_PROTOCOLS_STR, "http,https");
		SET(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
		SET(CURLOPT_FOLLOWLOCATION, 0L);
		SET(CURLOPT_HTTP09_ALLOWED, 0L);
		SET(CURLOPT_UNRESTRICTED_AUTH, 0L);
		SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
		SET(CURLOPT_ACCEPT_ENCODING, "gzip");
		SET(CURLOPT_PROXY, "");
		SET(CURLOPT_NOPROXY, "*");
		SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
		SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
		SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
		SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
		SET(CURLOPT_TCP_NODELAY, 1L);
		SET(CURLOPT_TCP_KEEPALIVE, 1L);
		SET(CURLOPT_LOW_SPEED_LIMIT, 1024L);
		SET(CURLOPT_USERAGENT, "flohsync");
		SET(CURLOPT_BUFFERSIZE, (long) HTTP_RECEIVE_BYTES);
		SET(CURLOPT_ERRORBUFFER, client->error);
		SET(CURLOPT_WRITEFUNCTION, http_on_body);
		SET(CURLOPT_WRITEDATA, client);
		SET(CURLOPT_HEADERFUNCTION, http_on_header);
		SET(CURLOPT_HEADERDATA, client);
		SET(CURLOPT_OPENSOCKETFUNCTION, http_on_open_socket);
		SET(CURLOPT_OPENSOCKETDATA, client);
		/* A connection may outlive the client that opened it. */
		SET(CURLOPT_CLOSESOCKETFUNCTION, http_group_on_close);
		SET(CURLOPT_CLOSESOCKETDATA, client->group);
		SET(CURLOPT_PRIVATE, client);
#undef SET
	}
	http_leave();
	if (client->easy == NULL || client->group == NULL || rc != CURLE_OK)
	{
		http_client_close(client);
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
				 errmsg("could not set up libcurl: %s", curl_easy_strerror(rc))));
	}
	if (!AcquireExternalFD())
	{
		http_client_close(client);
		if (further)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("out of file descriptors for a connection to an upstream"),
				 errhint("Increase the server's limit on open files.")));
	}
	client->has_fd = true;
	return client;
}

/* http_client_create makes a client: close it, also after an error. */
HttpClient *
http_client_create(void)
{
	return http_client_make(NULL);
}

/*
 * http_client_beside makes a client whose requests go on together with those of
 * another; NULL: there are no file descriptors for one more.
 */
HttpClient *
http_client_beside(HttpClient *first)
{
	return http_client_make(first->group);
}

void
http_drop_request(HttpClient *client)
{
	if (client->underway)
	{
		http_enter();
		curl_multi_remove_handle(client->group->multi, client->easy);
		http_leave();
		client->underway = false;
	}
}

/* http_drop: nobody waits for the request under way any more. */
void
http_drop(HttpClient *client)
{
	http_drop_request(client);
	client->ended = false;
}

/* Among the headers may be a credential. */
static void
http_free_headers(struct curl_slist *headers)
{
	for (struct curl_slist *h = headers; h != NULL; h = h->next)
		crypto_wipe(h->data, strlen(h->data));
	curl_slist_free_all(headers);
}

/* Gives a large buffer back. */
void
http_trim_buffer(HttpClient *client, HttpBuffer *b)
{
	if (b->size > HTTP_KEEP_BUFFER / client->group->nclients)
	{
		http_ahead_end(client->group, b);
		memory_outside(-(int64) b->size);
		if (client->is_secret)
			crypto_wipe(b->data, b->size);
		free(b->data);
		memset(b, 0, sizeof(*b));
	}
}

void
http_client_close(HttpClient *client)
{
	if (client == NULL)
		return;
	http_drop_request(client);
	http_enter();
	if (client->easy)
		curl_easy_cleanup(client->easy);
	http_free_headers(client->headers);
	http_leave();
	if (client->has_fd)
		ReleaseExternalFD();
	outbound_free(client->policy);
	for (int i = 0; i < lengthof(client->buffers); i++)
	{
		http_ahead_end(client->group, &client->buffers[i]);
		if (client->is_secret)
			crypto_wipe(client->buffers[i].data, client->buffers[i].size);
		memory_outside(-(int64) client->buffers[i].size);
		free(client->buffers[i].data);
	}
	http_group_leave(client->group);
	free(client);
}

/* Does the caller give a header of the name that a line of ours has? */
static bool
http_has_header(const HttpRequest *request, const char *line)
{
	size_t n = strcspn(line, ":") + 1;

	for (int i = 0; i < request->nheaders; i++)
		if (pg_strncasecmp(request->headers[i], line, n) == 0)
			return true;
	return false;
}

/* No configured value, nor one from an upstream, may inject a header line. */
static void
http_check_request(const HttpRequest *request)
{
	bool clean = true;

	for (const char *p = request->url; *p && clean; p++)
		clean = (unsigned char) *p > ' ' && *p != 0x7f;
	for (int i = 0; i < request->nheaders && clean; i++)
		clean = strpbrk(request->headers[i], "\r\n") == NULL;
	if (!clean)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(
					 "could not send request: its URL or a header contains control characters")));
}

/*
 * http_start sends a request; one that is under way is given up.
 *
 * Longer than a screen: a list of options, and of what has to be undone.
 */
void
http_start(HttpClient *client, const HttpRequest *request)
{
	CURL			  *e = client->easy;
	CURLcode		   rc = CURLE_OK;
	struct curl_slist *list = NULL;
	bool			   no_memory = false;
	long			   timeout_ms;
	HttpBuffer		  *b;

	http_check_request(request);
	http_drop_request(client);
	/* What the caller may still read is the answer that was waited for last. */
	if (client->waited_for)
		client->current = 1 - client->current;
	b = &client->buffers[client->current];
	http_trim_buffer(client, b);
	client->is_secret |= request->is_secret;
	if (client->is_secret)
		http_memory_secret();
	if (client->is_secret && b->data != NULL)
		crypto_wipe(b->data, b->size);
	b->len = 0;
	if (request->ahead)
		http_ahead_begin(client->group, b);
	else
		http_ahead_end(client->group, b);
	client->max_bytes = (size_t) flohsync_http_max_response_size * 1024;
	if (request->max_bytes > 0)
		client->max_bytes = Min(client->max_bytes, request->max_bytes);
	client->memory = request->memory;
	/* Until the answer is waited for, the page before it may be there as well. */
	client->memory_left = SIZE_MAX;
	client->waited_for = client->measured = false;
	strlcpy(client->condition, request->condition ? request->condition : "",
			sizeof(client->condition));
	client->header_bytes = 0;
	client->nheaders = 0;
	client->too_large = client->memory_exceeded = client->out_of_memory = client->ended = false;
	client->blocked[0] = client->retry_after[0] = client->error[0] = '\0';
	client->started_at = GetCurrentTimestamp();

	http_enter();
	for (int i = -3; i < request->nheaders && !no_memory; i++)
	{
		const char		  *line = i == -3 ? "Content-Type: application/json" :
				   i == -2				  ? "Accept: application/json" :
				   i == -1				  ? "Expect:" :
											request->headers[i];
		struct curl_slist *longer;

		if (i < 0 && (http_has_header(request, line) || (i == -3 && request->body == NULL)))
			continue;
		longer = curl_slist_append(list, line);
		no_memory = longer == NULL;
		if (longer)
			list = longer;
	}
	http_free_headers(client->headers);
	client->headers = list;
#define SET(option, value) \
	do \
	{ \
		if (rc == CURLE_OK) \
			rc = curl_easy_setopt(e, option, value); \
	} while (0)
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_HTTPHEADER, list);
	if (request->body)
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
		SET(CURLOPT_COPYPOSTFIELDS, request->body);
	}
	else
		SET(CURLOPT_HTTPGET, 1L);
	SET(CURLOPT_CUSTOMREQUEST, request->method);
	SET(CURLOPT_CONNECTTIMEOUT, (long) flohsync_http_connect_timeout);
	timeout_ms = flohsync_http_timeout * 1000L;
	if (request->timeout_ms > 0)
		timeout_ms = Min(timeout_ms, request->timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, timeout_ms);
	SET(CURLOPT_LOW_SPEED_TIME, Max(HTTP_SLOW_S, timeout_ms / 2000));
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) client->max_bytes);
#undef SET
	client->ends_at = TimestampTzPlusMilliseconds(client->started_at, timeout_ms);
	client->reads_only = request->method ?
		strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0 :
		request->body == NULL;
	client->redirects = 0;
	if (rc == CURLE_OK && !no_memory)
		client->underway = curl_multi_add_handle(client->group->multi, e) == CURLM_OK;
	if (client->underway)
		http_group_act(client->group, CURL_SOCKET_TIMEOUT, 0);
	http_leave();
	if (!client->underway)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
				 errmsg("could not prepare a request: %s",
						no_memory ? "out of memory" : curl_easy_strerror(rc))));
}
