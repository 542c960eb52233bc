/*
 * definition_values.c
 *	  Values of a definition: each of its type and within its limits, or an error.
 */
#include "postgres.h"

#include "base/compat.h"

#include "mb/pg_wchar.h"

#include "base/clean.h"
#include "json/value.h"
#include "rest/definition.h"

void
definition_error(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the connector's definition cannot be used: %s", clean(what)),
			 errhint("flohsync.validate_definition() lists every fault.")));
}

void
definition_wrong(const char *key, const char *what)
{
	definition_error(psprintf("\"%s\" %s", key, what));
}

/* The beginning of a text, for a message. */
static char *
definition_excerpt(const char *text)
{
	int len = strlen(text);
	int kept = pg_encoding_mbcliplen(PG_UTF8, text, len, DEFINITION_EXCERPT);

	return psprintf("\"%.*s%s\"", kept, text, kept < len ? "…" : "");
}

/* A member that is null is as if it were not there. */
uint32
definition_member(Reader *r, uint32 object, const char *key)
{
	uint32 node;

	if (object == 0 || r->json->nodes[object].type != JSON_OBJECT)
		return 0;
	node = json_member(r->json, object, key, strlen(key));
	return node != 0 && r->json->nodes[node].type == JSON_NULL ? 0 : node;
}

/* A text; NULL when it is absent. */
char *
definition_text(Reader *r, uint32 object, const char *key)
{
	uint32			node = definition_member(r, object, key);
	const JsonNode *value = &r->json->nodes[node];

	if (node == 0)
		return NULL;
	if (value->type != JSON_STRING)
		definition_wrong(key, "is not a string");
	if (value->end - value->start > DEFINITION_MAX_TEXT)
		definition_wrong(key, "is too long");
	return json_value_text(r->json, node);
}

/* A text that names something; NULL when it is absent. */
char *
definition_name(Reader *r, uint32 object, const char *key)
{
	char *name = definition_text(r, object, key);

	if (name != NULL && *name == '\0')
		definition_wrong(key, "is empty");
	return name;
}

/* The name of a header is a token of RFC 9110. */
void
definition_check_header(const char *key, const char *name)
{
	if (*name == '\0' ||
		name[strspn(
			name,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+.^_`|~-")] !=
			'\0')
		definition_wrong(key, "is not the name of a header");
}

char *
definition_header(Reader *r, uint32 object, const char *key)
{
	char *name = definition_text(r, object, key);

	if (name != NULL)
		definition_check_header(key, name);
	return name;
}

/* Which of some words a text is; the first when it is absent. */
int
definition_choice(Reader *r, uint32 object, const char *key, const char *const *words, int n)
{
	char *text = definition_text(r, object, key);

	if (text == NULL)
		return 0;
	for (int i = 0; i < n; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	definition_wrong(key, psprintf("has the unknown value %s", definition_excerpt(text)));
}

/* A part that is an object; 0 when it is absent. */
uint32
definition_object(Reader *r, uint32 object, const char *key)
{
	uint32 node = definition_member(r, object, key);

	if (node != 0 && r->json->nodes[node].type != JSON_OBJECT)
		definition_wrong(key, "is not an object");
	return node;
}

/* A part that is an array of so many values at most; 0 when it is absent. */
uint32
definition_list(Reader *r, uint32 object, const char *key, uint32 most)
{
	uint32 node = definition_member(r, object, key);

	if (node != 0 && r->json->nodes[node].type != JSON_ARRAY)
		definition_wrong(key, "is not an array");
	if (r->json->nodes[node].count > most)
		definition_wrong(key, "has too many elements");
	return node;
}

/* A whole number; 10.0 is one. */
static int64
definition_number(Reader *r, uint32 node, const char *key, int64 min, int64 max)
{
	char *text = r->json->nodes[node].type == JSON_NUMBER ? json_value_text(r->json, node) : NULL;
	char *end = text;
	int64 value = 0;

	if (text != NULL)
	{
		errno = 0;
		value = strtoll(text, &end, 10);
		if (end != text && *end == '.')
			end += 1 + strspn(end + 1, "0");
	}
	if (text == NULL || *end != '\0' || end == text)
		definition_wrong(key, "is not an integer");
	if (errno == ERANGE || value < min || value > max)
		definition_wrong(key, psprintf("is not from " INT64_FORMAT " to " INT64_FORMAT, min, max));
	return value;
}

int64
definition_int(Reader *r, uint32 object, const char *key, int64 min, int64 max, int64 otherwise)
{
	uint32 node = definition_member(r, object, key);

	return node == 0 ? otherwise : definition_number(r, node, key, min, max);
}

bool
definition_bool(Reader *r, uint32 object, const char *key, bool otherwise)
{
	uint32 node = definition_member(r, object, key);

	if (node == 0)
		return otherwise;
	if (r->json->nodes[node].type != JSON_TRUE && r->json->nodes[node].type != JSON_FALSE)
		definition_wrong(key, "is neither true nor false");
	return r->json->nodes[node].type == JSON_TRUE;
}

static bool
definition_allows(TemplatePieceType type, Placeholders allowed)
{
	switch (type)
	{
		case TEMPLATE_LITERAL:
		case TEMPLATE_CONFIG:
			return true;
		case TEMPLATE_SECRET:
			return (allowed & ALLOW_SECRET) != 0;
		case TEMPLATE_SINCE:
		case TEMPLATE_SINCE_EPOCH:
			return (allowed & ALLOW_SINCE) != 0;
		case TEMPLATE_PARENT:
			return (allowed & ALLOW_PARENT) != 0;
		case TEMPLATE_EXTERNAL_ID:
			return (allowed & ALLOW_EXTERNAL_ID) != 0;
	}
	return false;
}

Template *
definition_template_of(const char *text, Placeholders allowed)
{
	Template *t = template_parse(text);

	if (t == NULL)
		definition_error(psprintf("a placeholder in %s is malformed", definition_excerpt(text)));
	for (int i = 0; i < t->npieces; i++)
		if (!definition_allows(t->pieces[i].type, allowed))
			definition_error(
				psprintf("a placeholder in %s is not allowed there", definition_excerpt(text)));
	return t;
}

Template *
definition_template(Reader *r, uint32 object, const char *key, Placeholders allowed)
{
	char *text = definition_text(r, object, key);

	return text ? definition_template_of(text, allowed) : NULL;
}

RestPath *
definition_path_of(const char *text)
{
	RestPath   *path;
	const char *problem;

	if (strlen(text) > DEFINITION_MAX_PATH)
		definition_error(psprintf("the path %s is too long", definition_excerpt(text)));
	path = rest_path_compile(text);
	problem = path->native ? NULL : rest_jsonpath_compile(path);
	if (problem)
		definition_error(psprintf("the path %s: %s", definition_excerpt(text), problem));
	return path;
}

RestPath *
definition_path(Reader *r, uint32 object, const char *key, const char *otherwise)
{
	char *text = definition_text(r, object, key);

	if (text == NULL && otherwise == NULL)
		return NULL;
	return definition_path_of(text ? text : otherwise);
}

RestPaths
definition_paths(Reader *r, uint32 object, const char *key, const char *otherwise)
{
	uint32			node = definition_member(r, object, key);
	RestPaths		paths = {0};
	const JsonNode *nodes = r->json->nodes;

	if (node != 0 && nodes[node].type == JSON_ARRAY)
	{
		definition_list(r, object, key, 10);
		paths.paths = palloc(sizeof(RestPath *) * (nodes[node].count + 1));
		for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
		{
			if (nodes[i].type != JSON_STRING)
				definition_wrong(key, "is not a path");
			paths.paths[paths.n++] = definition_path_of(json_value_text(r->json, i));
		}
		if (paths.n == 0)
			definition_wrong(key, "is empty");
	}
	else if (node != 0 || otherwise != NULL)
	{
		paths.paths = palloc(sizeof(RestPath *));
		paths.paths[paths.n++] = definition_path(r, object, key, otherwise);
	}
	return paths;
}

/* Names and values; only_texts: a number or boolean is none. */
RestParams
definition_params(Reader *r, uint32 object, const char *key, uint32 most, bool only_texts,
				  Placeholders allowed)
{
	uint32			node = definition_object(r, object, key);
	const JsonNode *nodes = r->json->nodes;
	RestParams		list = {0};

	if (node == 0)
		return list;
	if (nodes[node].count > most)
		definition_wrong(key, "has too many members");
	list.params = palloc0(sizeof(RestParam) * (nodes[node].count + 1));
	for (uint32 i = nodes[node].child; i != 0; i = nodes[nodes[i].next].next)
	{
		RestParam *param = &list.params[list.n];
		uint32	   value = nodes[i].next;
		char	  *text = json_value_text(r->json, value);

		if (nodes[value].type == JSON_NULL)
			continue;
		param->name = json_value_text(r->json, i);
		if (param->name == NULL || *param->name == '\0' || text == NULL ||
			(only_texts && nodes[value].type != JSON_STRING) ||
			nodes[value].end - nodes[value].start > DEFINITION_MAX_TEXT)
			definition_wrong(key, "has an invalid member");
		if (nodes[value].type == JSON_STRING)
			param->value = definition_template_of(text, allowed);
		else
			param->fixed = text;
		list.n++;
	}
	return list;
}

int *
definition_statuses(Reader *r, uint32 object, const char *key, int min, int *n,
					const int *otherwise, int notherwise)
{
	uint32			node = definition_list(r, object, key, 50);
	const JsonNode *nodes = r->json->nodes;
	int			   *list;

	if (node == 0)
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
		list[(*n)++] = (int) definition_number(r, i, key, min, 599);
	return list;
}
