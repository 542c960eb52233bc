/*
 * kind_command.c
 *	  Connectors of kind command: a page is one POST.
 *
 * What a status means (contract, section 5, rule 4): 408, 425, 429, 500, 502,
 * 503 and 504 are worth another attempt, as is a broken connection; any other
 * status but 2xx ends the run.  An error is never read as an empty page.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "net/crypto_memory.h"
#include "net/http.h"
#include "source/source.h"

typedef struct CommandState
{
	HttpClient *client;
	char	  **headers;		/* the connector's, and the token */
	int			nheaders;
	const char *refused;		/* why nothing is sent, or NULL */
	char	   *waiting;		/* body of a request that may not be sent yet, or NULL */
} CommandState;

#define AUTHORIZATION	"Authorization:"
#define BEARER			AUTHORIZATION " Bearer "

/* The configuration may contain credentials in clear text, and not all roles that may read messages may read it. */
static void
command_hide_header(Source *source, const char *header)
{
	static const char *const names[] = {
		"authorization:", "cookie:", "apikey:", "api-key:", "x-apikey:", "x-api-key:", "x-auth-token:", "x-access-token:"
	};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		size_t		len = strlen(names[i]);
		const char *value = header + len;

		if (pg_strncasecmp(header, names[i], len) != 0)
			continue;
		value += strspn(value, " \t");
		/* behind the scheme, if there is one */
		if (strchr(value, ' ') != NULL && i == 0)
			value += strcspn(value, " ") + 1;
		source_redact_also(source, value);
	}
}

/* The headers of a request.  A token takes the place of an Authorization that the configuration gives. */
static void
command_headers(Source *source, CommandState *state)
{
	const SourceSpec *spec = &source->spec;
	const char *token = source_secret(source, "token", &state->refused);

	state->headers = MemoryContextAlloc(source->context, (spec->nheaders + 1) * sizeof(char *));
	for (int i = 0; i < spec->nheaders; i++)
		command_hide_header(source, spec->headers[i]);
	for (int i = 0; i < spec->nheaders; i++)
		if (token == NULL || pg_strncasecmp(spec->headers[i], AUTHORIZATION, strlen(AUTHORIZATION)) != 0)
			state->headers[state->nheaders++] = spec->headers[i];
	if (token == NULL)
		return;
	for (const char *p = token; *p; p++)
		if (*p <= ' ' || *p > '~')
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("secret \"token\" cannot be sent in a header: it contains white space or non-ASCII characters")));
	state->headers[state->nheaders++] = crypto_join(source->context, BEARER, token, "");
}

static void
command_open(Source *source)
{
	CommandState *state = MemoryContextAllocZero(source->context, sizeof(CommandState));

	if (source->spec.url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the connector's config cannot be used: it has no \"url\"")));
	command_headers(source, state);
	if (state->refused == NULL)
		state->refused = source_may_send(source, source->spec.url);
	source->requests_per_minute = source->spec.requests_per_minute;
	source->total_tolerance = source->spec.total_tolerance < 0 ? SOURCE_TOTAL_TOLERANCE : source->spec.total_tolerance;
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
	request.memory = source->memory;
	http_start(state->client, &request);
	source_pace_sent(source);
	pfree(body);
}

static void
command_ask(Source *source, const char *cursor)
{
	CommandState *state = source->state;
	MemoryContext old;
	char	   *body;

	if (state->refused)
		return;
	old = MemoryContextSwitchTo(source->context);
	body = source_request(&source->spec, cursor);
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

/* Is nothing sent?  Then that is the answer. */
static bool
command_refused(Source *source, const CommandState *state, SourceAnswer *answer)
{
	if (state->refused == NULL)
		return false;
	answer->started_at = GetCurrentTimestamp();
	source_fail(source, answer, "configuration", "%s", state->refused);
	return true;
}

static void
command_answer(Source *source, SourceAnswer *answer)
{
	CommandState *state = source->state;
	HttpResponse response;

	if (command_refused(source, state, answer))
		return;
	if (state->waiting)
	{
		char	   *body = state->waiting;

		state->waiting = NULL;
		(void) source_pace_wait(source);
		command_send(source, body);
	}
	http_finish(state->client, &response);
	if (!source_take(source, answer, &response, "upstream") || source_status_is_complete(source, answer))
		return;
	if (answer->error_class)
	{
		answer->retry_after_ms = http_retry_after_ms(response.retry_after, time(NULL));
		return;
	}
	source_fail_status(source, answer, "upstream", command_status_class(response.status));
	answer->retryable = command_status_retryable(response.status);
	source_cursor_refused(answer, response.status, response.body, response.len);
	answer->retry_after_ms = http_retry_after_ms(response.retry_after, time(NULL));
}

static void
command_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	static const char none[] = "{\"success\":true,\"payload\":{\"resources\":[]}}";

	if (source->spec.get_command == NULL)
	{
		source_fail(source, answer, "configuration", "the connector has no command for one record of type \"%s\"",
					source->spec.resource_type);
		answer->not_supported = true;
		return;
	}
	if (command_refused(source, source->state, answer))
		return;
	command_send(source, source_get_request(&source->spec, external_id));
	command_answer(source, answer);
	if (answer->error_class == NULL)
		source_one_record(source, answer);
	else if ((answer->status == 404 || answer->status == 410) && source_none_found(source, answer->body, answer->len))
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
