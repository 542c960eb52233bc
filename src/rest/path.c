/*
 * path.c
 *	  The common part of jsonpath, evaluated on the tree that json.c makes.
 *
 * A path of members, [n], [*] and filters that compare with == is walked here,
 * for then an answer need not be turned into jsonb; any other path is left to
 * PostgreSQL (native is false).  What is found must be what PostgreSQL finds,
 * in lax mode: a member of an array is that of its elements, one level deep,
 * and what is no array stands for an array of one.
 *
 * Filters know true and not true: without a negation, "unknown" is the latter.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "rest/path.h"

#define PATH_MAX_STEPS		32
#define PATH_MAX_CONDITIONS 8 /* in parentheses within each other */

typedef enum ConditionType
{
	CONDITION_AND,
	CONDITION_OR,
	CONDITION_EQUAL
} ConditionType;

typedef struct RestCondition
{
	ConditionType		  type;
	struct RestCondition *left;
	struct RestCondition *right;
	RestPath			  path;	   /* of CONDITION_EQUAL, from the item */
	JsonType			  literal; /* JSON_TRUE, JSON_FALSE, JSON_NULL or JSON_STRING */
	char				 *text;
	uint32_t			  len;
} RestCondition;

static const char *
path_space(const char *p)
{
	while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
		p++;
	return p;
}

static bool
path_is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static char *
path_copy(const char *data, size_t len)
{
	char *copy = palloc(len + 1);

	memcpy(copy, data, len);
	copy[len] = '\0';
	return copy;
}

/* p is at a quote; a text with escapes is not ours.  Returns what follows, NULL: not native. */
static const char *
path_quoted(const char *p, char **text, uint32_t *len)
{
	const char *start = ++p;

	while (*p != '"')
	{
		if (*p == '\0' || *p == '\\')
			return NULL;
		p++;
	}
	*len = p - start;
	*text = path_copy(start, *len);
	return p + 1;
}

static const char *path_condition(const char *p, RestCondition **condition, int depth);

/* Reads steps up to what is none; returns what follows, NULL: not native. */
static const char *
path_steps(const char *p, RestPath *path, int depth)
{
	path->steps = palloc0(sizeof(RestStep) * PATH_MAX_STEPS);
	path->native = true;
	for (;;)
	{
		RestStep   *step = &path->steps[path->nsteps];
		const char *start;

		p = path_space(p);
		if (*p != '.' && *p != '[' && *p != '?')
			return p;
		if (path->nsteps == PATH_MAX_STEPS)
			return NULL;
		if (*p == '.')
		{
			step->type = REST_STEP_MEMBER;
			p = path_space(p + 1);
			if (*p == '"')
				p = path_quoted(p, &step->name, &step->len);
			else
			{
				start = p;
				/* A digit would begin a number, another character mean something else. */
				if (*p >= '0' && *p <= '9')
					return NULL;
				while (path_is_word(*p))
					p++;
				step->len = p - start;
				step->name = path_copy(start, step->len);
				if (step->len == 0 || *path_space(p) == '(')
					return NULL;
				if (*p != '\0' && strchr(" \t\r\n.[]?()=&|", *p) == NULL)
					return NULL;
			}
			if (p == NULL)
				return NULL;
		}
		else if (*p == '[')
		{
			p = path_space(p + 1);
			if (*p == '*')
			{
				step->type = REST_STEP_ELEMENTS;
				p++;
			}
			else
			{
				step->type = REST_STEP_INDEX;
				start = p;
				while (*p >= '0' && *p <= '9' && p - start < 9)
					step->index = step->index * 10 + (*p++ - '0');
				/* 00 and 0x1 are read differently from version to version. */
				if (p == start || (*start == '0' && p - start > 1))
					return NULL;
			}
			p = path_space(p);
			if (*p++ != ']')
				return NULL;
		}
		else
		{
			step->type = REST_STEP_FILTER;
			p = path_space(p + 1);
			if (depth >= PATH_MAX_CONDITIONS || *p++ != '(')
				return NULL;
			p = path_condition(p, &step->condition, depth + 1);
			if (p == NULL || *(p = path_space(p)) != ')')
				return NULL;
			p++;
		}
		path->nsteps++;
	}
}

static const char *
path_literal(const char *p, RestCondition *condition)
{
	static const struct
	{
		const char *word;
		JsonType	type;
	} words[] = {{"true", JSON_TRUE}, {"false", JSON_FALSE}, {"null", JSON_NULL}};

	if (*p == '"')
	{
		condition->literal = JSON_STRING;
		return path_quoted(p, &condition->text, &condition->len);
	}
	for (size_t i = 0; i < lengthof(words); i++)
	{
		size_t n = strlen(words[i].word);

		if (strncmp(p, words[i].word, n) == 0 && !path_is_word(p[n]))
		{
			condition->literal = words[i].type;
			return p + n;
		}
	}
	return NULL;
}

/* "@… == literal", or a condition in parentheses. */
static const char *
path_comparison(const char *p, RestCondition **condition, int depth)
{
	RestCondition *c;

	p = path_space(p);
	if (*p == '(')
	{
		if (depth >= PATH_MAX_CONDITIONS)
			return NULL;
		p = path_condition(p + 1, condition, depth + 1);
		if (p == NULL || *(p = path_space(p)) != ')')
			return NULL;
		return p + 1;
	}
	if (*p != '@')
		return NULL;
	c = *condition = palloc0(sizeof(RestCondition));
	c->type = CONDITION_EQUAL;
	p = path_steps(p + 1, &c->path, depth);
	if (p == NULL || p[0] != '=' || p[1] != '=')
		return NULL;
	return path_literal(path_space(p + 2), c);
}

/* Comparisons joined by one operator; && binds before ||. */
static const char *
path_joined(const char *p, RestCondition **condition, char op, int depth)
{
	for (RestCondition *left = NULL;;)
	{
		RestCondition *c = NULL;

		p = op == '|' ? path_joined(p, &c, '&', depth) : path_comparison(p, &c, depth);
		if (p == NULL)
			return NULL;
		if (left)
		{
			RestCondition *both = palloc0(sizeof(RestCondition));

			both->type = op == '|' ? CONDITION_OR : CONDITION_AND;
			both->left = left;
			both->right = c;
			c = both;
		}
		left = *condition = c;
		p = path_space(p);
		if (p[0] != op || p[1] != op)
			return p;
		p += 2;
	}
}

static const char *
path_condition(const char *p, RestCondition **condition, int depth)
{
	return path_joined(p, condition, '|', depth);
}

/* rest_path_compile reads a path that is known to be a jsonpath. */
RestPath *
rest_path_compile(const char *text)
{
	RestPath   *path = palloc0(sizeof(RestPath));
	const char *p = path_space(text);

	path->text = path_copy(text, strlen(text));
	bool strict = strncmp(p, "strict", 6) == 0 && !path_is_word(p[6]);

	if (strict)
		p = path_space(p + 6);
	else if (strncmp(p, "lax", 3) == 0 && !path_is_word(p[3]))
		p = path_space(p + 3);
	if (*p != '$' || path_is_word(p[1]) || p[1] == '"')
		return path;
	p = path_steps(p + 1, path, 0);
	path->native = p != NULL && *p == '\0' && !strict;
	return path;
}

/*
 * rest_path_list is how many steps of a path lead to the list that it takes
 * items from: those before the last [*], or else before what first chooses among
 * items.  A path that is not native has its steps up to what is not understood.
 */
int
rest_path_list(const RestPath *path, bool *array)
{
	int first = path->nsteps;

	*array = true;
	for (int i = path->nsteps - 1; i >= 0; i--)
		if (path->steps[i].type == REST_STEP_ELEMENTS)
			return i;
		else if (path->steps[i].type != REST_STEP_MEMBER)
			first = i;
	*array = false;
	return first;
}

static bool path_walk(const RestStep *step, int n, const JsonParser *json, uint32_t node,
					  bool unwrap, RestVisitor visitor, void *arg);

typedef struct Comparison
{
	const JsonParser	*json;
	const RestCondition *condition;
} Comparison;

static bool
path_item_equals(const JsonParser *json, const RestCondition *condition, uint32_t node)
{
	const JsonNode *item = &json->nodes[node];

	return item->type == condition->literal &&
		(item->type != JSON_STRING ||
		 json_string_equals(json, item, condition->text, condition->len));
}

/* An operand that is an array stands for its elements. */
static bool
path_operand_equals(void *arg, uint32_t node)
{
	Comparison *c = arg;

	if (c->json->nodes[node].type != JSON_ARRAY)
		return path_item_equals(c->json, c->condition, node);
	for (uint32_t i = c->json->nodes[node].child; i != 0; i = c->json->nodes[i].next)
		if (path_item_equals(c->json, c->condition, i))
			return true;
	return false;
}

static bool
path_holds(const RestCondition *condition, const JsonParser *json, uint32_t node)
{
	Comparison c = {json, condition};

	switch (condition->type)
	{
		case CONDITION_AND:
			return path_holds(condition->left, json, node) &&
				path_holds(condition->right, json, node);
		case CONDITION_OR:
			return path_holds(condition->left, json, node) ||
				path_holds(condition->right, json, node);
		default:
			return path_walk(condition->path.steps, condition->path.nsteps, json, node, true,
							 path_operand_equals, &c);
	}
}

static bool
path_walk(const RestStep *step, int n, const JsonParser *json, uint32_t node, bool unwrap,
		  RestVisitor visitor, void *arg)
{
	const JsonNode *nodes = json->nodes;

	for (;; step++, n--, unwrap = true)
	{
		uint32_t i;

		if (n == 0)
			return visitor(arg, node);
		switch (step->type)
		{
			case REST_STEP_MEMBER:
				if (nodes[node].type == JSON_ARRAY && unwrap)
					goto elements;
				if (nodes[node].type != JSON_OBJECT)
					return false;
				node = json_member(json, node, step->name, step->len);
				if (node == 0)
					return false;
				continue;
			case REST_STEP_FILTER:
				if (nodes[node].type == JSON_ARRAY && unwrap)
					goto elements;
				if (!path_holds(step->condition, json, node))
					return false;
				continue;
			case REST_STEP_INDEX:
				if (nodes[node].type != JSON_ARRAY)
				{
					if (step->index != 0)
						return false;
					continue;
				}
				i = nodes[node].child;
				for (uint32_t k = 0; k < step->index && i != 0; k++)
					i = nodes[i].next;
				if (i == 0)
					return false;
				node = i;
				continue;
			case REST_STEP_ELEMENTS:
				if (nodes[node].type != JSON_ARRAY)
					continue;
				for (i = nodes[node].child; i != 0; i = nodes[i].next)
					if (path_walk(step + 1, n - 1, json, i, true, visitor, arg))
						return true;
				return false;
		}
elements:
		for (i = nodes[node].child; i != 0; i = nodes[i].next)
			if (path_walk(step, n, json, i, false, visitor, arg))
				return true;
		return false;
	}
}

/*
 * rest_path_walk shows all items that the first steps of a native path find; true when a
 * visitor ended it.
 */
bool
rest_path_walk(const RestPath *path, int nsteps, const JsonParser *json, uint32_t node,
			   RestVisitor visitor, void *arg)
{
	return path_walk(path->steps, nsteps, json, node, true, visitor, arg);
}

typedef struct First
{
	const JsonParser *json;
	uint32_t		  node;
	bool			  full; /* an empty text does not count */
	bool			  found;
} First;

static bool
path_first_item(void *arg, uint32_t node)
{
	First *first = arg;

	first->found = true;
	if (first->json->nodes[node].type == JSON_NULL ||
		(first->full && first->json->nodes[node].type == JSON_STRING &&
		 first->json->nodes[node].end - first->json->nodes[node].start == 2))
		return false;
	first->node = node;
	return true;
}

/*
 * rest_path_first is the first item that a native path finds and that is not
 * null (nor, if full, an empty text), 0 when there is none; found tells whether
 * there was any at all.
 */
uint32_t
rest_path_first(const RestPath *path, const JsonParser *json, uint32_t node, bool full, bool *found)
{
	First first = {json, 0, full, false};

	path_walk(path->steps, path->nsteps, json, node, true, path_first_item, &first);
	*found = first.found;
	return first.node;
}
