/*
 * routes.c
 *	  Finding the route of a request, and what its function of SQL is called with.
 *	  The routes are in route_table.c.
 */
#include "routes.h"

#include <string.h>

#include "buf.h"

static DbStatement statements[DB_STATEMENTS];

/* The segments of a pattern, NUL-terminated one by one. */
typedef struct Pattern
{
	char *segment[ROUTE_SEGMENTS];
	int	  n;
} Pattern;

static Pattern patterns[DB_STATEMENTS];

static const char *
sql_type(ParamType type)
{
	switch (type)
	{
		case PARAM_TEXT:
			return "text";
		case PARAM_INT:
			return "int4";
		case PARAM_BIGINT:
			return "int8";
		case PARAM_BOOL:
			return "bool";
		case PARAM_UUID:
			return "uuid";
		case PARAM_UUIDS:
			return "uuid[]";
		default:
			return "jsonb";
	}
}

static void
make_statement(const Route *r, DbStatement *st, int id)
{
	Buf sql = {0};

	if (r->function == NULL)
		return;
	st->id = id;
	if (r->kind == ROUTE_WEBHOOK)
	{
		st->nparams = 5;
		st->sql =
			"SELECT flohsync_api.webhook(connector => $1::text, method => $2::text, query => $3::jsonb, "
			"headers => $4::jsonb, body => $5::bytea)::text, NULL, NULL";
		return;
	}
	buf_printf(&sql, "SELECT flohsync_api.%s(", r->function);
	for (int i = 0; i < ROUTE_PARAMS && r->param[i].name != NULL; i++)
	{
		const Param *p = &r->param[i];

		if (p->sql == NULL)
			continue;
		buf_printf(&sql, "%s%s => $%d::%s", st->nparams > 0 ? ", " : "", p->sql, st->nparams + 1,
				   sql_type(p->type));
		st->nparams++;
	}
	buf_text(&sql,
			 ")::text, pg_catalog.current_setting('response.status', true), "
			 "pg_catalog.current_setting('response.headers', true)");
	st->sql = buf_take(&sql);
}

void
routes_start(void)
{
	for (int i = 0; i < nroutes; i++)
	{
		char *path = must_copy(routes[i].path);
		char *rest = NULL;

		for (char *s = strtok_r(path, "/", &rest); s != NULL && patterns[i].n < ROUTE_SEGMENTS;
			 s = strtok_r(NULL, "/", &rest))
			patterns[i].segment[patterns[i].n++] = s;
		make_statement(&routes[i], &statements[i], i);
	}
}

const DbStatement *
route_statement(const Route *route)
{
	return &statements[route - routes];
}

static bool
pattern_fits(const Pattern *p, char *const *segment, int n)
{
	if (p->n != n)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (p->segment[i][0] == '{' ? segment[i][0] == '\0' :
									  strcmp(p->segment[i], segment[i]) != 0)
			return false;
	}
	return true;
}

static void
allow_add(char allow[64], const char *method)
{
	size_t n = strlen(allow);

	if (strstr(allow, method) == NULL)
		snprintf(allow + n, 64 - n, "%s%s", n > 0 ? ", " : "", method);
}

/* Literal segments come before parameters in the table, so the first that fits is meant. */
const Route *
routes_find(const char *method, char *const *segment, int n, char allow[64])
{
	bool head = strcmp(method, "HEAD") == 0;

	allow[0] = '\0';
	for (int i = 0; i < nroutes; i++)
	{
		if (!pattern_fits(&patterns[i], segment, n))
			continue;
		if (strcmp(routes[i].method, head ? "GET" : method) == 0)
			return &routes[i];
		allow_add(allow, routes[i].method);
		if (strcmp(routes[i].method, "GET") == 0)
			allow_add(allow, "HEAD");
	}
	return NULL;
}

int
route_segment(const Route *route, const char *name)
{
	const Pattern *p = &patterns[route - routes];
	size_t		   n = strlen(name);

	for (int i = 0; i < p->n; i++)
	{
		if (p->segment[i][0] == '{' && strncmp(p->segment[i] + 1, name, n) == 0 &&
			p->segment[i][n + 1] == '}')
			return i;
	}
	return -1;
}

void
routes_print(FILE *out)
{
	static const char *const who[] = {"all", "see `metrics`", "read", "manage", "signature"};

	fputs("| Method | Path | Permission | | Parameters |\n|---|---|---|---|---|\n", out);
	for (int i = 0; i < nroutes; i++)
	{
		const Route *r = &routes[i];
		const char	*sep = "";

		fprintf(out, "| %s | `%s` | %s | %s | ", r->method, r->path, who[r->permission],
				r->summary);
		for (int j = 0; j < ROUTE_PARAMS && r->param[j].name != NULL; j++)
		{
			const Param *p = &r->param[j];

			if (p->in == IN_PATH)
				continue;
			fprintf(out, "%s%s`%s`%s", sep, p->in == IN_QUERY ? "?" : "", p->name,
					p->in == IN_WHOLE_BODY ? " (the body)" : "");
			sep = ", ";
		}
		fputs(" |\n", out);
	}
}
