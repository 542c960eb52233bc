/*
 * openapi.c
 *	  GET /openapi.json: the description of all routes (OpenAPI 3.1), made from the
 *	  table of routes and the schemas in openapi_schemas.json.
 */
#include "openapi.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "request.h"
#include "routes.h"

/* openapi_schemas.json, by the linker. */
extern const char openapi_schemas_start[] __asm__("_binary_openapi_schemas_json_start");
extern const char openapi_schemas_end[] __asm__("_binary_openapi_schemas_json_end");

/* What events carry, for who reads the document. */
#define EVENTS_ABOUT \
	",\"description\":\"Server-sent events: `run` (data: Progress), `run-end` (data: Run, id: for " \
	"Last-Event-ID), `match-stats` (data: MatchStats)\""

static Buf	document;
static char etag[40];

static const char *
json_type(ParamType type)
{
	switch (type)
	{
		case PARAM_INT:
			return "\"type\":\"integer\",\"format\":\"int32\",\"minimum\":1";
		case PARAM_BIGINT:
			return "\"type\":\"integer\",\"format\":\"int64\",\"minimum\":1";
		case PARAM_BOOL:
			return "\"type\":\"boolean\"";
		case PARAM_UUID:
			return "\"type\":\"string\",\"format\":\"uuid\"";
		case PARAM_UUIDS:
			return "\"type\":\"array\",\"minItems\":1,\"maxItems\":10000,"
				   "\"items\":{\"type\":\"string\",\"format\":\"uuid\"}";
		case PARAM_OBJECT:
			return "\"type\":\"object\",\"additionalProperties\":true";
		case PARAM_TEXT:
			return "\"type\":\"string\"";
		case PARAM_JSON:
			break;
	}
	return "\"description\":\"Any JSON\"";
}

static void
add_schema(Buf *b, const Param *p)
{
	buf_printf(b, "{%s", json_type(p->type));
	if (p->most > 0)
		buf_printf(b, ",\"maximum\":%d", p->most);
	if (p->values != NULL)
	{
		const char *sep = "";

		buf_text(b, ",\"enum\":[");
		for (const char *v = p->values; *v != '\0'; v += strspn(v, " "))
		{
			size_t n = strcspn(v, " ");

			buf_text(b, sep);
			buf_json(b, v, n);
			sep = ",";
			v += n;
		}
		buf_char(b, ']');
	}
	if (p->initial != NULL)
	{
		buf_text(b, ",\"default\":");
		if (p->type == PARAM_TEXT)
			buf_json_text(b, p->initial);
		else
			buf_text(b, p->initial);
	}
	buf_char(b, '}');
}

static void
add_parameters(Buf *b, const Route *r)
{
	const char *sep = "";

	buf_text(b, "\"parameters\":[");
	for (int i = 0; i < ROUTE_PARAMS && r->param[i].name != NULL; i++)
	{
		const Param *p = &r->param[i];

		if (p->in != IN_PATH && p->in != IN_QUERY)
			continue;
		buf_printf(b, "%s{\"name\":\"%s\",\"in\":\"%s\",\"required\":%s,\"description\":", sep,
				   p->name, p->in == IN_PATH ? "path" : "query", p->required ? "true" : "false");
		buf_json_text(b, p->about);
		buf_text(b, ",\"schema\":");
		add_schema(b, p);
		buf_char(b, '}');
		sep = ",";
	}
	if (r->other != NULL && strstr(r->other, "304") != NULL)
	{
		buf_printf(b, "%s{\"$ref\":\"#/components/parameters/IfNoneMatch\"}", sep);
		sep = ",";
	}
	if (strcmp(r->method, "PUT") == 0 && r->answer != NULL)
	{
		buf_printf(b, "%s{\"$ref\":\"#/components/parameters/IfMatch\"}", sep);
		sep = ",";
	}
	if (r->kind == ROUTE_EVENTS)
		buf_printf(b, "%s{\"$ref\":\"#/components/parameters/LastEventId\"}", sep);
	buf_char(b, ']');
}

static void
add_body(Buf *b, const Route *r)
{
	bool		any = false;
	bool		required = false;
	const char *sep = "";

	if (r->kind == ROUTE_WEBHOOK && strcmp(r->method, "POST") == 0)
	{
		buf_text(
			b,
			",\"requestBody\":{\"required\":true,\"content\":{\"application/json\":{\"schema\":"
			"{\"description\":\"What the sender says\"}}}}");
		return;
	}
	for (int i = 0; i < ROUTE_PARAMS && r->param[i].name != NULL; i++)
	{
		const Param *p = &r->param[i];

		if (p->in == IN_WHOLE_BODY)
		{
			buf_text(b, ",\"requestBody\":{\"required\":true,\"description\":");
			buf_json_text(b, p->about);
			/* The settings have a schema of their own. */
			buf_printf(
				b,
				",\"content\":{\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}}}",
				strcmp(p->name, "settings") == 0	? "SyncSettings" :
					strcmp(p->name, "changes") == 0 ? "ConnectorChanges" :
													  "Definition");
			return;
		}
		any = any || p->in == IN_BODY;
		required = required || (p->in == IN_BODY && p->required);
	}
	if (!any)
		return;
	buf_printf(b,
			   ",\"requestBody\":{\"required\":%s,\"content\":{\"application/json\":{\"schema\":"
			   "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{",
			   required ? "true" : "false");
	for (int i = 0; i < ROUTE_PARAMS && r->param[i].name != NULL; i++)
	{
		const Param *p = &r->param[i];

		if (p->in != IN_BODY)
			continue;
		buf_printf(b, "%s\"%s\":{\"description\":", sep, p->name);
		buf_json_text(b, p->about);
		/* null is as good as nothing. */
		if (p->required)
		{
			Buf schema = {0};

			add_schema(&schema, p);
			buf_char(b, ',');
			buf_add(b, schema.p + 1, schema.n - 1);
			buf_free(&schema);
		}
		else
		{
			buf_text(b, ",\"anyOf\":[");
			add_schema(b, p);
			buf_text(b, ",{\"type\":\"null\"}]}");
		}
		sep = ",";
	}
	buf_char(b, '}');
	sep = ",\"required\":[";
	for (int i = 0; i < ROUTE_PARAMS && r->param[i].name != NULL; i++)
	{
		if (r->param[i].in == IN_BODY && r->param[i].required)
		{
			buf_printf(b, "%s\"%s\"", sep, r->param[i].name);
			sep = ",";
		}
	}
	if (required)
		buf_char(b, ']');
	buf_text(b, "}}}}");
}

static const char *
reason(const char *status)
{
	static const char *const reasons[][2] = {
		{"200", "Done"},
		{"201", "Created"},
		{"202", "Accepted: it goes on"},
		{"204", "Done; there is nothing to say"},
		{"304", "As it was: the ETag fits"},
		{"409", "A run is under way, or was cancelled"},
		{"502", "The run failed"},
		{"503", "Not now"},
	};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
	{
		if (strcmp(reasons[i][0], status) == 0)
			return reasons[i][1];
	}
	return "Done";
}

static void
add_header_ref(Buf *b, const char *name, const char *component)
{
	buf_printf(b, ",\"%s\":{\"$ref\":\"#/components/headers/%s\"}", name, component);
}

/* The schema of an answer. */
static const char *
schema_of(const Route *r, const char *status)
{
	if (strcmp(status, "409") == 0 || strcmp(status, "502") == 0)
		return "RunError";
	if (r->kind == ROUTE_TRIGGER && strcmp(status, "202") == 0)
		return "TriggerAccepted";
	return r->answer;
}

static void
add_response(Buf *b, const Route *r, const char *status, const char *sep)
{
	bool has_etag = (r->other != NULL && strstr(r->other, "304") != NULL) ||
		strcmp(status, "201") == 0 || (strcmp(r->method, "PUT") == 0 && r->answer != NULL);

	buf_printf(b, "%s\"%s\":{\"description\":", sep, status);
	buf_json_text(b, reason(status));
	buf_text(b, ",\"headers\":{\"X-Request-Id\":{\"$ref\":\"#/components/headers/RequestId\"}");
	if (has_etag)
		add_header_ref(b, "ETag", "ETag");
	if (strcmp(status, "201") == 0 || strcmp(status, "202") == 0)
		add_header_ref(b, "Location", "Location");
	if (strcmp(status, "503") == 0)
		add_header_ref(b, "Retry-After", "RetryAfter");
	buf_char(b, '}');
	if (r->answer != NULL && strcmp(status, "204") != 0 && strcmp(status, "304") != 0)
	{
		buf_text(b, ",\"content\":{");
		if (strchr(r->answer, '/') != NULL)
			buf_printf(b, "\"%s\":{\"schema\":{\"type\":\"string\"%s}}", r->answer,
					   r->kind == ROUTE_EVENTS ? EVENTS_ABOUT : "");
		else
			buf_printf(b,
					   "\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}",
					   schema_of(r, status));
		/* Some senders want a word of their own back. */
		if (r->kind == ROUTE_WEBHOOK && strcmp(r->method, "POST") == 0)
			buf_text(b, ",\"text/plain\":{\"schema\":{\"type\":\"string\"}}");
		buf_char(b, '}');
	}
	buf_char(b, '}');
}

static void
add_responses(Buf *b, const Route *r)
{
	char		first[8];
	const char *other = r->other != NULL ? r->other : "";

	snprintf(first, sizeof(first), "%d", r->status);
	buf_text(b, ",\"responses\":{");
	add_response(b, r, first, "");
	for (const char *p = other; *p != '\0'; p += strspn(p, " "))
	{
		char status[8];

		snprintf(status, sizeof(status), "%.*s", (int) strcspn(p, " "), p);
		add_response(b, r, status, ",");
		p += strcspn(p, " ");
	}
	buf_text(b, ",\"default\":{\"$ref\":\"#/components/responses/Error\"}}");
}

static void
add_operation(Buf *b, const Route *r, const char *sep)
{
	char method[8] = "";
	char id[64];

	for (int i = 0; r->method[i] != '\0' && i < 7; i++)
		method[i] = (char) (r->method[i] + 32);
	snprintf(id, sizeof(id), "%s",
			 r->function != NULL ? r->function : r->path + 1 + 4 * (r->path[1] == 'a'));
	id[strcspn(id, "./{")] = '\0';
	buf_printf(b, "%s\"%s\":{\"operationId\":\"%s%s\",\"summary\":", sep, method, id,
			   r->kind == ROUTE_WEBHOOK && strcmp(r->method, "GET") == 0 ? "_verification" :
				   strcmp(r->path, "/api/runs") == 0					 ? "_of_all" :
																		   "");
	buf_json_text(b, r->summary);
	buf_printf(b, ",\"tags\":[\"%s\"],",
			   strncmp(r->path, "/api/connectors", 15) == 0 ? strstr(r->path, "/resources") ?
															  "records" :
					   strstr(r->path, "/sync-config")	? "configurations" :
					   strstr(r->path, "/runs")			? "runs" :
					   strstr(r->path, "/sync-matches") ? "matches" :
														  "connectors" :
				   r->kind == ROUTE_WEBHOOK					? "webhooks" :
				   strncmp(r->path, "/api/", 5) == 0		? "everything" :
															  "server");
	if (r->permission == FOR_ALL || r->permission == FOR_SENDERS)
		buf_text(b, "\"security\":[],");
	else
		buf_printf(b, "\"x-permission\":\"connector:%s\",\"security\":[{\"token\":[]}%s],",
				   r->permission == FOR_MANAGERS ? "manage" : "read",
				   r->permission == FOR_METRICS ? ",{}" : "");
	add_parameters(b, r);
	add_body(b, r);
	add_responses(b, r);
	buf_char(b, '}');
}

static void
add_paths(Buf *b)
{
	const char *sep = "";

	for (int i = 0; i < nroutes; i++)
	{
		bool		before = false;
		const char *operation_sep = "";

		for (int j = 0; j < i; j++)
			before = before || strcmp(routes[j].path, routes[i].path) == 0;
		if (before)
			continue;
		buf_printf(b, "%s\"%s\":{", sep, routes[i].path);
		for (int j = i; j < nroutes; j++)
		{
			if (strcmp(routes[j].path, routes[i].path) == 0)
			{
				add_operation(b, &routes[j], operation_sep);
				operation_sep = ",";
			}
		}
		buf_char(b, '}');
		sep = ",";
	}
}

void
openapi_make(void)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];

	document.n = 0;
	buf_text(
		&document,
		"{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"flohsync\",\"version\":\"" FLOHSYNC_VERSION
		"\",\"description\":\"A local, trustworthy copy of upstream directories\","
		"\"license\":{\"name\":\"PostgreSQL License\",\"identifier\":\"PostgreSQL\"}},"
		"\"servers\":[{\"url\":");
	buf_json_text(&document, config->public_url != NULL ? config->public_url : "/");
	buf_text(&document, "}],\"security\":[{\"token\":[]}],\"paths\":{");
	add_paths(&document);
	buf_text(&document, "},\"components\":");
	buf_add(&document, openapi_schemas_start, openapi_schemas_end - openapi_schemas_start);
	while (document.n > 0 &&
		   (document.p[document.n - 1] == '\n' || document.p[document.n - 1] == ' '))
		document.n--;
	buf_char(&document, '}');
	SHA256((const unsigned char *) document.p, document.n, hash);
	etag[0] = '"';
	for (int i = 0; i < 16; i++)
		snprintf(etag + 1 + 2 * i, sizeof(etag) - 1 - 2 * i, "%02x", hash[i]);
	strcat(etag, "\"");
}

void
openapi_run(Request *r)
{
	r->answer.status = 200;
	/* A reload may make another one while this one is being sent. */
	buf_add(&r->answer.body, document.p, document.n);
	answer_header(&r->answer, "ETag", etag);
}

void
openapi_print(FILE *out)
{
	fwrite(document.p, 1, document.n, out);
	fputc('\n', out);
}
