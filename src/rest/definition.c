/*
 * definition.c
 *	  Compiles a definition for one resource type; once a run.
 *
 * The definition has been validated when it was stored.  Nothing of that is
 * believed here: it may have been written to the table directly, or have come
 * with a dump of another version.  Whatever is read must be of its type and
 * within its limits, and hold no placeholder that has no meaning where it
 * stands; what is not is an error, never a guess.
 */
#include "postgres.h"

#include "base/compat.h"

#include "mb/pg_wchar.h"

#include "json/value.h"
#include "rest/definition.h"

static RestPlace
definition_place(Reader *r, uint32 object, bool header)
{
	return (RestPlace) definition_choice(
		r, object, "in",
		(const char *const[]){
			[REST_IN_QUERY] = "query", [REST_IN_BODY] = "body", [REST_IN_HEADER] = "header"},
		header ? 3 : 2);
}

static void
definition_auth(Reader *r, uint32 node, RestAuth *auth)
{
	bool grant;

	auth->type = (RestAuthType) definition_choice(
		r, node, "type",
		(const char *const[]){[REST_AUTH_NONE] = "none",
							  [REST_AUTH_BASIC] = "basic",
							  [REST_AUTH_BEARER] = "bearer",
							  [REST_AUTH_API_KEY] = "api_key",
							  [REST_AUTH_CLIENT_CREDENTIALS] = "oauth2_client_credentials",
							  [REST_AUTH_JWT] = "jwt_exchange"},
		REST_AUTH_JWT + 1);
	if (auth->type == REST_AUTH_NONE)
	{
		/* Of what is not known at all, it must not be guessed that it is none. */
		if (node != 0 && definition_member(r, node, "type") == 0)
			definition_error("its auth has no type");
		return;
	}
	auth->username = definition_template(r, node, "username", ALLOW_SECRET);
	auth->password = definition_template(r, node, "password", ALLOW_SECRET);
	auth->token = definition_template(r, node, "token", ALLOW_SECRET);
	auth->value = definition_template(r, node, "value", ALLOW_SECRET);
	auth->prefix = definition_template(r, node, "prefix", ALLOW_SECRET);
	auth->header = definition_header(r, node, "header");
	auth->query = definition_name(r, node, "query");
	auth->token_url = definition_template(r, node, "token_url", ALLOW_NONE);
	auth->client_id = definition_template(r, node, "client_id", ALLOW_SECRET);
	auth->client_secret = definition_template(r, node, "client_secret", ALLOW_SECRET);
	auth->scope = definition_template(r, node, "scope", ALLOW_SECRET);
	auth->extra = definition_params(r, node, "extra", 20, true, ALLOW_SECRET);
	auth->key = definition_template(r, node, "key", ALLOW_SECRET);
	auth->kid = definition_template(r, node, "kid", ALLOW_SECRET);
	auth->aud = definition_template(r, node, "aud", ALLOW_SECRET);
	auth->iss = definition_template(r, node, "iss", ALLOW_SECRET);
	auth->sub = definition_template(r, node, "sub", ALLOW_SECRET);
	auth->alg = definition_text(r, node, "alg");
	if (auth->alg == NULL)
		auth->alg = "RS256";
	auth->client_auth = (RestClientAuth) definition_choice(
		r, node, "client_auth",
		(const char *const[]){[REST_CLIENT_BASIC] = "basic",
							  [REST_CLIENT_BODY] = "body",
							  [REST_CLIENT_JWT] = "private_key_jwt"},
		REST_CLIENT_JWT + 1);
	auth->bearer = CHOICE(node, "body", "grant", "bearer") == 1;
	if (!((auth->type == REST_AUTH_BASIC && auth->username && auth->password) ||
		  (auth->type == REST_AUTH_BEARER && auth->token) ||
		  (auth->type == REST_AUTH_API_KEY && auth->value && (auth->header || auth->query)) ||
		  (auth->type == REST_AUTH_CLIENT_CREDENTIALS && auth->token_url && auth->client_id &&
		   (auth->client_auth == REST_CLIENT_JWT ? auth->key != NULL :
												   auth->client_secret != NULL)) ||
		  (auth->type == REST_AUTH_JWT && auth->token_url && auth->iss && auth->key)))
		definition_error("its auth is incomplete");
	grant = auth->type != REST_AUTH_JWT || !auth->bearer;
	auth->token_path = definition_path(r, node, "token_path", grant ? "$.access_token" : "$.token");
	auth->expires_path = definition_path(r, node, "expires_path",
										 grant ? "$.expires_in" : "$.expires_at");
}

static void
definition_top(Reader *r, RestDefinition *d)
{
	uint32			http = definition_object(r, JSON_ROOT, "http");
	uint32			limits = definition_object(r, JSON_ROOT, "limits");
	uint32			retry = definition_object(r, JSON_ROOT, "retry");
	uint32			hosts = definition_list(r, http, "allow_hosts", 20);
	const JsonNode *nodes = r->json->nodes;

	if (definition_member(r, JSON_ROOT, "version") == 0)
		definition_error("it has no version");
	definition_int(r, JSON_ROOT, "version", 1, 1, 0);
	(void) CHOICE(JSON_ROOT, "protocol", "http");
	d->base_url = definition_template(r, JSON_ROOT, "base_url", ALLOW_NONE);
	if (d->base_url == NULL)
		definition_error("it has no base_url");
	d->headers = definition_params(r, JSON_ROOT, "headers", 50, true, ALLOW_SECRET);
	for (int i = 0; i < d->headers.n; i++)
		definition_check_header("headers", d->headers.params[i].name);
	definition_auth(r, definition_object(r, JSON_ROOT, "auth"), &d->auth);
	d->timeout_ms = (int) definition_int(r, http, "timeout_ms", 1000, 600000, 0);
	d->max_response_bytes = definition_int(r, http, "max_response_bytes", 1024, 536870912, 0);
	d->allow_hosts = palloc(sizeof(char *) * (nodes[hosts].count + 1));
	for (uint32 i = nodes[hosts].child; i != 0; i = nodes[i].next)
	{
		if (nodes[i].type != JSON_STRING)
			definition_wrong("allow_hosts", "has an element that is not a string");
		d->allow_hosts[d->nallow_hosts++] = json_value_text(r->json, i);
	}
	d->concurrency = (int) definition_int(r, JSON_ROOT, "concurrency", 1, SOURCE_MAX_LANES, 1);
	d->max_pages = (int) definition_int(r, limits, "max_pages", 1, 100000, 100000);
	d->requests_per_minute = (int) definition_int(r, limits, "requests_per_minute", 1, 100000, 0);
	d->remaining_header = definition_header(r, limits, "remaining_header");
	d->reset_header = definition_header(r, limits, "reset_header");
	d->reset_seconds = CHOICE(limits, "reset_format", "epoch", "seconds") == 1;
	d->throttle_status = definition_statuses(r, limits, "also_throttle_status", 400,
											 &d->nthrottle_status, NULL, 0);
	d->throttle_body = definition_path(r, limits, "throttle_body", NULL);
	d->max_attempts = (int) definition_int(r, retry, "max_attempts", 1, 20, 0);
	d->base_ms = (int) definition_int(r, retry, "base_ms", 1, 60000, 0);
	d->max_ms = (int) definition_int(r, retry, "max_ms", 1, 3600000, 0);
	d->retry_status = definition_statuses(r, retry, "on_status", 400, &d->nretry_status,
										  source_passing_statuses, SOURCE_PASSING_STATUSES);
}

static void
definition_pagination(Reader *r, uint32 node, RestDefinition *d)
{
	RestPagination *p = &d->pages;

	p->type = (RestPaginationType) definition_choice(
		r, node, "type",
		(const char *const[]){[REST_PAGES_NONE] = "none",
							  [REST_PAGES_LINK_HEADER] = "link_header",
							  [REST_PAGES_NEXT_URL] = "next_url",
							  [REST_PAGES_CURSOR] = "cursor",
							  [REST_PAGES_OFFSET] = "offset",
							  [REST_PAGES_PAGE] = "page"},
		REST_PAGES_PAGE + 1);
	if (node != 0 && definition_member(r, node, "type") == 0)
		definition_error("its pagination has no type");
	p->rel = definition_name(r, node, "rel");
	if (p->rel == NULL)
		p->rel = "next";
	p->end_status = definition_statuses(r, node, "end_status", 200, &p->nend_status, NULL, 0);
	p->own_origin = definition_member(r, node, "origin") != 0 &&
		CHOICE(node, "origin", "base_url") == 0;
	p->path = definition_path(r, node, "path", NULL);
	p->param = definition_name(r, node, "param");
	p->in = definition_place(r, node, p->type == REST_PAGES_CURSOR);
	if (p->in == REST_IN_HEADER && p->param)
		definition_check_header("param", p->param);
	p->first = definition_text(r, node, "first");
	p->keep_params = definition_bool(r, node, "keep_params", true);
	p->has_more = definition_path(r, node, "has_more", NULL);
	p->base = (int) definition_int(r, node, "base", 0, 1, p->type == REST_PAGES_PAGE ? 1 : 0);
	p->step_page_size = CHOICE(node, "step", "returned", "page_size") == 1;
	p->total = definition_path(r, node, "total", NULL);
	if (p->total == NULL)
		p->total = d->total;
	p->total_pages = definition_path(r, node, "total_pages", NULL);
	if (definition_member(r, node, "stop") != 0)
		p->stop = (RestStop) definition_choice(
			r, node, "stop",
			(const char *const[]){[REST_STOP_EMPTY] = "empty",
								  [REST_STOP_TOTAL] = "total",
								  [REST_STOP_TOTAL_PAGES] = "total_pages"},
			REST_STOP_TOTAL_PAGES + 1);
	else
		p->stop = p->total_pages			  ? REST_STOP_TOTAL_PAGES :
			p->total && !d->total_is_estimate ? REST_STOP_TOTAL :
												REST_STOP_EMPTY;
	if (((p->type == REST_PAGES_NEXT_URL || p->type == REST_PAGES_CURSOR) && p->path == NULL) ||
		(p->type >= REST_PAGES_CURSOR && p->param == NULL) ||
		(p->stop == REST_STOP_TOTAL && p->total == NULL) ||
		(p->stop == REST_STOP_TOTAL_PAGES && p->total_pages == NULL) ||
		(p->step_page_size && d->size_param == NULL))
		definition_error("its pagination is incomplete");
}

static void
definition_incremental(Reader *r, uint32 node, RestDefinition *d)
{
	static const int gone = 410;

	switch (CHOICE(node, "type", "none", "param", "delta_link"))
	{
		case 1:
			d->since_param = definition_name(r, node, "param");
			d->since = definition_template(r, node, "template", ALLOW_SINCE);
			if (d->since == NULL)
				d->since = definition_template_of("{{since}}", ALLOW_SINCE);
			d->since_in = definition_place(r, node, false);
			if (d->since_param == NULL)
				definition_error("its incremental lacks \"param\"");
			break;
		case 2:
			d->delta = definition_path(r, node, "path", NULL);
			d->start_path = definition_template(r, node, "start_path", ALLOW_NONE);
			if (d->start_path == NULL)
				d->start_path = d->path;
			d->reset_status = definition_statuses(r, node, "reset_status", 400, &d->nreset_status,
												  &gone, 1);
			d->delta_partial = definition_bool(r, node, "partial", true);
			if (d->delta == NULL)
				definition_error("its incremental lacks \"path\"");
			if (d->parent_type != NULL)
				definition_error("a list of changes cannot be combined with for_each");
			break;
	}
}

/* One name of a path of exclude. */
static void
definition_exclude_name(Reader *r, uint32 node, StringInfo path)
{
	if (r->json->nodes[node].type != JSON_STRING)
		definition_wrong("exclude", "has an element that is not a name");
	appendStringInfoString(path, json_value_text(r->json, node));
}

/* A name, or names from the outside in; a NUL, which no key holds, stands between them. */
static void
definition_exclude(Reader *r, uint32 map, RestDefinition *d)
{
	uint32			node = definition_list(r, map, "exclude", 100);
	const JsonNode *nodes = r->json->nodes;

	d->exclude = palloc0(sizeof(CanonicalPath) * (nodes[node].count + 1));
	for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
	{
		StringInfoData path;

		initStringInfo(&path);
		if (nodes[i].type != JSON_ARRAY)
			definition_exclude_name(r, i, &path);
		else if (nodes[i].count == 0 || nodes[i].count > 8)
			definition_wrong("exclude", "has a path with no names or too many");
		else
			for (uint32 k = nodes[i].child; k != 0; k = nodes[k].next)
			{
				if (k != nodes[i].child)
					appendStringInfoChar(&path, '\0');
				definition_exclude_name(r, k, &path);
			}
		d->exclude[d->nexclude].data = path.data;
		d->exclude[d->nexclude].len = path.len;
		d->exclude[d->nexclude++].separator = '\0';
	}
}

static int
definition_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* A parent's attributes may be large: only those that a text of the definition names are read. */
static void
definition_parent_attributes(Reader *r, RestDefinition *d)
{
	static const char head[] = "{{parent.attributes.";
	int				  room = 0;
	int				  kept = 0;

	for (uint32 i = JSON_ROOT; i < r->json->nnodes; i++)
	{
		char *text = r->json->nodes[i].type == JSON_STRING ? json_value_text(r->json, i) : NULL;

		for (char *p = text; p && (p = strstr(p, head)) != NULL;)
		{
			char *end = strstr(p += strlen(head), "}}");

			if (end == NULL)
				break;
			if (d->nparent_attributes == room)
			{
				room = room * 2 + 8;
				d->parent_attributes = d->parent_attributes ?
					repalloc(d->parent_attributes, sizeof(char *) * room) :
					palloc(sizeof(char *) * room);
			}
			d->parent_attributes[d->nparent_attributes++] = pnstrdup(p, end - p);
		}
		if (text)
			pfree(text);
	}
	if (d->nparent_attributes == 0)
		return;
	qsort(d->parent_attributes, d->nparent_attributes, sizeof(char *), definition_compare);
	for (int i = 0; i < d->nparent_attributes; i++)
		if (i == 0 || strcmp(d->parent_attributes[kept - 1], d->parent_attributes[i]) != 0)
			d->parent_attributes[kept++] = d->parent_attributes[i];
	d->nparent_attributes = kept;
}

/* The body, with placeholders, as text; what goes into a body needs one. */
static void
definition_body(Reader *r, uint32 list, RestDefinition *d)
{
	uint32			body = definition_member(r, list, "body");
	const JsonNode *node = &r->json->nodes[body];
	bool needed = (d->size_param && d->size_in == REST_IN_BODY) || d->pages.in == REST_IN_BODY ||
		(d->since_param && d->since_in == REST_IN_BODY);

	if ((needed || body != 0) && !d->post)
		definition_error("only a POST has a body");
	if (body == 0)
		return;
	if (node->type != JSON_OBJECT && (needed || node->type != JSON_ARRAY))
		definition_wrong("body", "is not an object");
	d->body = pnstrdup(r->json->text + node->start, node->end - node->start);
}

/* The records of which type a list is made for each of. */
static void
definition_parents(Reader *r, uint32 resource, uint32 each, RestDefinition *d)
{
	uint32 parent;

	d->parent_type = definition_name(r, each, "resource");
	d->own_ids = definition_bool(r, each, "own_ids", false);
	if (d->parent_type == NULL)
		definition_error("its for_each lacks \"resource\"");
	parent = definition_object(r, r->resources, d->parent_type);
	if (parent == 0 || parent == resource || definition_member(r, parent, "for_each") != 0)
		definition_error("its for_each names no usable resource");
}

/* The parts of a list that is split, each by a value of its own. */
static void
definition_split(Reader *r, uint32 node, RestDefinition *d)
{
	uint32			values = definition_list(r, node, "values", REST_MAX_PARTS);
	const JsonNode *nodes = r->json->nodes;

	if (node == 0)
		return;
	d->split_param = definition_name(r, node, "param");
	if (d->split_param == NULL || nodes[values].count == 0)
		definition_error("its split lacks \"param\" or \"values\"");
	if (d->parent_type != NULL || d->delta != NULL)
		definition_error("its split does not go together with for_each or delta links");
	d->split_values = palloc(sizeof(char *) * nodes[values].count);
	for (uint32 i = nodes[values].child; i != 0; i = nodes[i].next)
	{
		char *value = nodes[i].type == JSON_STRING || nodes[i].type == JSON_NUMBER ?
			json_value_text(r->json, i) :
			NULL;

		if (value == NULL)
			definition_wrong("values", "has an element that is neither a text nor a number");
		for (int k = 0; k < d->nsplit; k++)
			if (strcmp(d->split_values[k], value) == 0)
				definition_wrong("values", "has an element twice");
		d->split_values[d->nsplit++] = value;
	}
}

static void
definition_resource(Reader *r, uint32 node, RestDefinition *d)
{
	static const int not_found = 404;
	uint32			 list = definition_object(r, node, "list");
	uint32			 size = definition_object(r, list, "page_size");
	uint32			 each = definition_object(r, node, "for_each");
	uint32			 get = definition_object(r, node, "get");
	uint32			 map = definition_object(r, node, "map");
	char			*records = definition_name(r, list, "records");
	Placeholders	 allowed = each != 0 ? ALLOW_PARENT : ALLOW_NONE;
	size_t			 len;

	d->post = CHOICE(list, "method", "GET", "POST") == 1;
	d->path = definition_template(r, list, "path", allowed);
	if (each != 0)
	{
		definition_parents(r, node, each, d);
		if (d->path == NULL)
			d->path = definition_template(r, each, "path", allowed);
	}
	if (d->path == NULL)
		definition_error("its list has no path");
	d->params = definition_params(r, list, "params", 100, false, allowed);
	d->size_param = definition_name(r, size, "param");
	if (size != 0 && d->size_param == NULL)
		definition_error("its page_size lacks \"param\"");
	d->size_in = definition_place(r, size, false);
	d->size_default = (int) definition_int(r, size, "default", 1, FLOHSYNC_MAX_PAGE_RECORDS, 0);
	d->size_max = (int) definition_int(r, size, "max", 1, FLOHSYNC_MAX_PAGE_RECORDS,
									   FLOHSYNC_MAX_PAGE_RECORDS);

	/* Of "…[*]", what is before it must be a list. */
	if (records == NULL)
		records = "$[*]";
	len = strlen(records);
	while (len > 0 && strchr(" \t\r\n", records[len - 1]) != NULL)
		len--;
	if (len > 3 && memcmp(records + len - 3, "[*]", 3) == 0)
	{
		d->elements = true;
		len -= 3;
	}
	d->records = definition_path_of(pnstrdup(records, len));
	d->missing_is_empty = CHOICE(list, "missing", "error", "empty") == 1;
	d->error = definition_path(r, list, "error", NULL);
	d->total = definition_path(r, list, "total", NULL);
	d->total_is_estimate = definition_bool(r, list, "total_estimate", false);
	d->conditional = definition_bool(r, list, "conditional", false);
	definition_pagination(r, definition_object(r, list, "pagination"), d);
	definition_incremental(r, definition_object(r, list, "incremental"), d);
	definition_split(r, definition_object(r, list, "split"), d);
	definition_body(r, list, d);
	d->gone = definition_path(r, list, "gone", NULL);

	d->get_path = definition_template(r, get, "path", ALLOW_EXTERNAL_ID);
	if (get != 0 && d->get_path == NULL)
		definition_error("its get has no path");
	d->get_params = definition_params(r, get, "params", 100, false, ALLOW_EXTERNAL_ID);
	d->get_record = definition_path(r, get, "record", "$");
	d->not_found = definition_statuses(r, get, "not_found", 400, &d->nnot_found, &not_found, 1);

	d->external_id = definition_paths(r, map, "externalId", NULL);
	d->display_name = definition_paths(r, map, "displayName", NULL);
	d->email = definition_paths(r, map, "email", NULL);
	d->attributes = definition_paths(r, map, "attributes", "$");
	definition_exclude(r, map, d);
	if (d->external_id.n == 0)
		definition_error("its map has no externalId");
	if (d->parent_type != NULL)
		definition_parent_attributes(r, d);
}

/*
 * rest_definition_compile; for a type that the definition does not have, path and get_path
 * stay NULL.
 */
RestDefinition *
rest_definition_compile(const char *definition, const char *resource_type)
{
	RestDefinition *d = palloc0(sizeof(RestDefinition));
	Reader			r = {json_parser_create()};
	uint32			resource;

	if (definition == NULL || strlen(definition) > DEFINITION_MAX_BYTES ||
		!json_parse(r.json, definition, strlen(definition), DEFINITION_MAX_NESTING) ||
		r.json->nodes[JSON_ROOT].type != JSON_OBJECT)
		definition_error("it is not a JSON object of at most 1 MB");
	if (r.json->nodes[JSON_ROOT].flags & JSON_F_BAD)
		definition_error("it is nested too deeply, or has a string or number that cannot be used");
	definition_top(&r, d);
	r.resources = definition_object(&r, JSON_ROOT, "resources");
	resource = definition_object(&r, r.resources, resource_type);
	if (resource != 0)
		definition_resource(&r, resource, d);
	return d;
}
