/*
 * jwt_claim.c
 *	  Claims of a verified token, by a path.
 *
 * A path is one to eight steps: .name, where the name has letters, digits, "_", "-",
 * "$" and "@"; ."name", where it has any characters but a quote; [n], an element of an
 * array, counted from 0.  Paths come from the configuration, names are compared as they
 * are, byte by byte.
 */
#include "base/standalone.h"

#include "jwt.h"
#include "jwt_private.h"

#define MAX_STEPS  8
#define MAX_NAME   256
#define MAX_DIGITS 3

typedef struct JwtStep
{
	const char *name; /* NULL: it is an element */
	uint32_t	len;
	uint32_t	element;
} JwtStep;

static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		(c != '\0' && strchr("_-$@", c) != NULL);
}

/* p is behind the point; returns what follows the name, or NULL. */
static const char *
path_name(const char *p, JwtStep *step)
{
	const char *end;

	if (*p == '"')
	{
		end = strchr(++p, '"');
		if (end == NULL)
			return NULL;
	}
	else
		for (end = p; is_name_char(*end); end++)
			;
	if (end == p || end - p > MAX_NAME)
		return NULL;
	step->name = p;
	step->len = end - p;
	return *end == '"' ? end + 1 : end;
}

/* p is behind the bracket. */
static const char *
path_element(const char *p, JwtStep *step)
{
	int digits = 0;

	for (; *p >= '0' && *p <= '9' && digits < MAX_DIGITS; p++, digits++)
		step->element = step->element * 10 + (*p - '0');
	return digits > 0 && *p == ']' ? p + 1 : NULL;
}

/* Reads a path; returns how many steps it has, 0 when it is none. */
static int
path_read(const char *path, JwtStep steps[MAX_STEPS])
{
	int n = 0;

	while (*path != '\0')
	{
		JwtStep *step = &steps[n];

		if (n++ == MAX_STEPS)
			return 0;
		memset(step, 0, sizeof(*step));
		path = *path == '.' ? path_name(path + 1, step) :
			*path == '['	? path_element(path + 1, step) :
							  NULL;
		if (path == NULL)
			return 0;
	}
	return n;
}

bool
jwt_path_valid(const char *path)
{
	JwtStep steps[MAX_STEPS];

	return path_read(path, steps) > 0;
}

/* The value at a step; 0: there is none. */
static uint32_t
step_down(const JsonParser *json, uint32_t node, const JwtStep *step)
{
	if (step->name != NULL)
		return json_member(json, node, step->name, step->len);
	if (json->nodes[node].type != JSON_ARRAY)
		return 0;
	node = json->nodes[node].child;
	for (uint32_t i = 0; node != 0 && i < step->element; i++)
		node = json->nodes[node].next;
	return node;
}

static bool
take_string(const JsonParser *json, uint32_t node, JwtStrings *strings)
{
	size_t len;
	char  *text = json->nodes[node].type == JSON_STRING ? json_room_string(json, node, &len) : NULL;

	if (text != NULL)
		strings->values[strings->count++] = text;
	return text != NULL;
}

static bool
take_strings(const JsonParser *json, uint32_t node, JwtStrings *strings)
{
	bool	 is_array = json->nodes[node].type == JSON_ARRAY;
	uint32_t n = is_array ? json->nodes[node].count : 1;
	bool	 good = n <= JWT_MAX_STRINGS;

	strings->values = good ? calloc(n + 1, sizeof(char *)) : NULL;
	if (strings->values == NULL)
		return false;
	if (!is_array)
		return take_string(json, node, strings);
	for (node = json->nodes[node].child; good && node != 0; node = json->nodes[node].next)
		good = take_string(json, node, strings);
	return good;
}

bool
jwt_claim(const JwtClaims *claims, const char *path, JwtStrings *strings)
{
	JsonParser *json = jwt_parser();
	JwtStep		steps[MAX_STEPS];
	int			n = path_read(path, steps);
	uint32_t	node = JSON_ROOT;

	memset(strings, 0, sizeof(*strings));
	if (n == 0 || json == NULL || claims->payload == NULL ||
		!json_room_parse(json, claims->payload, claims->payload_len, JWT_MAX_DEPTH))
		return false;
	for (int i = 0; i < n && node != 0; i++)
		node = step_down(json, node, &steps[i]);
	if (node != 0 && take_strings(json, node, strings))
		return true;
	jwt_strings_free(strings);
	return false;
}

void
jwt_strings_free(JwtStrings *strings)
{
	for (int i = 0; i < strings->count; i++)
		free(strings->values[i]);
	free(strings->values);
	memset(strings, 0, sizeof(*strings));
}
