/*
 * params.c
 *	  The parameters of a request: out of its path, its query and its body, into
 *	  what the function of its route is called with.
 *
 * What is wrong is told with the name of the parameter: a type that does not fit, a
 * value that is none of those there are, a parameter that is missing, unknown or
 * given twice.  What the value means is for the function to say.
 */
#include "base/standalone.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json_text.h"
#include "request.h"

#define UUIDS_MOST	 10000
#define MEMBERS_MOST 1000

/* The characters %XX stands for; false when it is malformed, or no text. */
static bool
decode(char *text, bool plus, size_t *length)
{
	char *to = text;

	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '%')
		{
			int high = hex_digit((unsigned char) p[1]);
			int low = high < 0 ? -1 : hex_digit((unsigned char) p[2]);

			if (low < 0)
				return false;
			*to++ = (char) (high << 4 | low);
			p += 2;
		}
		else
			*to++ = plus && *p == '+' ? ' ' : *p;
	}
	*to = '\0';
	*length = to - text;
	return is_text(text, *length);
}

bool
uri_read(Request *r, char *problem, size_t size)
{
	char  *query;
	char  *p;
	size_t n;

	r->path = must_copy(r->uri);
	query = strchr(r->path, '?');
	if (query != NULL)
		*query++ = '\0';
	if (r->path[0] != '/')
	{
		snprintf(problem, size, "the path does not begin with a slash");
		return false;
	}
	/* p is at the slash, or at what replaced it, before a segment. */
	for (p = r->path; p != NULL;)
	{
		char *end = strchr(++p, '/');

		if (end != NULL)
			*end = '\0';
		/* A slash at the end does not count. */
		if (*p == '\0' && end == NULL)
			break;
		if (r->nsegments == ROUTE_SEGMENTS)
		{
			/* No route has so many. */
			r->nsegments = 0;
			break;
		}
		r->segment[r->nsegments++] = p;
		if (!decode(p, false, &n))
		{
			snprintf(problem, size, "the path is no text");
			return false;
		}
		p = end;
	}
	if (query == NULL)
		return true;
	r->query = must_copy(query);
	for (p = r->query; p != NULL && *p != '\0';)
	{
		char *end = strchr(p, '&');
		char *equals;

		if (end != NULL)
			*end++ = '\0';
		equals = strchr(p, '=');
		if (equals != NULL)
			*equals++ = '\0';
		if (*p != '\0' || equals != NULL)
		{
			if (r->npairs == QUERY_PAIRS)
			{
				snprintf(problem, size, "the query has too many parameters");
				return false;
			}
			r->name[r->npairs] = p;
			r->value[r->npairs] = equals != NULL ? equals : p + strlen(p);
			if (!decode(p, true, &n) || (equals != NULL && !decode(equals, true, &n)))
			{
				snprintf(problem, size, "the query is no text");
				return false;
			}
			r->npairs++;
		}
		p = end;
	}
	return true;
}

const char *
request_query(const Request *r, const char *name)
{
	for (int i = 0; i < r->npairs; i++)
	{
		if (strcmp(r->name[i], name) == 0)
			return r->value[i];
	}
	return NULL;
}

static bool
invalid(Request *r, const char *name, const char *details)
{
	char message[200];

	snprintf(message, sizeof(message), "invalid value for parameter \"%.100s\"", name);
	answer_error(&r->answer, 400, FLS_INVALID, message, details, NULL);
	return false;
}

static bool
is_uuid(const char *text, size_t n)
{
	if (n != 36)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : hex_digit((unsigned char) text[i]) < 0)
			return false;
	}
	return true;
}

static bool
is_one_of(const char *value, const char *values)
{
	size_t n = strlen(value);

	for (const char *p = values; *p != '\0'; p += strspn(p, " "))
	{
		size_t length = strcspn(p, " ");

		if (length == n && memcmp(p, value, n) == 0)
			return true;
		p += length;
	}
	return false;
}

/* Whether a text is a value of the type that a parameter has. */
static bool
check_text(Request *r, const Param *p, const char *value, size_t n)
{
	char	  details[300];
	char	 *end;
	long long number;
	long long most = p->type == PARAM_INT ? INT32_MAX : INT64_MAX;

	switch (p->type)
	{
		case PARAM_INT:
		case PARAM_BIGINT:
			if (p->most > 0)
				most = p->most;
			number = n > 0 && n < 20 && strspn(value, "0123456789") == n ?
				strtoll(value, &end, 10) :
				0;
			if (number >= 1 && number <= most)
				return true;
			snprintf(details, sizeof(details), "It must be a number from 1 to %lld.", most);
			return invalid(r, p->name, details);
		case PARAM_BOOL:
			return strcmp(value, "true") == 0 || strcmp(value, "false") == 0 ||
				invalid(r, p->name, "It must be true or false.");
		case PARAM_UUID:
			return is_uuid(value, n) || invalid(r, p->name, "It must be a UUID.");
		default:
			break;
	}
	if (p->values != NULL && !is_one_of(value, p->values))
	{
		snprintf(details, sizeof(details), "It must be one of: %s.", p->values);
		return invalid(r, p->name, details);
	}
	return true;
}

/* An array of UUIDs of JSON as one of PostgreSQL. */
static char *
uuid_array(Request *r, const Param *p, const JsonParser *json, uint32_t node)
{
	Buf out = {0};

	if (json->nodes[node].type != JSON_ARRAY || json->nodes[node].count == 0 ||
		json->nodes[node].count > UUIDS_MOST)
	{
		invalid(r, p->name, "It must be an array of 1 to 10000 UUIDs.");
		return NULL;
	}
	buf_char(&out, '{');
	for (uint32_t i = json->nodes[node].child; i != 0; i = json->nodes[i].next)
	{
		const JsonNode *v = &json->nodes[i];

		if (v->type != JSON_STRING || v->flags & JSON_F_ESCAPED ||
			!is_uuid(json->text + v->start + 1, v->end - v->start - 2))
		{
			buf_free(&out);
			invalid(r, p->name, "It must be an array of UUIDs.");
			return NULL;
		}
		if (out.n > 1)
			buf_char(&out, ',');
		buf_add(&out, json->text + v->start + 1, v->end - v->start - 2);
	}
	buf_char(&out, '}');
	return buf_take(&out);
}

/* The value of a member of the body; NULL when r has been answered. */
static char *
member_value(Request *r, const Param *p, const JsonParser *json, uint32_t node)
{
	const JsonNode *v = &json->nodes[node];
	char		   *text;
	size_t			n;

	switch (p->type)
	{
		case PARAM_UUIDS:
			return uuid_array(r, p, json, node);
		case PARAM_OBJECT:
			if (v->type != JSON_OBJECT)
			{
				invalid(r, p->name, "It must be an object.");
				return NULL;
			}
			/* FALLTHROUGH */
		case PARAM_JSON:
			return must_copy_n(json->text + v->start, v->end - v->start);
		case PARAM_BOOL:
			if (v->type != JSON_TRUE && v->type != JSON_FALSE)
			{
				invalid(r, p->name, "It must be true or false.");
				return NULL;
			}
			return must_copy(v->type == JSON_TRUE ? "true" : "false");
		case PARAM_INT:
		case PARAM_BIGINT:
			if (v->type != JSON_NUMBER)
			{
				invalid(r, p->name, "It must be a number.");
				return NULL;
			}
			text = must_copy_n(json->text + v->start, v->end - v->start);
			n = v->end - v->start;
			break;
		default:
			text = json_text_of(json, node, &n);
			if (text == NULL)
			{
				invalid(r, p->name, "It must be a string.");
				return NULL;
			}
			break;
	}
	if (!check_text(r, p, text, n))
	{
		free(text);
		return NULL;
	}
	return text;
}

static bool
is_json_type(const char *type)
{
	const char *rest;

	if (type == NULL || strncasecmp(type, "application/", 12) != 0)
		return false;
	rest = type + 12;
	rest += strcspn(rest, "; \t");
	return (rest - type == 16 && strncasecmp(type + 12, "json", 4) == 0) ||
		(rest - type > 17 && strncasecmp(rest - 5, "+json", 5) == 0);
}

static bool
body_fails(Request *r, unsigned status, const char *code, const char *message, const char *details)
{
	answer_error(&r->answer, status, code, message, details, NULL);
	return false;
}

/* The members of the body, each for one parameter. */
static bool
read_members(Request *r, const JsonParser *json)
{
	for (uint32_t k = json->nodes[JSON_ROOT].child; k != 0;)
	{
		uint32_t	 v = json->nodes[k].next;
		const Param *p = NULL;
		char		*key = json_text_of(json, k, NULL);
		bool		 ok = true;
		int			 i;

		for (i = 0; key != NULL && i < ROUTE_PARAMS && r->route->param[i].name != NULL; i++)
		{
			if (r->route->param[i].in == IN_BODY && strcmp(r->route->param[i].name, key) == 0)
			{
				p = &r->route->param[i];
				break;
			}
		}
		if (p == NULL)
		{
			char message[200];

			snprintf(message, sizeof(message), "the body has an unknown key \"%.100s\"",
					 key ? key : "");
			ok = body_fails(r, 400, FLS_INVALID, message, NULL);
		}
		else if (r->owned[i] != NULL)
			ok = invalid(r, p->name, "It is given twice.");
		else if (json->nodes[v].type != JSON_NULL)
		{
			r->owned[i] = member_value(r, p, json, v);
			ok = r->owned[i] != NULL;
		}
		free(key);
		if (!ok)
			return false;
		k = json->nodes[v].next;
	}
	return true;
}

/* Of two members with one name the last would count, and nobody would be told. */
static bool
members_differ(Request *r, const JsonParser *json)
{
	const JsonNode *nodes = json->nodes;
	bool			differ = true;

	/* No function takes so many: it names one that it does not know. */
	if (nodes[JSON_ROOT].count > MEMBERS_MOST)
		return true;
	for (uint32_t a = nodes[JSON_ROOT].child; differ && a != 0; a = nodes[nodes[a].next].next)
	{
		size_t n;
		char  *key = json_text_of(json, a, &n);

		for (uint32_t b = nodes[nodes[a].next].next; differ && b != 0;
			 b = nodes[nodes[b].next].next)
		{
			if (json_string_equals(json, &nodes[b], key, (uint32_t) n))
				differ = invalid(r, key, "It is given twice.");
		}
		free(key);
	}
	return differ;
}

static bool
read_body(Request *r)
{
	const Param		 *whole = NULL;
	int				  number = 0;
	const JsonParser *json;
	bool			  any = false;

	for (int i = 0; i < ROUTE_PARAMS && r->route->param[i].name != NULL; i++)
	{
		any = any || r->route->param[i].in == IN_BODY;
		if (r->route->param[i].in == IN_WHOLE_BODY)
		{
			whole = &r->route->param[i];
			number = i;
		}
	}
	/* A GET has none that counts. */
	if (strcmp(r->route->method, "GET") == 0 || (r->body.n == 0 && whole == NULL))
		return true;
	if (r->body.n == 0)
		return body_fails(r, 400, FLS_BAD_REQUEST, "the body is missing", NULL);
	if (!is_json_type(request_header(r, "Content-Type")))
		return body_fails(r, 415, FLS_MEDIA_TYPE, "the body must be JSON",
						  "Its Content-Type must be application/json.");
	if (!is_text(r->body.p, r->body.n))
		return body_fails(r, 400, FLS_BAD_REQUEST, "the body is no UTF-8 text", NULL);
	/* A byte order mark is not one of its characters (RFC 8259, section 8.1). */
	json = strncmp(r->body.p, "\xEF\xBB\xBF", 3) != 0 ? json_read(r->body.p, r->body.n) : NULL;
	if (json == NULL)
		return body_fails(r, 400, FLS_BAD_REQUEST, "the body is no JSON", NULL);
	if (json->nodes[JSON_ROOT].type != JSON_OBJECT)
		return body_fails(r, 400, FLS_BAD_REQUEST, "the body must be an object", NULL);
	if (json->nodes[JSON_ROOT].flags & JSON_F_BAD_DEPTH)
		return body_fails(r, 400, FLS_BAD_REQUEST, "the body is nested too deeply", NULL);
	if (json->nodes[JSON_ROOT].flags & JSON_F_BAD_NUMBER)
		return body_fails(r, 400, FLS_BAD_REQUEST, "the body has a number out of bounds", NULL);
	if (json->nodes[JSON_ROOT].flags & JSON_F_BAD_ESCAPE)
		return body_fails(r, 400, FLS_BAD_REQUEST,
						  "the body has an escape that stands for no character", NULL);
	if (whole != NULL && !members_differ(r, json))
		return false;
	if (whole != NULL)
	{
		r->owned[number] = must_copy_n(r->body.p, r->body.n);
		return true;
	}
	if (!any && json->nodes[JSON_ROOT].count == 0)
		return true;
	return read_members(r, json);
}

static bool
read_query(Request *r)
{
	for (int i = 0; i < r->npairs; i++)
	{
		const Param *p = NULL;
		int			 number;

		for (number = 0; number < ROUTE_PARAMS && r->route->param[number].name != NULL; number++)
		{
			if (r->route->param[number].in == IN_QUERY &&
				strcmp(r->route->param[number].name, r->name[i]) == 0)
			{
				p = &r->route->param[number];
				break;
			}
		}
		if (p == NULL)
		{
			char message[200];

			snprintf(message, sizeof(message), "there is no parameter \"%.100s\"", r->name[i]);
			return body_fails(r, 400, FLS_INVALID, message, NULL);
		}
		if (r->owned[number] != NULL)
			return invalid(r, p->name, "It is given twice.");
		/* An empty one is none, as forms send it. */
		if (r->value[i][0] == '\0' && !p->required)
			continue;
		if (!check_text(r, p, r->value[i], strlen(r->value[i])))
			return false;
		r->owned[number] = must_copy(r->value[i]);
	}
	return true;
}

bool
params_read(Request *r)
{
	int n = 0;

	for (int i = 0; i < ROUTE_PARAMS && r->route->param[i].name != NULL; i++)
	{
		const Param *p = &r->route->param[i];

		if (p->in == IN_PATH)
		{
			const char *value = r->segment[route_segment(r->route, p->name)];

			if (!check_text(r, p, value, strlen(value)))
				return false;
			r->owned[i] = must_copy(value);
		}
	}
	if (r->route->kind == ROUTE_WEBHOOK)
		return true;
	if (!read_query(r) || !read_body(r))
		return false;
	for (int i = 0; i < ROUTE_PARAMS && r->route->param[i].name != NULL; i++)
	{
		const Param *p = &r->route->param[i];

		if (r->owned[i] == NULL && p->required)
		{
			char message[200];

			snprintf(message, sizeof(message), "parameter \"%s\" is missing", p->name);
			return body_fails(r, 400, FLS_INVALID, message, p->about);
		}
		if (p->sql != NULL)
			r->values[n++] = r->owned[i] != NULL ? r->owned[i] : p->initial;
	}
	return true;
}
