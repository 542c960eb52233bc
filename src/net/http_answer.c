/*
 * http_answer.c
 *	  The second half of a request: waiting for the answer, and what it is.
 *
 * sent -> [redirected]* -> answered | failed.  See http.c for the rules.
 */
#include "postgres.h"

#include "base/compat.h"

#include "utils/timestamp.h"

#include "base/clean.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "net/http.h"
#include "net/http_private.h"

#define HTTP_MAX_REDIRECTS 3

/* Has anything of this request gone out, or of the one that it was redirected from? */
static bool
http_was_sent(HttpClient *client)
{
	long bytes = 0;

	(void) curl_easy_getinfo(client->easy, CURLINFO_REQUEST_SIZE, &bytes);
	return bytes > 0 || client->redirects > 0;
}

/*
 * http_classify sorts libcurl's codes.  A fault of the configuration is only what
 * was wrong before anything was sent: codes that sound like one also come for
 * answers that make no sense, such as one that is not of HTTP at all
 * (CURLE_UNSUPPORTED_PROTOCOL: a version 0.9 that we do not allow).
 */
static HttpFailure
http_classify(HttpClient *client, CURLcode rc)
{
	if (client->too_large)
		return HTTP_TOO_LARGE;
	/* One address of a host may be blocked and the next one fine. */
	if (rc != CURLE_OK && client->blocked[0] != '\0')
		return HTTP_BLOCKED;
	switch (rc)
	{
		case CURLE_OK:
			return HTTP_OK;
		case CURLE_OPERATION_TIMEDOUT:
			return HTTP_TIMEOUT;
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CLIENTCERT:
			return HTTP_TLS;
		case CURLE_URL_MALFORMAT:
		case CURLE_UNSUPPORTED_PROTOCOL:
			return http_was_sent(client) ? HTTP_PROTOCOL : HTTP_BAD_URL;
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_HTTP2:
		case CURLE_HTTP2_STREAM:
			return HTTP_PROTOCOL;
		case CURLE_FILESIZE_EXCEEDED:
			return HTTP_TOO_LARGE;
		default:
			return HTTP_NETWORK;
	}
}

/* http_failure_class is the error class that a run gets from a failure. */
ErrorClass
http_failure_class(HttpFailure failure)
{
	/* clang-format off */
	static const ErrorClass classes[] = {
		[HTTP_NETWORK] = ERRCLASS_NETWORK,
		[HTTP_TIMEOUT] = ERRCLASS_TIMEOUT,
		[HTTP_PROTOCOL] = ERRCLASS_PROTOCOL,
		[HTTP_TLS] = ERRCLASS_TLS,
		[HTTP_BLOCKED] = ERRCLASS_BLOCKED_ADDRESS,
		[HTTP_TOO_LARGE] = ERRCLASS_TOO_LARGE,
		[HTTP_REDIRECT] = ERRCLASS_HTTP_STATUS,
		[HTTP_BAD_URL] = ERRCLASS_CONFIGURATION,
	};
	/* clang-format on */

	return classes[failure];
}

/*
 * Sends the request again, to an address, within the time that it has; false: that could not
 * be done.
 */
static bool
http_send_again(HttpClient *client, const char *url)
{
	CURL *e = client->easy;
	int64 left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), client->ends_at);

	http_drop_request(client);
	client->ended = false;
	client->buffers[client->current].len = 0;
	client->header_bytes = 0;
	client->nheaders = 0;
	http_enter();
	if (url)
		curl_easy_setopt(e, CURLOPT_URL, url);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long) Max(1, left));
	client->underway = curl_multi_add_handle(client->group->multi, e) == CURLM_OK;
	if (client->underway)
		http_group_act(client->group, CURL_SOCKET_TIMEOUT, 0);
	http_leave();
	return client->underway;
}

/*
 * Are there credentials in the address that the answer redirects to?  Newer versions of
 * libcurl drop them unsaid.
 */
static bool
http_location_has_user(HttpClient *client)
{
	const char *location = http_header(client, "Location", 0);
	const char *authority = location ? strstr(location, "//") : NULL;

	return authority != NULL && strcspn(location, "?#") > authority - location &&
		memchr(authority + 2, '@', strcspn(authority + 2, "/\\?#")) != NULL;
}

/*
 * http_redirect sends the request again, to where the answer says, and returns
 * true; false when the answer is no redirect.  When it is one that is not
 * followed, problem says why.
 */
static bool
http_redirect(HttpClient *client, char *problem, size_t size)
{
	CURL	  *e = client->easy;
	long	   status = 0;
	char	  *from = NULL;
	char	  *to = NULL;
	HttpOrigin origin, target;

	curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(e, CURLINFO_EFFECTIVE_URL, &from);
	curl_easy_getinfo(e, CURLINFO_REDIRECT_URL, &to);
	if ((status != 301 && status != 302 && status != 303 && status != 307 && status != 308) ||
		from == NULL || to == NULL)
		return false;
	to = pstrdup(to); /* libcurl's goes away */
	if (http_url_problem(to) != NULL || http_location_has_user(client) ||
		!http_url_origin(from, &origin) || !http_url_origin(to, &target))
		snprintf(problem, size, "status %ld redirects to an invalid URL", status);
	else if (!http_same_origin(&origin, &target))
		snprintf(problem, size,
				 "status %ld redirects to another origin, %s://%s:%d, and is not followed", status,
				 target.scheme, target.host, target.port);
	else if (!client->reads_only && status != 307 && status != 308)
		snprintf(problem, size,
				 "status %ld redirects a request that is not a GET, and is not followed", status);
	else if (++client->redirects > HTTP_MAX_REDIRECTS)
		snprintf(problem, size, "it redirects more than %d times", HTTP_MAX_REDIRECTS);
	else if (!http_send_again(client, to))
		snprintf(problem, size, "the redirect could not be followed");
	pfree(to);
	return client->underway && problem[0] == '\0';
}

/*
 * http_not_encoded: some servers name an encoding that is none, such as UTF-8,
 * for what they send as it is.  Then the request is sent again, once, without
 * offering one, and what comes is taken as it comes.
 */
static bool
http_not_encoded(HttpClient *client, CURLcode rc)
{
	if (rc != CURLE_BAD_CONTENT_ENCODING || client->plain ||
		client->buffers[client->current].len > 0)
		return false;
	client->plain = true;
	http_enter();
	rc = curl_easy_setopt(client->easy, CURLOPT_ACCEPT_ENCODING, NULL);
	http_leave();
	return rc == CURLE_OK && http_send_again(client, NULL);
}

/* Waits for the end of the transfer under way. */
static CURLcode
http_wait(HttpClient *client)
{
	while (!client->ended)
		http_group_wait(client->group, 1000);
	return client->result;
}

/* Says which limit an answer has passed. */
static void
http_say_too_large(const HttpClient *client, char *message, size_t size)
{
	if (client->header_bytes > FLOHSYNC_MAX_HEADER_BYTES)
		snprintf(message, size, "the headers of the answer are larger than %d kB",
				 FLOHSYNC_MAX_HEADER_BYTES / 1024);
	else if (client->nheaders > FLOHSYNC_MAX_HEADERS)
		snprintf(message, size, "the answer has more than %d headers", FLOHSYNC_MAX_HEADERS);
	else if (client->max_bytes == (size_t) flohsync_http_max_response_size * 1024)
		snprintf(message, size, "the answer is larger than flohsync.http_max_response_size (%d kB)",
				 flohsync_http_max_response_size);
	else
		snprintf(message, size, "the answer is larger than %zu bytes", client->max_bytes);
}

/* A header of the answer at hand; "" when it does not fit. */
static void
http_copy_header(HttpClient *client, const char *name, char *out, size_t size)
{
	struct curl_header *header;

	out[0] = '\0';
	if (curl_easy_header(client->easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
		strlen(header->value) < size)
		strlcpy(out, header->value, size);
}

/* http_finish waits for the answer to the request under way. */
void
http_finish(HttpClient *client, HttpResponse *response)
{
	CURLcode	rc;
	HttpBuffer *b = &client->buffers[client->current];
	char		date[64] = "";
	char		redirect[sizeof(response->message)] = "";

	Assert(client->underway);
	http_turn(client);
	do
		rc = http_wait(client);
	while (http_not_encoded(client, rc) ||
		   (rc == CURLE_OK && http_redirect(client, redirect, sizeof(redirect))));

	memset(response, 0, offsetof(HttpResponse, status));
	response->failure = redirect[0] ? HTTP_REDIRECT : http_classify(client, rc);
	if (client->out_of_memory)
	{
		http_drop_request(client);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	if (client->memory_exceeded)
	{
		http_drop_request(client);
		http_trim_buffer(client, b);
		memory_exceeded(client->memory);
	}
	{
		long				status = 0;
		struct curl_header *header;

		curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
		if (curl_easy_header(client->easy, "date", 0, CURLH_HEADER, -1, &header) == CURLHE_OK)
			strlcpy(date, header->value, sizeof(date));
		response->content_type[0] = '\0';
		if (curl_easy_header(client->easy, "content-type", 0, CURLH_HEADER, -1, &header) ==
			CURLHE_OK)
			strlcpy(response->content_type, header->value, sizeof(response->content_type));
		http_copy_header(client, "etag", response->etag, sizeof(response->etag));
		http_copy_header(client, "last-modified", response->last_modified,
						 sizeof(response->last_modified));
		response->last_modified_at = response->last_modified[0] ?
			Max(0, curl_getdate(response->last_modified, NULL)) :
			0;
		response->date = date[0] ? Max(0, curl_getdate(date, NULL)) : 0;
		response->status = (int) status;
	}
	http_drop_request(client);
	response->body = b->data ? b->data : "";
	response->len = b->len;
	strlcpy(response->retry_after, client->retry_after, sizeof(response->retry_after));
	strlcpy(response->condition, client->condition, sizeof(response->condition));
	response->started_at = client->started_at;
	response->ms = (client->ended_at - client->started_at) / 1000.0;
	switch (response->failure)
	{
		case HTTP_OK:
			break;
		case HTTP_TOO_LARGE:
			http_say_too_large(client, response->message, sizeof(response->message));
			break;
		case HTTP_BLOCKED:
			strlcpy(response->message, client->blocked, sizeof(response->message));
			break;
		case HTTP_REDIRECT:
			strlcpy(response->message, redirect, sizeof(response->message));
			break;
		default:
			strlcpy(response->message, client->error[0] ? client->error : curl_easy_strerror(rc),
					sizeof(response->message));
	}
	/* libcurl quotes certificates, and we where a redirect leads to. */
	clean_into(response->message, sizeof(response->message), response->message,
			   strlen(response->message));
}

/*
 * http_header is a header of the answer that came last, palloc'd;
 * the index counts headers of one name.  NULL when there is none.
 */
char *
http_header(HttpClient *client, const char *name, int index)
{
	struct curl_header *header;
	char			   *value = NULL;

	Assert(!client->underway || client->ended);
	if (curl_easy_header(client->easy, name, index, CURLH_HEADER, -1, &header) != CURLHE_OK)
		header = NULL;
	/* Stays where it is until the next request.  Of an empty value, libcurl has the line break. */
	if (header)
	{
		const char *start = header->value + strspn(header->value, " \t\r\n");
		size_t		len = strlen(start);

		while (len > 0 && strchr(" \t\r\n", start[len - 1]) != NULL)
			len--;
		value = pnstrdup(start, len);
	}
	return value;
}

/*
 * http_retry_after_ms reads a Retry-After header, seconds or a date (RFC 9110,
 * 10.2.3); -1 when it is neither.
 */
int64
http_retry_after_ms(const char *header, time_t now)
{
	time_t at;

	if (header[0] >= '0' && header[0] <= '9')
	{
		int64		seconds = 0;
		const char *p = header;

		for (; *p >= '0' && *p <= '9'; p++)
			seconds = Min(seconds * 10 + (*p - '0'), (int64) 1000000000);
		seconds *= 1000;
		/* Decimals are none of the RFC's, but some upstreams write them. */
		if (*p == '.' && p[1] >= '0' && p[1] <= '9')
		{
			for (int unit = 100; *++p >= '0' && *p <= '9'; unit /= 10)
				seconds += (*p - '0') * unit;
			seconds++;
		}
		return *p == '\0' ? seconds : -1;
	}
	if (header[0] == '\0' || header[0] == '-')
		return -1;
	at = curl_getdate(header, NULL);
	if (at == (time_t) -1)
		return -1;
	return Max(0, (int64) (at - now)) * 1000;
}

/*
 * http_early_status is the status of an answer before its turn; 0: there is none
 * to use; HTTP_NO_ROOM: since there was no memory for it.
 */
int
http_early_status(HttpClient *client)
{
	long status = 0;

	if (client->memory_exceeded || client->out_of_memory)
		return HTTP_NO_ROOM;
	if (client->result != CURLE_OK)
		return 0;
	curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
	return (int) status;
}

/* http_early_date is the time of the answer by the clock of who sent it; 0: not said. */
time_t
http_early_date(HttpClient *client)
{
	char  *header = http_header(client, "Date", 0);
	time_t date = header ? curl_getdate(header, NULL) : 0;

	if (header)
		pfree(header);
	return Max(0, date);
}

/* http_early_retry_ms is how long an answer asks to wait, from when it came; 0: it does not. */
int64
http_early_retry_ms(HttpClient *client)
{
	time_t date = http_early_date(client);

	return Max(0, http_retry_after_ms(client->retry_after, date > 0 ? date : time(NULL)));
}
