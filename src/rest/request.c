/*
 * request.c
 *	  Builds and sends the request of a page or of one record.
 *
 * What a value may do depends on where it stands: in an address it is encoded
 * as a whole, in a header it may not hold control characters, in a body it is
 * the content of a JSON text.  Only in base_url is it taken as it is.
 *
 * A key that is sent as a parameter is put on last, and taken off the addresses
 * that an upstream gives (rest/follow.c), so that it is never stored.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "json/value.h"
#include "rest/foretell.h"
#include "rest/render.h"

/* rest_problem notes why there is no request, or no answer that can be used. */
void
rest_problem(RestState *state, ErrorClass error_class, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	source_say(state->source, state->problem.message, sizeof(state->problem.message), format, args);
	va_end(args);
	state->problem.error_class = error_class;
	state->problem.retryable = error_class_retries(error_class);
	state->problem.of_parent = state->problem.stored = false;
	state->problem.retry_after_ms = -1;
}

static char *
request_value(RestState *state, const RestParam *param)
{
	return param->fixed ? param->fixed : rest_render_plain(state, param->value);
}

/* What the parameters and the body of a request are put together from. */
typedef struct RequestParts
{
	char *names[160];
	char *values[160]; /* in a body: JSON text */
	int	  n;
} RequestParts;

/* A later parameter takes the place of an earlier one. */
static void
request_add(RequestParts *parts, char *name, char *value)
{
	int i;

	for (i = 0; i < parts->n && strcmp(parts->names[i], name) != 0; i++)
		;
	if (i == lengthof(parts->names))
		return;
	parts->names[i] = name;
	parts->values[i] = value;
	parts->n = Max(parts->n, i + 1);
}

static char *
request_json_text(const char *value)
{
	StringInfoData out;

	initStringInfo(&out);
	escape_json(&out, value);
	return out.data;
}

/* A JSON value of the definition, its texts rendered.  False with the problem noted. */
static bool
request_body_value(RestState *state, const JsonParser *json, uint32 node, StringInfo out, int depth)
{
	const JsonNode *nodes = json->nodes;
	bool			object = nodes[node].type == JSON_OBJECT;
	bool			first = true;

	if (nodes[node].type == JSON_STRING)
	{
		char	 *text = json_value_text(json, node);
		Template *t = text ? template_parse(text) : NULL;

		if (t == NULL)
			rest_problem(state, ERRCLASS_CONFIGURATION,
						 "the definition's body has a string that cannot be used");
		text = t ? rest_render_plain(state, t) : NULL;
		if (text == NULL)
			return false;
		escape_json(out, text);
		return true;
	}
	if (depth > FLOHSYNC_MAX_NESTING || (!object && nodes[node].type != JSON_ARRAY))
	{
		appendBinaryStringInfo(out, json->text + nodes[node].start,
							   nodes[node].end - nodes[node].start);
		return true;
	}
	appendStringInfoChar(out, object ? '{' : '[');
	for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
	{
		if (!first)
			appendStringInfoChar(out, ',');
		first = false;
		if (object)
		{
			appendBinaryStringInfo(out, json->text + nodes[i].start, nodes[i].end - nodes[i].start);
			appendStringInfoChar(out, ':');
			i = nodes[i].next;
		}
		if (!request_body_value(state, json, i, out, depth + 1))
			return false;
	}
	appendStringInfoChar(out, object ? '}' : ']');
	return true;
}

/* The body: the definition's, with members of our own that replace those of the same name. */
static char *
request_body(RestState *state, const RequestParts *parts)
{
	JsonParser	  *json = json_parser_create();
	const char	  *body = state->def->body ? state->def->body : "{}";
	StringInfoData out;
	bool		   first = true;

	if (!json_parse(json, body, strlen(body), FLOHSYNC_MAX_NESTING))
	{
		rest_problem(state, ERRCLASS_CONFIGURATION, "the definition's body is not JSON");
		return NULL;
	}
	initStringInfo(&out);
	if (json->nodes[JSON_ROOT].type != JSON_OBJECT)
		return request_body_value(state, json, JSON_ROOT, &out, 0) ? out.data : NULL;
	appendStringInfoChar(&out, '{');
	for (uint32 i = json->nodes[JSON_ROOT].child; i != 0; i = json->nodes[json->nodes[i].next].next)
	{
		char *name = json_value_text(json, i);
		bool  ours = name == NULL;

		for (int k = 0; k < parts->n; k++)
			ours = ours || strcmp(parts->names[k], name) == 0;
		if (ours)
			continue;
		if (!first)
			appendStringInfoChar(&out, ',');
		first = false;
		escape_json(&out, name);
		appendStringInfoChar(&out, ':');
		if (!request_body_value(state, json, json->nodes[i].next, &out, 1))
			return NULL;
	}
	for (int k = 0; k < parts->n; k++)
	{
		if (!first)
			appendStringInfoChar(&out, ',');
		first = false;
		escape_json(&out, parts->names[k]);
		appendStringInfo(&out, ":%s", parts->values[k]);
	}
	appendStringInfoChar(&out, '}');
	return out.data;
}

/* The path must come out as it was meant: behind the host, and no segment may lead up. */
static bool
request_path_is_safe(const char *path)
{
	if (path[0] != '/' || path[1] == '/')
		return false;
	for (const char *p = path; *p == '/';)
	{
		size_t len = strcspn(p + 1, "/?");

		if ((len == 1 && p[1] == '.') || (len == 2 && p[1] == '.' && p[2] == '.'))
			return false;
		p += 1 + len;
	}
	return true;
}

/*
 * Does a list begin whose address may hold values of a parent?  One that cannot be used is
 * left out.
 */
static bool
request_for_parent(const RestState *state)
{
	return state->def->parent_type != NULL && state->external_id == NULL && state->at.inner == NULL;
}

static char *
request_path(RestState *state, const Template *path)
{
	char *base = rest_base_url(state, state->def->base_url);
	char *text = base ? rest_render(state, path, request_path_literal, request_encoded) : NULL;

	if (text == NULL)
		return NULL;
	if (!request_path_is_safe(text))
	{
		/* The definition's own path is safe, and so is what config can hold. */
		rest_problem(state, ERRCLASS_CONFIGURATION,
					 "a value would lead out of the path of the request");
		state->problem.of_parent = request_for_parent(state);
		return NULL;
	}
	return psprintf("%s%s", base, text);
}

static bool
request_params(RestState *state, const RestParams *params, RequestParts *query)
{
	for (int i = 0; i < params->n; i++)
	{
		char *value = request_value(state, &params->params[i]);

		if (value == NULL)
			return false;
		request_add(query, params->params[i].name, value);
	}
	return true;
}

/* The parameter that says which page is wanted: a JSON text for a body. */
static char *
request_page_value(RestState *state)
{
	const RestPagination *p = &state->def->pages;
	const char			 *inner = state->at.inner;

	switch (p->type)
	{
		case REST_PAGES_CURSOR:
			if (inner)
				return pstrdup(inner);
			if (p->first == NULL)
				return NULL;
			return p->in == REST_IN_BODY ? request_json_text(p->first) : p->first;
		case REST_PAGES_OFFSET:
			return inner ? pstrdup(inner) : psprintf("%d", p->base);
		case REST_PAGES_PAGE:
			/* page:records so far */
			return inner ? pnstrdup(inner, strcspn(inner, ":")) : psprintf("%d", p->base);
		default:
			return NULL;
	}
}

/* The address of a page without its parameters; *bare: it gets none. */
static char *
request_list_url(RestState *state, bool *bare)
{
	const RestDefinition *d = state->def;
	bool by_url = d->pages.type == REST_PAGES_LINK_HEADER || d->pages.type == REST_PAGES_NEXT_URL;
	bool delta = d->delta != NULL && state->source->spec.incremental;
	const char *link = state->at.inner && by_url ? state->at.inner :
		delta									 ? state->kept_link :
												   NULL;

	*bare = link != NULL;
	if (link)
	{
		ErrorClass error_class;
		char	  *url;

		/* It comes from the tables: also there it may lead only where it might before. */
		state->url = rest_base_url(state, d->base_url);
		if (state->url == NULL)
			return NULL;
		url = rest_follow(state, link, &error_class);
		state->problem.stored = url == NULL;
		return url;
	}
	return request_path(state, delta ? d->start_path : d->path);
}

/* Puts together what the request for a page says; false with the problem noted. */
static bool
request_list(RestState *state, StringInfo url, RequestParts *query, RequestParts *body,
			 char **header)
{
	const RestDefinition *d = state->def;
	const RestPagination *p = &d->pages;
	bool				  delta = d->delta != NULL && state->source->spec.incremental;
	bool				  bare;
	char				 *start = request_list_url(state, &bare);
	char				 *value;

	if (start == NULL)
		return false;
	appendStringInfoString(url, start);
	if (!bare && (p->keep_params || state->at.inner == NULL))
	{
		if (!request_params(state, &d->params, query))
			return false;
		if (d->split_param)
			request_add(query, d->split_param, unconstify(char *, rest_split_value(state)));
		if (d->size_param && !delta)
			request_add(d->size_in == REST_IN_BODY ? body : query, d->size_param,
						psprintf("%d", state->page_size));
		if (d->since_param && state->source->spec.incremental && state->source->spec.modified_since)
		{
			value = rest_render_plain(state, d->since);
			if (value == NULL)
				return false;
			request_add(d->since_in == REST_IN_BODY ? body : query, d->since_param,
						d->since_in == REST_IN_BODY ? request_json_text(value) : value);
		}
	}
	value = request_page_value(state);
	if (value == NULL)
		return true;
	if (p->in == REST_IN_HEADER)
	{
		StringInfoData line;

		initStringInfo(&line);
		appendStringInfo(&line, "%s: ", p->param);
		if (!request_plain(&line, value))
		{
			rest_problem(state, ERRCLASS_BAD_ANSWER,
						 "the upstream's cursor contains control characters");
			return false;
		}
		*header = line.data;
	}
	else
		request_add(p->in == REST_IN_BODY ? body : query, p->param, value);
	return true;
}

/*
 * Puts together and sends the request; false with the problem noted.
 *
 * Longer than a screen: the parts of a request, in turn.
 */
static bool
request_send(RestState *state)
{
	const RestDefinition *d = state->def;
	RequestParts		 *query = palloc0(sizeof(RequestParts));
	RequestParts		 *body = palloc0(sizeof(RequestParts));
	char				**headers = palloc0(sizeof(char *) * (d->headers.n + 4));
	HttpRequest			  request = {.headers = headers};
	char				 *extra = NULL;
	const char			 *refused;
	StringInfoData		  url;

	initStringInfo(&url);
	if (state->external_id)
	{
		char *start = request_path(state, d->get_path);

		if (start == NULL || !request_params(state, &d->get_params, query))
			return false;
		appendStringInfoString(&url, start);
	}
	else if (!request_list(state, &url, query, body, &extra))
		return false;
	for (int i = 0; i < query->n; i++)
		http_url_add(&url, query->names[i], query->values[i]);

	for (int i = 0; i < d->headers.n; i++)
	{
		StringInfoData line;

		initStringInfo(&line);
		appendStringInfo(&line, "%s: ", d->headers.params[i].name);
		if (!request_render(state, d->headers.params[i].value, &line, request_plain, request_plain))
			return false;
		headers[request.nheaders++] = line.data;
	}
	if (extra)
		headers[request.nheaders++] = extra;
	state->url = pstrdup(url.data);
	if (!rest_authorize(state, &url, &headers[request.nheaders]))
		return false;
	if (headers[request.nheaders])
		request.nheaders++;
	/* Before its turn, a page of the one list is known by its position; others have no conditions. */
	if (state->external_id == NULL)
		source_add_condition(&request,
							 state->early ?
								 source_foreseen_condition(state->source, state->at.inner) :
								 state->source->condition);

	if (url.len > FLOHSYNC_MAX_LINK_BYTES || http_url_problem(url.data) != NULL)
	{
		if (url.len > FLOHSYNC_MAX_LINK_BYTES)
		{
			bool of_parent = request_for_parent(state);
			bool of_cursor = state->at.inner != NULL && !of_parent;

			rest_problem(state, of_cursor ? ERRCLASS_TOO_LARGE : ERRCLASS_CONFIGURATION,
						 "the URL of the request has %d bytes%s, more than %d", url.len,
						 of_cursor ? " with the upstream's cursor" : "", FLOHSYNC_MAX_LINK_BYTES);
			state->problem.of_parent = of_parent;
		}
		else
			rest_problem(state, ERRCLASS_CONFIGURATION, "the URL of the request cannot be used: %s",
						 http_url_problem(url.data));
		return false;
	}
	refused = source_may_send(state->source, url.data);
	if (refused)
	{
		rest_problem(state, ERRCLASS_CONFIGURATION, "%s", refused);
		return false;
	}
	request.url = url.data;
	if (d->post && state->external_id == NULL)
	{
		request.body = request_body(state, body);
		if (request.body == NULL)
			return false;
		request.body_len = strlen(request.body);
	}
	request.timeout_ms = d->timeout_ms;
	request.max_bytes = d->max_response_bytes;
	request.memory = state->source->memory;
	/* Its links may have the key in them. */
	request.is_secret = d->auth.query != NULL;
	request.ahead = state->early != NULL;
	http_start(rest_client(state), &request);
	source_pace_sent(state->source);
	return true;
}

/* rest_lanes is what the current request is sent with, and those ahead of it. */
Ahead *
rest_lanes(const RestState *state)
{
	return state->external_id ? state->ones : state->ahead;
}

/* rest_client is the HTTP client of the current request; created on demand. */
HttpClient *
rest_client(RestState *state)
{
	if (state->early)
		return state->early;
	return ahead_client(rest_lanes(state));
}

/*
 * rest_send_now sends the request for state->at or state->external_id; false with
 * the problem noted.
 */
bool
rest_send_now(RestState *state)
{
	bool		  sent;
	MemoryContext old = MemoryContextSwitchTo(state->request_context);

	if (state->origin.host == NULL)
	{
		char *base = rest_base_url(state, state->def->base_url);

		if (base)
		{
			MemoryContextSwitchTo(state->source->context);
			http_url_origin(base, &state->origin);
			MemoryContextSwitchTo(state->request_context);
		}
	}
	sent = request_send(state);
	if (!sent && state->problem.error_class == ERRCLASS_NONE)
		rest_problem(state, ERRCLASS_CONFIGURATION, "could not build the request");
	MemoryContextSwitchTo(old);
	return sent;
}

/* rest_send has the request for state->at or state->external_id sent, if it is not already. */
bool
rest_send(RestState *state)
{
	const char *url;

	if (ahead_turn(rest_lanes(state), rest_key(state, rest_list_name(state), state->at.inner),
				   &url))
	{
		state->url = MemoryContextStrdup(state->request_context, url);
		state->sent = true;
	}
	else
		state->sent = rest_send_now(state);
	return state->sent;
}
