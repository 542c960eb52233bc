/*
 * kind_command.c
 *	  Connectors of kind command: a page is one POST.
 *
 * What a status means (contract, section 5, rule 4): 408, 425, 429, 500, 502,
 * 503 and 504 are worth another attempt, as is a broken connection; any other
 * status but 2xx ends the run.  An error is never read as an empty page.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "crypto.h"
#include "http.h"
#include "source.h"

#define EXCERPT_FROM	16384

typedef struct CommandState
{
	HttpClient *client;
	char	  **headers;		/* the connector's, and bearer */
	int			nheaders;
	char	   *bearer;			/* NULL: no token is set */
	char	   *waiting;		/* body of a request that may not be sent yet, or NULL */
	int			status;			/* of the answer given last, 0 when there was none */
} CommandState;

#define AUTHORIZATION	"Authorization:"
#define BEARER			AUTHORIZATION " Bearer "

/* The headers of a request.  A token takes the place of an Authorization that the configuration gives. */
static void
command_headers(Source *source, CommandState *state)
{
	const SourceSpec *spec = &source->spec;
	const char *token = source_secret(source, "token");

	state->headers = MemoryContextAlloc(source->context, (spec->nheaders + 1) * sizeof(char *));
	for (int i = 0; i < spec->nheaders; i++)
		if (token == NULL || pg_strncasecmp(spec->headers[i], AUTHORIZATION, strlen(AUTHORIZATION)) != 0)
			state->headers[state->nheaders++] = spec->headers[i];
	if (token == NULL)
		return;
	for (const char *p = token; *p; p++)
		if (*p <= ' ' || *p > '~')
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("secret \"token\" cannot be sent in a header: it holds white space or characters that are not ASCII")));
	state->bearer = MemoryContextAlloc(source->context, strlen(BEARER) + strlen(token) + 1);
	strcpy(state->bearer, BEARER);
	strcat(state->bearer, token);
	state->headers[state->nheaders++] = state->bearer;
}

static void
command_open(Source *source)
{
	CommandState *state = MemoryContextAllocZero(source->context, sizeof(CommandState));

	command_headers(source, state);
	source->requests_per_minute = source->spec.requests_per_minute;
	state->client = http_client_create();
	source->state = state;
}

static void
command_close(Source *source)
{
	CommandState *state = source->state;

	if (state == NULL)
		return;
	http_client_close(state->client);
	if (state->bearer)
		crypto_wipe(state->bearer, strlen(state->bearer));
}

static void
command_send(Source *source, char *body)
{
	CommandState *state = source->state;
	HttpRequest request = {0};

	request.url = source->spec.url;
	request.headers = state->headers;
	request.nheaders = state->nheaders;
	request.body = body;
	request.body_len = strlen(body);
	http_start(state->client, &request);
	source_pace_sent(source);
	pfree(body);
}

static void
command_ask(Source *source, const char *cursor)
{
	CommandState *state = source->state;
	MemoryContext old = MemoryContextSwitchTo(source->context);
	char	   *body = source_request(&source->spec, cursor);

	MemoryContextSwitchTo(old);
	if (state->waiting)
		pfree(state->waiting);
	state->waiting = NULL;
	if (source_pace_ready(source))
		command_send(source, body);
	else
		state->waiting = body;
}

static bool
command_status_retryable(int status)
{
	switch (status)
	{
		case 408:
		case 425:
		case 429:
		case 500:
		case 502:
		case 503:
		case 504:
			return true;
	}
	return false;
}

static const char *
command_status_class(int status)
{
	switch (status)
	{
		case 401:
		case 403:
			return "auth";
		case 404:
		case 410:
			return "not_found";
		case 429:
			return "throttled";
	}
	return "http_status";
}

/* The first bytes of a body, fit for a message. */
static void
command_excerpt(const Source *source, const char *body, size_t len, char *out, size_t size)
{
	char	   *copy = source_redacted(source, body, Min(len, EXCERPT_FROM));
	size_t		n = 0;

	for (size_t i = 0; copy[i] && n + 1 < size; i++)
	{
		unsigned char c = copy[i];

		if (c > 0x7e || (c < 0x20 && c != '\n' && c != '\t' && c != '\r'))
			out[n++] = '?';
		else if (c > ' ')
			out[n++] = c;
		else if (n > 0 && out[n - 1] != ' ')
			out[n++] = ' ';
	}
	out[n] = '\0';
	pfree(copy);
}

static void
command_answer(Source *source, SourceAnswer *answer)
{
	CommandState *state = source->state;
	HttpResponse response;

	if (state->waiting)
	{
		char	   *body = state->waiting;

		state->waiting = NULL;
		(void) source_pace_wait(source);
		command_send(source, body);
	}
	http_finish(state->client, &response);
	state->status = response.failure == HTTP_OK ? response.status : 0;
	answer->body = response.body;
	answer->len = response.len;
	answer->started_at = response.started_at;
	answer->ms = response.ms;
	answer->date = response.date;
	if (response.failure != HTTP_OK)
	{
		answer->error_class = http_failure_class(response.failure);
		answer->retryable = http_failure_passes(response.failure);
		snprintf(answer->message, sizeof(answer->message), "upstream: %s",
				 source_redacted(source, response.message, strlen(response.message)));
	}
	else if (response.status < 200 || response.status > 299)
	{
		char		excerpt[201];

		command_excerpt(source, response.body, response.len, excerpt, sizeof(excerpt));
		answer->error_class = command_status_class(response.status);
		answer->retryable = command_status_retryable(response.status);
		answer->cursor_refused = response.status == 400 || response.status == 404 ||
			response.status == 409 || response.status == 410 || response.status == 422;
		answer->cursor_expired = answer->cursor_refused && source_names_cursor(response.body, response.len);
		answer->retry_after_ms = http_retry_after_ms(response.retry_after, time(NULL));
		snprintf(answer->message, sizeof(answer->message), "upstream answered with status %d%s%s",
				 response.status, excerpt[0] ? ": " : "", excerpt);
	}
}

static void
command_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	CommandState *state = source->state;
	static const char none[] = "{\"success\":true,\"payload\":{\"resources\":[]}}";

	if (source->spec.get_command == NULL)
	{
		answer->error_class = "configuration";
		answer->not_supported = true;
		snprintf(answer->message, sizeof(answer->message),
				 "the connector has no command for one record of type \"%s\"", source->spec.resource_type);
		return;
	}
	command_send(source, source_get_request(&source->spec, external_id));
	command_answer(source, answer);
	if (answer->error_class == NULL)
		source_one_record(source, answer);
	else if ((state->status == 404 || state->status == 410) && source_none_found(answer->body, answer->len))
	{
		answer->error_class = NULL;
		answer->message[0] = '\0';
		answer->body = none;
		answer->len = sizeof(none) - 1;
	}
}

const SourceKind source_kind_command = {
	.name = "command",
	.open = command_open,
	.ask = command_ask,
	.answer = command_answer,
	.get = command_get,
	.close = command_close,
};
