/*
 * kind_command.c
 *	  Connectors of kind command: a page is one POST.
 *
 * Whatever is no success ends the run, now or after some attempts: an error is
 * never read as an empty page.
 *
 * With a concurrency, pages are asked for ahead whose cursors are foretold
 * (foretell.c); a request is known by its body.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "json/value.h"
#include "net/crypto_memory.h"
#include "source/ahead.h"
#include "source/commands.h"
#include "source/foretell.h"

typedef struct CommandState
{
	Ahead	   *ahead;
	Foretell	cursors;
	char	   *url;
	char	   *list_command;
	char	   *get_command; /* NULL: the connector offers none */
	char	  **headers;	 /* the connector's, and the token */
	int			nheaders;
	const char *refused; /* why nothing is sent, or NULL */
	char	   *waiting; /* body of a request that may not be sent yet, or NULL */
} CommandState;

#define AUTHORIZATION "Authorization:"
#define BEARER		  AUTHORIZATION " Bearer "

/*
 * The configuration may contain credentials in clear text, and not all roles that may read
 * messages may read it.
 */
static void
command_hide_header(Source *source, const char *header)
{
	static const char *const names[] = {"authorization:", "cookie:",		"apikey:",
										"api-key:",		  "x-apikey:",		"x-api-key:",
										"x-auth-token:",  "x-access-token:"};

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

/*
 * The headers of a request.  A token takes the place of an Authorization that the
 * configuration gives.
 */
static void
command_headers(Source *source, CommandState *state)
{
	const JsonParser *config = source->spec.config;
	const JsonNode	 *nodes = config->nodes;
	const JsonNode	 *given = &nodes[json_member(config, JSON_ROOT, "headers", 7)];
	const char		 *token = source_secret(source, "token", &state->refused);

	state->headers = palloc((given->count + 2) * sizeof(char *));
	for (uint32 i = given->child; i != 0; i = nodes[nodes[i].next].next)
	{
		char *header = psprintf("%s: %s", json_value_text(config, i),
								json_value_text(config, nodes[i].next));

		command_hide_header(source, header);
		if (token == NULL || pg_strncasecmp(header, AUTHORIZATION, strlen(AUTHORIZATION)) != 0)
			state->headers[state->nheaders++] = header;
	}
	if (token == NULL)
		return;
	for (const char *p = token; *p; p++)
		if (*p <= ' ' || *p > '~')
			ereport(
				ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg(
					 "secret \"token\" cannot be sent in a header: it contains white space or non-ASCII characters")));
	state->headers[state->nheaders++] = crypto_join(source->context, BEARER, token, "");
}

static void
command_origins(OriginList *list, const JsonParser *config, const char *definition)
{
	source_add_url(list, json_member_text(config, JSON_ROOT, "url"));
}

/* A number of config.limits; the other one when it is not there, or null. */
static double
command_limit(const JsonParser *config, const char *name, double other)
{
	char *text = json_member_text(config, json_member(config, JSON_ROOT, "limits", 6), name);

	return text ? strtod(text, NULL) : other;
}

/* Is it not there, or a number in bounds?  Null is one where it may be. */
static bool
command_limit_is(const JsonParser *config, const char *name, double least, double most,
				 bool may_be_null)
{
	const JsonNode *nodes = config->nodes;
	uint32			limits = json_member(config, JSON_ROOT, "limits", 6);
	uint32			node = nodes[limits].type == JSON_OBJECT ?
				 json_member(config, limits, name, strlen(name)) :
				 0;
	double			value = command_limit(config, name, least);

	if (node == 0 || nodes[node].type == JSON_NULL)
		return node == 0 || may_be_null;
	return nodes[node].type == JSON_NUMBER && value >= least && value <= most;
}

/* How many requests may be open at the same time, as it is written; 1 when it is not there. */
static double
command_concurrency(const JsonParser *config)
{
	char *text = json_member_text(config, JSON_ROOT, "concurrency");

	return text ? strtod(text, NULL) : 1;
}

static bool
command_concurrency_is_good(const JsonParser *config)
{
	uint32 node = json_member(config, JSON_ROOT, "concurrency", 11);
	double value = command_concurrency(config);

	return node == 0 || config->nodes[node].type == JSON_NULL ||
		(config->nodes[node].type == JSON_NUMBER && value >= 1 && value <= SOURCE_MAX_LANES);
}

static const char *
command_check(const JsonParser *config)
{
	const JsonNode *nodes = config->nodes;
	uint32			headers = json_member(config, JSON_ROOT, "headers", 7);
	bool			good = headers == 0 || nodes[headers].type == JSON_OBJECT;

	if (nodes[json_member(config, JSON_ROOT, "url", 3)].type != JSON_STRING)
		return "it has no \"url\"";
	for (uint32 i = good ? nodes[headers].child : 0; i != 0; i = nodes[nodes[i].next].next)
		good = good && json_value_text(config, i) && nodes[nodes[i].next].type == JSON_STRING;
	if (!good)
		return "\"headers\" is not an object of texts";
	if (!command_limit_is(config, "requests_per_minute", 1, 100000, false))
		return "\"requests_per_minute\" is not a number from 1 to 100000";
	if (!command_concurrency_is_good(config))
		return "\"concurrency\" is not a number from 1 to 32";
	if (!command_limit_is(config, "total_tolerance", 0, 1, true))
		return "\"total_tolerance\" is not a number from 0 to 1";
	return NULL;
}

static void
command_open(Source *source)
{
	MemoryContext	  old = MemoryContextSwitchTo(source->context);
	CommandState	 *state = palloc0(sizeof(CommandState));
	const JsonParser *config = source->spec.config;

	state->url = json_member_text(config, JSON_ROOT, "url");
	state->list_command = command_list_name(config, source->spec.resource_type);
	state->get_command = command_get_name(config, source->spec.resource_type);
	command_headers(source, state);
	if (state->refused == NULL)
		state->refused = source_may_send(source, state->url);
	source->requests_per_minute = (int) (command_limit(config, "requests_per_minute", 0) + 0.5);
	source->conditional = config->nodes[json_member(config, JSON_ROOT, "conditional", 11)].type ==
		JSON_TRUE;
	source->page_size = source->spec.page_size;
	source->total_tolerance = command_limit(config, "total_tolerance", SOURCE_TOTAL_TOLERANCE);
	source->concurrency = (int) command_concurrency(config);
	MemoryContextSwitchTo(old);
	source->state = state;
	state->ahead = ahead_open(source, NULL);
}

static void
command_close(Source *source)
{
	CommandState *state = source->state;

	if (state == NULL)
		return;
	ahead_close(state->ahead);
}

/* Sends a request; a page's may have a condition, for which there is room behind the headers. */
static void
command_send(Source *source, HttpClient *client, const char *body, const char *condition)
{
	CommandState *state = source->state;
	HttpRequest	  request = {0};

	request.url = state->url;
	request.headers = state->headers;
	request.nheaders = state->nheaders;
	source_add_condition(&request, condition);
	request.body = body;
	request.body_len = strlen(body);
	request.memory = source->memory;
	request.ahead = client != ahead_client(state->ahead);
	http_start(client, &request);
	source_pace_sent(source);
}

/* Asks for the pages that are foretold. */
static void
command_ask_ahead(Source *source)
{
	CommandState *state = source->state;

	ahead_begin(state->ahead);
	for (int i = 1; i < source->concurrency; i++)
	{
		char	   *cursor = foretell_next(&state->cursors, i);
		char	   *body;
		HttpClient *client;

		if (cursor == NULL)
			break;
		body = command_list_request(&source->spec, state->list_command, cursor);
		client = ahead_wants(state->ahead, body) ? ahead_lane(state->ahead) : NULL;
		if (client)
		{
			command_send(source, client, body, source_foreseen_condition(source, cursor));
			ahead_sent(state->ahead, client, body, NULL);
		}
		pfree(body);
		pfree(cursor);
	}
	ahead_end(state->ahead);
}

static void
command_ask(Source *source, const char *cursor)
{
	CommandState *state = source->state;
	MemoryContext old;
	char		 *body;
	const char	 *url;

	if (state->refused)
		return;
	old = MemoryContextSwitchTo(source->context);
	body = command_list_request(&source->spec, state->list_command, cursor);
	MemoryContextSwitchTo(old);
	if (state->waiting)
		pfree(state->waiting);
	state->waiting = NULL;
	foretell_seen(&state->cursors, cursor, source->context);
	if (!ahead_turn(state->ahead, body, &url))
	{
		if (!source_pace_ready(source))
		{
			state->waiting = body;
			return;
		}
		command_send(source, ahead_client(state->ahead), body, source->condition);
	}
	pfree(body);
	command_ask_ahead(source);
}

/* Is nothing sent?  Then that is the answer. */
static bool
command_refused(Source *source, const CommandState *state, SourceAnswer *answer)
{
	if (state->refused == NULL)
		return false;
	answer->started_at = GetCurrentTimestamp();
	source_fail(source, answer, ERRCLASS_CONFIGURATION, "%s", state->refused);
	return true;
}

static void
command_answer(Source *source, SourceAnswer *answer)
{
	CommandState *state = source->state;
	HttpResponse  response;

	if (command_refused(source, state, answer))
		return;
	if (state->waiting)
	{
		char *body = state->waiting;

		state->waiting = NULL;
		(void) source_pace_wait(source);
		command_send(source, ahead_client(state->ahead), body, source->condition);
		pfree(body);
	}
	while (!ahead_await(state->ahead))
		command_ask_ahead(source);
	http_finish(ahead_client(state->ahead), &response);
	if (source_take(source, answer, &response, SOURCE_UPSTREAM) &&
		!source_status_is_complete(source, answer, &response) &&
		answer->error_class == ERRCLASS_NONE)
		source_fail_status(source, answer, &response, SOURCE_UPSTREAM, NULL);
}

static bool
command_ready(Source *source, int ms)
{
	CommandState *state = source->state;

	return state->refused || (!state->waiting && ahead_ready(state->ahead, ms));
}

static void
command_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	CommandState *state = source->state;
	char		 *body;
	const char	 *url;

	if (state->get_command == NULL)
	{
		source_fail(source, answer, ERRCLASS_CONFIGURATION,
					"the connector has no command for one record of type \"%s\"",
					source->spec.resource_type);
		answer->not_supported = true;
		return;
	}
	if (command_refused(source, state, answer))
		return;
	body = command_get_request(state->get_command, external_id);
	(void) ahead_turn(state->ahead, body, &url);
	command_send(source, ahead_client(state->ahead), body, NULL);
	pfree(body);
	command_answer(source, answer);
	if ((answer->status == 404 || answer->status == 410) && command_none_found(source, answer))
	{
		answer->error_class = ERRCLASS_NONE;
		answer->message[0] = '\0';
		answer->none = true;
	}
}

/* All that comes of an answer is in it. */
static char *
command_reads_from(Source *source, bool answered)
{
	return pstrdup("");
}

static char *
command_read_to(Source *source)
{
	return pstrdup("");
}

static bool
command_read_as_before(Source *source, const char *read_to)
{
	return true;
}

const SourceKind source_kind_command = {
	.name = "command",
	.origins = command_origins,
	.check = command_check,
	.open = command_open,
	.ask = command_ask,
	.answer = command_answer,
	.ready = command_ready,
	.read = command_read,
	.reads_from = command_reads_from,
	.reads_alone = true,
	.read_to = command_read_to,
	.read_as_before = command_read_as_before,
	.get = command_get,
	.close = command_close,
};
