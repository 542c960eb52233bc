/*
 * kind.c
 *	  Connectors of kind rest: an API that a definition describes.
 *
 *	  ask --> [wait for the limit] --> send --> answer --> judge --> read
 *	                                    ^          |
 *	                                    +-- 401, a new token, once
 *
 * What goes wrong before a request is sent (a secret that is not set, a token
 * endpoint that is down) becomes an answer, so that it is tried again, or ends
 * the run, like anything else that an upstream does.
 *
 * The cursor of the engine is the next URL, the upstream's cursor, an offset or
 * "page:records so far"; in a list for each of some parents it is the array of
 * the parent's id, that (or null), true once a parent was left out, true while
 * the upstream has had no list for any parent, and of the parents whose list
 * could not be had the number and the first few.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "json/value.h"
#include "rest/foretell.h"

static void
rest_open(Source *source)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	RestState	 *state = palloc0(sizeof(RestState));

	state->source = source;
	state->def = rest_definition_compile(source->spec.definition, source->spec.resource_type);
	state->kept_link = source->spec.kept_link ? pstrdup(source->spec.kept_link) : NULL;
	state->request_context = AllocSetContextCreate(source->context, "flohsync request",
												   ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < lengthof(state->scratch); i++)
		state->scratch[i] = rest_parser(state);
	state->parent_json = rest_parser(state);
	state->list = state->lists = palloc0(sizeof(RestList) * Max(state->def->nsplit, 1));
	state->page_size = state->def->size_default ? state->def->size_default : source->spec.page_size;
	if (source->spec.probe)
		state->page_size = 1;
	if (state->def->size_max > 0)
		state->page_size = Min(state->page_size, state->def->size_max);
	source->page_size = state->page_size;
	source->conditional = state->def->conditional;
	source->links_apart = state->def->pages.type == REST_PAGES_LINK_HEADER;
	source->max_attempts = state->def->max_attempts;
	source->retry_base_ms = state->def->base_ms;
	source->retry_max_ms = state->def->max_ms;
	source->max_pages = state->def->max_pages;
	source->requests_per_minute = state->def->requests_per_minute;
	source->concurrency = state->def->concurrency;
	source->total_tolerance = state->def->total_is_estimate ? SOURCE_TOTAL_TOLERANCE : 0;
	MemoryContextSwitchTo(old);
	source->state = state;
	state->ahead = ahead_open(source, rest_arrived);
	state->ones = ahead_open(source, rest_arrived);
}

static void
rest_close(Source *source)
{
	RestState *state = source->state;

	if (state == NULL)
		return;
	ahead_close(state->ahead);
	ahead_close(state->ones);
	http_client_close(state->token_client);
	rest_leave_token(state);
}

/* rest_parser is a JSON parser, in the current context, for what comes from the upstream. */
JsonParser *
rest_parser(const RestState *state)
{
	JsonParser *json = json_parser_create();

	json->memory = state->source->memory;
	return json;
}

static void
rest_stored_cursor_is_bad(RestState *state)
{
	rest_problem(state, ERRCLASS_PROTOCOL, "could not read the stored cursor");
	state->problem.retryable = false;
	state->problem.stored = true;
}

/* Takes the engine's cursor apart. */
static void
rest_take_cursor(RestState *state, const char *cursor)
{
	JsonParser	   *json;
	const JsonNode *nodes;
	uint32			node;

	memset(&state->at, 0, sizeof(state->at));
	state->at.only_missing = cursor == NULL;
	if (state->def->nsplit > 0)
	{
		if (!rest_split_begin(state, cursor))
			rest_stored_cursor_is_bad(state);
		return;
	}
	if (cursor == NULL)
		return;
	if (state->def->parent_type == NULL)
	{
		state->at.inner = pstrdup(cursor);
		return;
	}
	json = json_parser_create();
	if (!json_parse(json, cursor, strlen(cursor), 2) || json->nodes[JSON_ROOT].type != JSON_ARRAY)
	{
		rest_stored_cursor_is_bad(state);
		return;
	}
	nodes = json->nodes;
	node = nodes[JSON_ROOT].child;
	state->at.parent = json_value_text(json, node);
	node = nodes[node].next;
	state->at.inner = json_value_text(json, node);
	node = nodes[node].next;
	state->at.left_out = node != 0 && nodes[node].type == JSON_TRUE;
	node = node != 0 ? nodes[node].next : 0;
	state->at.only_missing = node != 0 && nodes[node].type == JSON_TRUE;
	node = node != 0 ? nodes[node].next : 0;
	if (node == 0)
		return;
	state->at.nfailed = Max(atoi(json_value_text(json, node)), 0);
	node = nodes[node].next;
	for (int i = 0; i < REST_FAILED_NAMES && node != 0; i++, node = nodes[node].next)
		state->at.failed[i] = json_value_text(json, node);
}

/* Goes to the parent that the position names, or to one behind it if that has gone. */
static void
rest_go_to_parent(RestState *state)
{
	if (state->def->parent_type == NULL || state->problem.error_class || !rest_parents_ready(state))
		return;
	if (!rest_parent_seek(state, state->at.parent))
		state->nothing = true;
	else if (state->at.parent == NULL ||
			 strcmp(state->at.parent, rest_parent(state)->external_id) != 0)
	{
		state->at.parent = MemoryContextStrdup(state->request_context,
											   rest_parent(state)->external_id);
		state->at.inner = NULL;
	}
}

/* Is the request that is to be sent on its way already? */
static bool
rest_is_sent(const RestState *state)
{
	return ahead_has(rest_lanes(state), rest_key(state, rest_list_name(state), state->at.inner));
}

/* Sends the request; parents that lack what it needs are passed over. */
static void
rest_try_to_send(RestState *state)
{
	if (state->external_id == NULL)
		rest_foretell_seen(state);
	while (!rest_send(state) && state->problem.of_parent)
	{
		memset(&state->problem, 0, sizeof(state->problem));
		state->at.left_out = true;
		if (!rest_parent_next(state))
		{
			state->nothing = true;
			return;
		}
		state->at.inner = NULL;
	}
	if (state->sent)
		rest_ask_ahead(state);
}

static void
rest_begin(Source *source, const char *cursor, const char *external_id)
{
	RestState	 *state = source->state;
	MemoryContext old;

	MemoryContextReset(state->request_context);
	old = MemoryContextSwitchTo(state->request_context);
	memset(&state->problem, 0, sizeof(state->problem));
	state->external_id = external_id ? pstrdup(external_id) : NULL;
	state->sent = state->nothing = state->missing = state->ended = false;
	state->refreshed = 0;
	state->unsure = NULL;
	if (external_id == NULL && state->def->path == NULL)
		rest_problem(state, ERRCLASS_CONFIGURATION,
					 "the connector's definition has no resource type \"%s\"",
					 source->spec.resource_type);
	else if (external_id == NULL)
	{
		rest_take_cursor(state, cursor);
		rest_go_to_parent(state);
	}
	if (!state->problem.error_class && !state->nothing &&
		(source_pace_ready(source) || rest_is_sent(state)))
		rest_try_to_send(state);
	MemoryContextSwitchTo(old);
}

static void
rest_forget_expected(RestState *state)
{
	for (int i = 0; i < state->nexpected; i++)
		pfree(state->expected[i]);
	state->nexpected = 0;
}

static void
rest_expect(Source *source, char *const *external_ids, int n)
{
	RestState	 *state = source->state;
	MemoryContext old = MemoryContextSwitchTo(source->context);

	rest_forget_expected(state);
	if (state->expected)
		pfree(state->expected);
	state->expected = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		state->expected[state->nexpected++] = pstrdup(external_ids[i]);
	MemoryContextSwitchTo(old);
}

static void
rest_ask(Source *source, const char *cursor)
{
	rest_forget_expected(source->state);
	rest_begin(source, cursor, NULL);
}

/* Waits until the next request may be sent; false when that would take too long. */
static bool
rest_wait(RestState *state)
{
	int64 ms = source_pace_wait(state->source);

	if (ms == 0)
		return true;
	rest_problem(state, ERRCLASS_THROTTLED, "the upstream's rate limit is exhausted");
	state->problem.retry_after_ms = ms;
	return false;
}

static void
rest_answer_problem(RestState *state, SourceAnswer *answer)
{
	source_fail(state->source, answer, state->problem.error_class, "%s", state->problem.message);
	answer->retryable = state->problem.retryable;
	answer->retry_after_ms = state->problem.retry_after_ms;
	/* What is of no use will be of none next time. */
	answer->cursor_refused = state->problem.stored;
	if (state->problem.stored && state->at.inner == NULL && state->kept_link)
	{
		state->kept_link = NULL;
		answer->start_again = true;
	}
	answer->started_at = GetCurrentTimestamp();
}

/* A status that the definition, or the kind of list, gives a meaning of its own. */
static void
rest_special_status(RestState *state, SourceAnswer *answer)
{
	const RestDefinition *d = state->def;

	/* A request to wait says nothing about the record. */
	if (answer->error_class == ERRCLASS_THROTTLED)
		return;
	if (state->external_id)
	{
		if (rest_status_in(state->status, d->not_found, d->nnot_found))
		{
			answer->error_class = ERRCLASS_NONE;
			answer->none = true;
		}
		return;
	}
	/* The parent has gone since it was listed. */
	if (d->parent_type && state->status == 404 && state->at.inner == NULL)
	{
		answer->error_class = ERRCLASS_NONE;
		state->nothing = state->missing = true;
	}
	/* The upstream rejects the stored link, or one that it led to. */
	if (d->delta && state->source->spec.incremental && (state->kept_link || state->at.inner) &&
		(answer->cursor_refused ||
		 rest_status_in(state->status, d->reset_status, d->nreset_status)))
	{
		state->kept_link = NULL;
		answer->start_again = true;
	}
}

static void
rest_answer(Source *source, SourceAnswer *answer)
{
	RestState	*state = source->state;
	HttpResponse response;

	for (;;)
	{
		if (!state->problem.error_class && !state->nothing && !state->sent && rest_wait(state))
		{
			MemoryContext old = MemoryContextSwitchTo(state->request_context);

			rest_try_to_send(state);
			MemoryContextSwitchTo(old);
		}
		if (state->problem.error_class)
		{
			rest_answer_problem(state, answer);
			return;
		}
		if (state->nothing)
		{
			answer->body = "";
			answer->started_at = GetCurrentTimestamp();
			return;
		}
		while (!ahead_await(rest_lanes(state)))
			rest_ask_ahead(state);
		http_finish(rest_client(state), &response);
		state->sent = false;
		if (response.failure != HTTP_OK || response.status != 401 || !rest_drop_token(state))
			break;
	}
	rest_classify(state, &response, answer);
	if (answer->error_class)
		rest_special_status(state, answer);
}

static bool
rest_ready(Source *source, int ms)
{
	RestState *state = source->state;

	return state->problem.error_class || state->nothing ||
		(state->sent && ahead_ready(rest_lanes(state), ms));
}

static void
rest_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	RestState *state = source->state;

	if (state->def->get_path == NULL)
	{
		source_fail(source, answer, ERRCLASS_CONFIGURATION,
					"the definition does not say how one record of type \"%s\" is asked for",
					source->spec.resource_type);
		answer->not_supported = true;
		return;
	}
	rest_begin(source, NULL, external_id);
	rest_answer(source, answer);
}

const SourceKind source_kind_rest = {
	.name = "rest",
	.origins = rest_origins,
	.open = rest_open,
	.ask = rest_ask,
	.answer = rest_answer,
	.ready = rest_ready,
	.read = rest_read,
	.reads_from = rest_reads_from,
	.read_to = rest_read_to,
	.read_as_before = rest_read_as_before,
	.give_up = rest_give_up,
	.get = rest_get,
	.expect = rest_expect,
	.close = rest_close,
};
