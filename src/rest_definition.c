/*
 * rest_definition.c
 *	  Compiles a definition for one resource type; once a run.
 *
 * The definition has been validated when it was stored.  What does not fit all
 * the same is an error here, never a guess.
 */
#include "postgres.h"

#include "compat.h"

#include "rest.h"

typedef struct Reader
{
	JsonParser *json;
} Reader;

FLOHSYNC_NORETURN(static void definition_error(const char *what));

static void
definition_error(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the connector's definition cannot be used: %s", what),
			 errhint("flohsync.validate_definition() tells every fault.")));
}

/* rest_text is a string's characters, or the literal of a number or boolean; palloc'd, NULL for anything else. */
char *
rest_text(const JsonParser *json, uint32 node)
{
	const JsonNode *value = &json->nodes[node];
	uint32		len = value->end - value->start;
	char	   *text;

	if (node == 0 || value->type == JSON_NULL || value->type == JSON_OBJECT || value->type == JSON_ARRAY ||
		(value->flags & JSON_F_BAD_ESCAPE))
		return NULL;
	text = palloc(len + 1);
	if (value->type == JSON_STRING)
		len = json_string_decode(json, value, text);
	else
		memcpy(text, json->text + value->start, len);
	text[len] = '\0';
	return text;
}

/* A member that is null is as if it were not there. */
static uint32
definition_member(Reader *r, uint32 object, const char *key)
{
	uint32		node;

	if (object == 0 || r->json->nodes[object].type != JSON_OBJECT)
		return 0;
	node = json_member(r->json, object, key, strlen(key));
	return node != 0 && r->json->nodes[node].type == JSON_NULL ? 0 : node;
}

char *
rest_member_text(const JsonParser *json, uint32 object, const char *key)
{
	if (object == 0 || json->nodes[object].type != JSON_OBJECT)
		return NULL;
	return rest_text(json, json_member(json, object, key, strlen(key)));
}

static char *
definition_text(Reader *r, uint32 object, const char *key)
{
	return rest_text(r->json, definition_member(r, object, key));
}

static bool
definition_is(Reader *r, uint32 object, const char *key, const char *value)
{
	char	   *text = definition_text(r, object, key);

	return text != NULL && strcmp(text, value) == 0;
}

static int64
definition_whole(Reader *r, uint32 object, const char *key, int64 otherwise)
{
	char	   *text = definition_text(r, object, key);
	char	   *end;
	int64		value;

	if (text == NULL)
		return otherwise;
	value = strtoll(text, &end, 10);
	if (end != text && *end == '.')
		end += 1 + strspn(end + 1, "0");	/* 10.0 is one */
	if (*end != '\0' || end == text)
		definition_error(psprintf("\"%s\" is not a whole number", key));
	return value;
}

static bool
definition_bool(Reader *r, uint32 object, const char *key, bool otherwise)
{
	uint32		node = definition_member(r, object, key);

	return node == 0 ? otherwise : r->json->nodes[node].type == JSON_TRUE;
}

static RestTemplate *
definition_template_of(const char *text)
{
	RestTemplate *t = rest_template_parse(text);

	if (t == NULL)
		definition_error(psprintf("a placeholder in \"%s\" is malformed", text));
	return t;
}

static RestTemplate *
definition_template(Reader *r, uint32 object, const char *key)
{
	char	   *text = definition_text(r, object, key);

	return text ? definition_template_of(text) : NULL;
}

static RestPath *
definition_path_of(const char *text)
{
	RestPath   *path = rest_path_compile(text);

	if (!path->native)
		rest_jsonpath_compile(path);
	return path;
}

static RestPath *
definition_path(Reader *r, uint32 object, const char *key, const char *otherwise)
{
	char	   *text = definition_text(r, object, key);

	if (text == NULL && otherwise == NULL)
		return NULL;
	return definition_path_of(text ? text : otherwise);
}

static RestPaths
definition_paths(Reader *r, uint32 object, const char *key, const char *otherwise)
{
	uint32		node = definition_member(r, object, key);
	RestPaths	paths = {0};
	const JsonNode *nodes = r->json->nodes;

	if (node != 0 && nodes[node].type == JSON_ARRAY)
	{
		paths.paths = palloc(sizeof(RestPath *) * (nodes[node].count + 1));
		for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
		{
			char	   *text = rest_text(r->json, i);

			if (text == NULL)
				definition_error(psprintf("\"%s\" is not a path", key));
			paths.paths[paths.n++] = definition_path_of(text);
		}
	}
	else if (node != 0 || otherwise != NULL)
	{
		paths.paths = palloc(sizeof(RestPath *));
		paths.paths[paths.n++] = definition_path(r, object, key, otherwise);
	}
	return paths;
}

static RestParams
definition_params(Reader *r, uint32 object, const char *key)
{
	uint32		node = definition_member(r, object, key);
	const JsonNode *nodes = r->json->nodes;
	RestParams	list = {0};

	if (node == 0 || nodes[node].type != JSON_OBJECT)
		return list;
	list.params = palloc0(sizeof(RestParam) * (nodes[node].count + 1));
	for (uint32 i = nodes[node].child; i != 0; i = nodes[nodes[i].next].next)
	{
		RestParam  *param = &list.params[list.n];
		uint32		value = nodes[i].next;
		char	   *text = rest_text(r->json, value);

		if (nodes[value].type == JSON_NULL)
			continue;
		param->name = rest_text(r->json, i);
		if (param->name == NULL || text == NULL)
			definition_error(psprintf("\"%s\" has a member that is not a text", key));
		if (nodes[value].type == JSON_STRING)
			param->value = definition_template_of(text);
		else
			param->fixed = text;
		list.n++;
	}
	return list;
}

static int *
definition_statuses(Reader *r, uint32 object, const char *key, int *n, const int *otherwise, int notherwise)
{
	uint32		node = definition_member(r, object, key);
	const JsonNode *nodes = r->json->nodes;
	int		   *list;

	if (node == 0 || nodes[node].type != JSON_ARRAY)
	{
		*n = notherwise;
		list = palloc(sizeof(int) * (notherwise + 1));
		if (notherwise > 0)
			memcpy(list, otherwise, sizeof(int) * notherwise);
		return list;
	}
	list = palloc(sizeof(int) * (nodes[node].count + 1));
	*n = 0;
	for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
	{
		char	   *text = rest_text(r->json, i);

		if (text)
			list[(*n)++] = atoi(text);
	}
	return list;
}

static RestPlace
definition_place(Reader *r, uint32 object)
{
	return definition_is(r, object, "in", "body") ? REST_IN_BODY :
		definition_is(r, object, "in", "header") ? REST_IN_HEADER : REST_IN_QUERY;
}

static void
definition_auth(Reader *r, uint32 node, RestAuth *auth)
{
	char	   *type = definition_text(r, node, "type");
	bool		grant;

	if (type == NULL || strcmp(type, "none") == 0)
		return;
	auth->username = definition_template(r, node, "username");
	auth->password = definition_template(r, node, "password");
	auth->token = definition_template(r, node, "token");
	auth->value = definition_template(r, node, "value");
	auth->prefix = definition_template(r, node, "prefix");
	auth->header = definition_text(r, node, "header");
	auth->query = definition_text(r, node, "query");
	auth->token_url = definition_template(r, node, "token_url");
	auth->client_id = definition_template(r, node, "client_id");
	auth->client_secret = definition_template(r, node, "client_secret");
	auth->scope = definition_template(r, node, "scope");
	auth->extra = definition_params(r, node, "extra");
	auth->key = definition_template(r, node, "key");
	auth->kid = definition_template(r, node, "kid");
	auth->aud = definition_template(r, node, "aud");
	auth->iss = definition_template(r, node, "iss");
	auth->sub = definition_template(r, node, "sub");
	auth->alg = definition_text(r, node, "alg");
	if (auth->alg == NULL)
		auth->alg = "RS256";
	auth->client_auth = definition_is(r, node, "client_auth", "body") ? REST_CLIENT_BODY :
		definition_is(r, node, "client_auth", "private_key_jwt") ? REST_CLIENT_JWT : REST_CLIENT_BASIC;
	auth->bearer = definition_is(r, node, "body", "bearer");
	if (strcmp(type, "basic") == 0 && auth->username && auth->password)
		auth->type = REST_AUTH_BASIC;
	else if (strcmp(type, "bearer") == 0 && auth->token)
		auth->type = REST_AUTH_BEARER;
	else if (strcmp(type, "api_key") == 0 && auth->value && (auth->header || auth->query))
		auth->type = REST_AUTH_API_KEY;
	else if (strcmp(type, "oauth2_client_credentials") == 0 && auth->token_url && auth->client_id &&
			 (auth->client_auth == REST_CLIENT_JWT ? auth->key != NULL : auth->client_secret != NULL))
		auth->type = REST_AUTH_CLIENT_CREDENTIALS;
	else if (strcmp(type, "jwt_exchange") == 0 && auth->token_url && auth->iss && auth->key)
		auth->type = REST_AUTH_JWT;
	else
		definition_error("its auth lacks something, or is of a type that is not known");
	grant = auth->type != REST_AUTH_JWT || !auth->bearer;
	auth->token_path = definition_path(r, node, "token_path", grant ? "$.access_token" : "$.token");
	auth->expires_path = definition_path(r, node, "expires_path", grant ? "$.expires_in" : "$.expires_at");
}

static void
definition_top(Reader *r, RestDefinition *d)
{
	static const int retries[] = {408, 425, 429, 500, 502, 503, 504};
	uint32		http = definition_member(r, JSON_ROOT, "http");
	uint32		limits = definition_member(r, JSON_ROOT, "limits");
	uint32		retry = definition_member(r, JSON_ROOT, "retry");
	uint32		hosts = definition_member(r, http, "allow_hosts");
	const JsonNode *nodes = r->json->nodes;

	if (definition_whole(r, JSON_ROOT, "version", 0) != 1)
		definition_error("its version is not 1");
	if (definition_member(r, JSON_ROOT, "protocol") != 0 && !definition_is(r, JSON_ROOT, "protocol", "http"))
		definition_error("its protocol is not http");
	d->base_url = definition_template(r, JSON_ROOT, "base_url");
	if (d->base_url == NULL)
		definition_error("it has no base_url");
	d->headers = definition_params(r, JSON_ROOT, "headers");
	definition_auth(r, definition_member(r, JSON_ROOT, "auth"), &d->auth);
	d->timeout_ms = (int) definition_whole(r, http, "timeout_ms", 0);
	d->max_response_bytes = definition_whole(r, http, "max_response_bytes", 0);
	if (hosts != 0 && nodes[hosts].type == JSON_ARRAY)
	{
		d->allow_hosts = palloc(sizeof(char *) * (nodes[hosts].count + 1));
		for (uint32 i = nodes[hosts].child; i != 0; i = nodes[i].next)
		{
			char	   *host = rest_text(r->json, i);

			if (host)
				d->allow_hosts[d->nallow_hosts++] = host;
		}
	}
	d->max_pages = (int) definition_whole(r, limits, "max_pages", 100000);
	d->requests_per_minute = (int) definition_whole(r, limits, "requests_per_minute", 0);
	d->remaining_header = definition_text(r, limits, "remaining_header");
	d->reset_header = definition_text(r, limits, "reset_header");
	d->reset_seconds = definition_is(r, limits, "reset_format", "seconds");
	d->throttle_status = definition_statuses(r, limits, "also_throttle_status", &d->nthrottle_status, NULL, 0);
	d->throttle_body = definition_path(r, limits, "throttle_body", NULL);
	d->max_attempts = (int) definition_whole(r, retry, "max_attempts", 0);
	d->base_ms = (int) definition_whole(r, retry, "base_ms", 0);
	d->max_ms = (int) definition_whole(r, retry, "max_ms", 0);
	d->retry_status = definition_statuses(r, retry, "on_status", &d->nretry_status, retries, lengthof(retries));
}

static void
definition_pagination(Reader *r, uint32 node, RestDefinition *d)
{
	static const char *const types[] = {
		[REST_PAGES_NONE] = "none", [REST_PAGES_LINK_HEADER] = "link_header", [REST_PAGES_NEXT_URL] = "next_url",
		[REST_PAGES_CURSOR] = "cursor", [REST_PAGES_OFFSET] = "offset", [REST_PAGES_PAGE] = "page",
	};
	char	   *type = definition_text(r, node, "type");
	RestPagination *p = &d->pages;
	int			t = 0;

	while (type && t < lengthof(types) && strcmp(type, types[t]) != 0)
		t++;
	if (t == lengthof(types))
		definition_error(psprintf("pagination \"%s\" is not known", type));
	p->type = t;
	p->rel = definition_text(r, node, "rel");
	if (p->rel == NULL)
		p->rel = "next";
	p->end_status = definition_statuses(r, node, "end_status", &p->nend_status, NULL, 0);
	p->own_origin = definition_is(r, node, "origin", "base_url");
	p->path = definition_path(r, node, "path", NULL);
	p->param = definition_text(r, node, "param");
	p->in = definition_place(r, node);
	p->first = definition_text(r, node, "first");
	p->keep_params = definition_bool(r, node, "keep_params", true);
	p->has_more = definition_path(r, node, "has_more", NULL);
	p->base = (int) definition_whole(r, node, "base", p->type == REST_PAGES_PAGE ? 1 : 0);
	p->step_page_size = definition_is(r, node, "step", "page_size");
	p->total = definition_path(r, node, "total", NULL);
	if (p->total == NULL)
		p->total = d->total;
	p->total_pages = definition_path(r, node, "total_pages", NULL);
	if (definition_member(r, node, "stop") != 0)
		p->stop = definition_is(r, node, "stop", "total") ? REST_STOP_TOTAL :
			definition_is(r, node, "stop", "total_pages") ? REST_STOP_TOTAL_PAGES : REST_STOP_EMPTY;
	else
		p->stop = p->total_pages ? REST_STOP_TOTAL_PAGES : p->total && !d->total_is_estimate ? REST_STOP_TOTAL : REST_STOP_EMPTY;
	if (((p->type == REST_PAGES_NEXT_URL || p->type == REST_PAGES_CURSOR) && p->path == NULL) ||
		(p->type >= REST_PAGES_CURSOR && p->param == NULL))
		definition_error("its pagination lacks something");
}

static void
definition_incremental(Reader *r, uint32 node, RestDefinition *d)
{
	static const int gone = 410;

	if (definition_is(r, node, "type", "param"))
	{
		d->since_param = definition_text(r, node, "param");
		d->since = definition_template(r, node, "template");
		if (d->since == NULL)
			d->since = definition_template_of("{{since}}");
		d->since_in = definition_place(r, node);
		if (d->since_param == NULL)
			definition_error("its incremental lacks \"param\"");
	}
	else if (definition_is(r, node, "type", "delta_link"))
	{
		d->delta = definition_path(r, node, "path", NULL);
		d->start_path = definition_template(r, node, "start_path");
		if (d->start_path == NULL)
			d->start_path = d->path;
		d->reset_status = definition_statuses(r, node, "reset_status", &d->nreset_status, &gone, 1);
		d->delta_partial = definition_bool(r, node, "partial", true);
		if (d->delta == NULL)
			definition_error("its incremental lacks \"path\"");
	}
}

/* A name, or names from the outside in; a NUL, which no key holds, stands between them. */
static void
definition_exclude(Reader *r, uint32 node, RestDefinition *d)
{
	const JsonNode *nodes = r->json->nodes;

	if (node == 0 || nodes[node].type != JSON_ARRAY)
		return;
	d->exclude = palloc0(sizeof(CanonicalPath) * (nodes[node].count + 1));
	for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
	{
		StringInfoData path;

		initStringInfo(&path);
		if (nodes[i].type == JSON_ARRAY)
			for (uint32 k = nodes[i].child; k != 0; k = nodes[k].next)
			{
				char	   *name = rest_text(r->json, k);

				if (k != nodes[i].child)
					appendStringInfoChar(&path, '\0');
				appendStringInfoString(&path, name ? name : "");
			}
		else
		{
			char	   *name = rest_text(r->json, i);

			appendStringInfoString(&path, name ? name : "");
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
	int			room = 0;
	int			kept = 0;

	for (uint32 i = JSON_ROOT; i < r->json->nnodes; i++)
	{
		char	   *text = r->json->nodes[i].type == JSON_STRING ? rest_text(r->json, i) : NULL;

		for (char *p = text; p && (p = strstr(p, head)) != NULL;)
		{
			char	   *end = strstr(p += strlen(head), "}}");

			if (end == NULL)
				break;
			if (d->nparent_attributes == room)
			{
				room = room * 2 + 8;
				d->parent_attributes = d->parent_attributes ? repalloc(d->parent_attributes, sizeof(char *) * room) :
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

static void
definition_resource(Reader *r, uint32 node, RestDefinition *d)
{
	static const int not_found = 404;
	uint32		list = definition_member(r, node, "list");
	uint32		size = definition_member(r, list, "page_size");
	uint32		each = definition_member(r, node, "for_each");
	uint32		get = definition_member(r, node, "get");
	uint32		map = definition_member(r, node, "map");
	uint32		body = definition_member(r, list, "body");
	char	   *records = definition_text(r, list, "records");
	size_t		len;

	d->post = definition_is(r, list, "method", "POST");
	d->path = definition_template(r, list, "path");
	if (each != 0)
	{
		d->parent_type = definition_text(r, each, "resource");
		if (d->path == NULL)
			d->path = definition_template(r, each, "path");
		d->own_ids = definition_bool(r, each, "own_ids", false);
		if (d->parent_type == NULL)
			definition_error("its for_each lacks \"resource\"");
	}
	if (d->path == NULL)
		definition_error("its list has no path");
	d->params = definition_params(r, list, "params");
	if (body != 0)
		d->body = pnstrdup(r->json->text + r->json->nodes[body].start, r->json->nodes[body].end - r->json->nodes[body].start);
	d->size_param = definition_text(r, size, "param");
	d->size_in = definition_place(r, size);
	d->size_default = (int) definition_whole(r, size, "default", 0);
	d->size_max = (int) definition_whole(r, size, "max", FLOHSYNC_MAX_PAGE_RECORDS);

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
	d->missing_is_empty = definition_is(r, list, "missing", "empty");
	d->error = definition_path(r, list, "error", NULL);
	d->total = definition_path(r, list, "total", NULL);
	d->total_is_estimate = definition_bool(r, list, "total_estimate", false);
	definition_pagination(r, definition_member(r, list, "pagination"), d);
	definition_incremental(r, definition_member(r, list, "incremental"), d);
	d->gone = definition_path(r, list, "gone", NULL);

	d->get_path = definition_template(r, get, "path");
	d->get_params = definition_params(r, get, "params");
	d->get_record = definition_path(r, get, "record", "$");
	d->not_found = definition_statuses(r, get, "not_found", &d->nnot_found, &not_found, 1);

	d->external_id = definition_paths(r, map, "externalId", NULL);
	d->display_name = definition_paths(r, map, "displayName", NULL);
	d->email = definition_paths(r, map, "email", NULL);
	d->attributes = definition_paths(r, map, "attributes", "$");
	definition_exclude(r, definition_member(r, map, "exclude"), d);
	if (d->external_id.n == 0)
		definition_error("its map has no externalId");
	if (d->parent_type != NULL)
		definition_parent_attributes(r, d);
}

/* rest_definition_compile; for a type that the definition does not have, path and get_path stay NULL. */
RestDefinition *
rest_definition_compile(const char *definition, const char *resource_type)
{
	RestDefinition *d = palloc0(sizeof(RestDefinition));
	Reader		r = {json_parser_create()};
	uint32		resource;

	if (definition == NULL || !json_parse(r.json, definition, strlen(definition), 128) ||
		r.json->nodes[JSON_ROOT].type != JSON_OBJECT)
		definition_error("it is not a JSON object");
	definition_top(&r, d);
	resource = definition_member(&r, definition_member(&r, JSON_ROOT, "resources"), resource_type);
	if (resource != 0)
		definition_resource(&r, resource, d);
	return d;
}
