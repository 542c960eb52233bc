/*
 * routes.c
 *	  The table of routes: what there is, who may use it, and which function of SQL
 *	  answers it.
 *
 * Dispatch, the reading of parameters, the OpenAPI document and the table in
 * doc/http.md all come from here.  A route is added by a row, its function in
 * sql/85_api.sql, and the schema of its answer in openapi_schemas.json.
 */
#include "routes.h"

#include <string.h>

#include "buf.h"

#define CONNECTOR \
	{ \
		"id", "connector", IN_PATH, PARAM_TEXT, true, NULL, 0, NULL, "Id or name of the connector" \
	}
#define TYPE \
	{ \
		"type", "resource_type", IN_PATH, PARAM_TEXT, true, NULL, 0, NULL, \
			"Resource type, such as `user`" \
	}
#define RUN \
	{ \
		"runId", "run_id", IN_PATH, PARAM_BIGINT, true, NULL, 0, NULL, "Id of the run" \
	}
#define PAGE \
	{"page", "page", IN_QUERY, PARAM_INT, false, "1", 0, NULL, "Number of the page, from 1"}, \
	{ \
		"pageSize", "page_size", IN_QUERY, PARAM_INT, false, "50", 2000, NULL, "Items of a page" \
	}
#define QUERY(name, sql, about) \
	{ \
		name, sql, IN_QUERY, PARAM_TEXT, false, NULL, 0, NULL, about \
	}
#define SEARCH \
	QUERY("search", "search", \
		  "Only what has this text in its id, e-mail address or name, ignoring case")
#define NOTES \
	{ \
		"notes", "notes", IN_BODY, PARAM_TEXT, false, NULL, 0, NULL, "Why, for the record" \
	}
#define STRATEGY \
	{ \
		"strategy", "strategy", IN_BODY, PARAM_TEXT, false, NULL, 0, "full incremental", \
			"Instead of that of the configuration" \
	}
#define RUN_STATUSES "queued running success error held cancelled"

#define API "/api/connectors"
#define ONE API "/{id}"

const Route routes[] = {
	{"GET",
	 API,
	 FOR_READERS,
	 ROUTE_CALL,
	 "connectors",
	 DB_READ,
	 200,
	 NULL,
	 "ConnectorPage",
	 "List connectors",
	 0,
	 {SEARCH, PAGE}},
	{"POST",
	 API,
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "create_connector",
	 DB_WRITE,
	 201,
	 NULL,
	 "Connector",
	 "Create a connector",
	 0,
	 {{"name", "name", IN_BODY, PARAM_TEXT, true, NULL, 0, NULL, "Its name"},
	  {"kind", "kind", IN_BODY, PARAM_TEXT, true, NULL, 0, NULL, "`command`, `rest` or `sql`"},
	  {"config", "config", IN_BODY, PARAM_OBJECT, false, "{}", 0, NULL, "Settings of its kind"},
	  {"definition", "definition", IN_BODY, PARAM_OBJECT, false, NULL, 0, NULL,
	   "How its lists are read (kind `rest`)"},
	  {"description", "description", IN_BODY, PARAM_TEXT, false, NULL, 0, NULL, "What it is for"},
	  {"enabled", "enabled", IN_BODY, PARAM_BOOL, false, NULL, 0, NULL,
	   "Whether its schedules run (true)"}}},
	{"GET",
	 API "/templates",
	 FOR_READERS,
	 ROUTE_CALL,
	 "templates",
	 DB_READ,
	 200,
	 NULL,
	 "Templates",
	 "List templates of connectors",
	 0,
	 {{0}}},
	{"POST",
	 API "/validate-definition",
	 FOR_READERS,
	 ROUTE_CALL,
	 "validate_definition",
	 DB_READ,
	 200,
	 NULL,
	 "Faults",
	 "Find the faults of a definition",
	 0,
	 {{"definition", "definition", IN_WHOLE_BODY, PARAM_OBJECT, true, NULL, 0, NULL,
	   "The definition"}}},
	{"GET",
	 ONE,
	 FOR_READERS,
	 ROUTE_CALL,
	 "connector",
	 DB_READ,
	 200,
	 "304",
	 "Connector",
	 "Read a connector",
	 0,
	 {CONNECTOR}},
	{"PUT",
	 ONE,
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "update_connector",
	 DB_WRITE,
	 200,
	 NULL,
	 "Connector",
	 "Change a connector",
	 0,
	 {CONNECTOR,
	  {"changes", "changes", IN_WHOLE_BODY, PARAM_OBJECT, true, NULL, 0, NULL,
	   "What changes: `name`, `description`, `config`, `definition`, `enabled`"}}},
	{"DELETE",
	 ONE,
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "delete_connector",
	 DB_WRITE,
	 204,
	 NULL,
	 NULL,
	 "Remove a connector and all its records",
	 600,
	 {CONNECTOR}},
	{"POST",
	 ONE "/test",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "test_connector",
	 DB_WRITE,
	 200,
	 NULL,
	 "ConnectorTest",
	 "Ask the upstream for one record of each type",
	 180,
	 {CONNECTOR}},
	{"GET",
	 ONE "/secrets",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "secrets",
	 DB_READ,
	 200,
	 NULL,
	 "Secrets",
	 "List the names of secrets, never their values",
	 0,
	 {CONNECTOR}},
	{"PUT",
	 ONE "/secrets/{name}",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "set_secret",
	 DB_WRITE,
	 204,
	 NULL,
	 NULL,
	 "Set a secret",
	 0,
	 {CONNECTOR,
	  {"name", "name", IN_PATH, PARAM_TEXT, true, NULL, 0, NULL, "Name of the secret"},
	  {"value", "value", IN_BODY, PARAM_TEXT, true, NULL, 0, NULL, "Its value"}}},
	{"DELETE",
	 ONE "/secrets/{name}",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "delete_secret",
	 DB_WRITE,
	 204,
	 NULL,
	 NULL,
	 "Remove a secret",
	 0,
	 {CONNECTOR, {"name", "name", IN_PATH, PARAM_TEXT, true, NULL, 0, NULL, "Name of the secret"}}},

	{"GET",
	 ONE "/resources",
	 FOR_READERS,
	 ROUTE_CALL,
	 "resources",
	 DB_READ,
	 200,
	 NULL,
	 "ResourcePage",
	 "List records",
	 0,
	 {CONNECTOR,
	  QUERY("type", "resource_type", "Only this resource type"),
	  SEARCH,
	  {"stale", "stale", IN_QUERY, PARAM_BOOL, false, NULL, 0, NULL,
	   "Only stale, or only active records"},
	  PAGE,
	  QUERY("after", "after", "Instead of `page`: the `nextAfter` of the page before")}},
	{"GET",
	 ONE "/resources/{type}/{externalId}",
	 FOR_READERS,
	 ROUTE_CALL,
	 "resource",
	 DB_READ,
	 200,
	 "304",
	 "Resource",
	 "Read a record",
	 0,
	 {CONNECTOR,
	  TYPE,
	  {"externalId", "external_id", IN_PATH, PARAM_TEXT, true, NULL, 0, NULL,
	   "Id of the upstream"}}},
	{"GET",
	 ONE "/resources/{type}/{externalId}/explain",
	 FOR_READERS,
	 ROUTE_CALL,
	 "explain",
	 DB_READ,
	 200,
	 NULL,
	 "Explanation",
	 "Explain the match of a record",
	 0,
	 {CONNECTOR,
	  TYPE,
	  {"externalId", "external_id", IN_PATH, PARAM_TEXT, true, NULL, 0, NULL,
	   "Id of the upstream"}}},

	{"GET",
	 ONE "/sync-config",
	 FOR_READERS,
	 ROUTE_CALL,
	 "sync_configs",
	 DB_READ,
	 200,
	 NULL,
	 "SyncConfigs",
	 "List the configurations of a connector",
	 0,
	 {CONNECTOR}},
	{"GET",
	 ONE "/sync-config/{type}",
	 FOR_READERS,
	 ROUTE_CALL,
	 "sync_config",
	 DB_READ,
	 200,
	 "304",
	 "SyncConfig",
	 "Read a configuration",
	 0,
	 {CONNECTOR, TYPE}},
	{"PUT",
	 ONE "/sync-config/{type}",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "put_sync_config",
	 DB_WRITE,
	 200,
	 "201",
	 "SyncConfig",
	 "Create or change a configuration",
	 0,
	 {CONNECTOR,
	  TYPE,
	  {"settings", "settings", IN_WHOLE_BODY, PARAM_OBJECT, true, NULL, 0, NULL,
	   "The settings to change"}}},
	{"DELETE",
	 ONE "/sync-config/{type}",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "delete_sync_config",
	 DB_WRITE,
	 204,
	 NULL,
	 NULL,
	 "Remove a configuration and its schedule",
	 600,
	 {CONNECTOR, TYPE}},
	{"GET",
	 ONE "/sync-config/{type}/status",
	 FOR_READERS,
	 ROUTE_CALL,
	 "sync_status",
	 DB_READ,
	 200,
	 NULL,
	 "SyncStatus",
	 "Read the status of the last run and of the current one",
	 0,
	 {CONNECTOR, TYPE}},
	{"POST",
	 ONE "/sync-config/{type}/trigger",
	 FOR_MANAGERS,
	 ROUTE_TRIGGER,
	 "trigger_sync",
	 DB_WRITE,
	 202,
	 "200 409 502",
	 "TriggerResult",
	 "Run a sync now",
	 0,
	 {CONNECTOR,
	  TYPE,
	  STRATEGY,
	  {"wait", NULL, IN_QUERY, PARAM_BOOL, false, "true", 0, NULL,
	   "Whether the answer comes when the run has ended (200), or at once (202)"}}},

	{"GET",
	 ONE "/runs",
	 FOR_READERS,
	 ROUTE_CALL,
	 "runs",
	 DB_READ,
	 200,
	 NULL,
	 "RunPage",
	 "List the runs of a connector, the newest first",
	 0,
	 {CONNECTOR,
	  QUERY("type", "resource_type", "Only this resource type"),
	  {"status", "status", IN_QUERY, PARAM_TEXT, false, NULL, 0, RUN_STATUSES, "Only this status"},
	  {"mode", "mode", IN_QUERY, PARAM_TEXT, false, NULL, 0, "sync", "Only this mode"},
	  PAGE}},
	{"GET",
	 ONE "/runs/{runId}",
	 FOR_READERS,
	 ROUTE_CALL,
	 "run",
	 DB_READ,
	 200,
	 NULL,
	 "Run",
	 "Read a run with its statistics and progress",
	 0,
	 {CONNECTOR, RUN}},
	{"GET",
	 ONE "/runs/{runId}/errors",
	 FOR_READERS,
	 ROUTE_CALL,
	 "run_errors",
	 DB_READ,
	 200,
	 NULL,
	 "RunErrorPage",
	 "List the errors of a run",
	 0,
	 {CONNECTOR, RUN, PAGE}},
	{"GET",
	 ONE "/runs/{runId}/pages",
	 FOR_READERS,
	 ROUTE_CALL,
	 "run_pages",
	 DB_READ,
	 200,
	 NULL,
	 "RunPagePage",
	 "List the pages that a run has read",
	 0,
	 {CONNECTOR, RUN, PAGE}},
	{"GET",
	 ONE "/runs/{runId}/held-changes",
	 FOR_READERS,
	 ROUTE_CALL,
	 "held_changes",
	 DB_READ,
	 200,
	 NULL,
	 "HeldChangePage",
	 "List what the approval of a held run would do",
	 0,
	 {CONNECTOR, RUN, PAGE}},
	{"POST",
	 ONE "/runs/{runId}/approve",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "approve_run",
	 DB_WRITE,
	 200,
	 NULL,
	 "Run",
	 "Approve a held run",
	 600,
	 {CONNECTOR, RUN, NOTES}},
	{"POST",
	 ONE "/runs/{runId}/reject",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "reject_run",
	 DB_WRITE,
	 200,
	 NULL,
	 "Run",
	 "Reject a held run",
	 0,
	 {CONNECTOR, RUN, NOTES}},
	{"POST",
	 ONE "/runs/{runId}/cancel",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "cancel_run",
	 DB_WRITE,
	 200,
	 NULL,
	 "Run",
	 "Stop a queued or running run",
	 0,
	 {CONNECTOR, RUN, NOTES}},

	{"GET",
	 ONE "/sync-matches",
	 FOR_READERS,
	 ROUTE_CALL,
	 "matches",
	 DB_READ,
	 200,
	 NULL,
	 "MatchPage",
	 "List matches",
	 0,
	 {CONNECTOR,
	  {"type", "resource_type", IN_QUERY, PARAM_TEXT, true, NULL, 0, NULL,
	   "Resource type, such as `user`"},
	  {"status", "status", IN_QUERY, PARAM_TEXT, false, NULL, 0,
	   "matched unmatched ambiguous manual_override skipped create_pending", "Only this status"},
	  SEARCH,
	  PAGE}},
	{"GET",
	 ONE "/sync-matches/stats",
	 FOR_READERS,
	 ROUTE_CALL,
	 "match_stats",
	 DB_READ,
	 200,
	 NULL,
	 "MatchStats",
	 "Count matches by status",
	 0,
	 {CONNECTOR,
	  {"type", "resource_type", IN_QUERY, PARAM_TEXT, true, NULL, 0, NULL,
	   "Resource type, such as `user`"}}},
	{"POST",
	 ONE "/sync-matches/bulk-resolve",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "bulk_resolve_matches",
	 DB_WRITE,
	 200,
	 NULL,
	 "BulkResult",
	 "Resolve several matches",
	 0,
	 {CONNECTOR,
	  {"matchIds", "match_ids", IN_BODY, PARAM_UUIDS, true, NULL, 0, NULL, "Ids of the matches"},
	  {"action", "action", IN_BODY, PARAM_TEXT, true, NULL, 0, "link skip", "What is done to them"},
	  {"userId", "user_id", IN_BODY, PARAM_UUID, false, NULL, 0, NULL, "The user, for `link`"},
	  NOTES}},
	{"POST",
	 ONE "/sync-matches/{matchId}/resolve",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "resolve_match",
	 DB_WRITE,
	 200,
	 NULL,
	 "Match",
	 "Resolve a match",
	 0,
	 {CONNECTOR,
	  {"matchId", "match_id", IN_PATH, PARAM_UUID, true, NULL, 0, NULL, "Id of the match"},
	  {"action", "action", IN_BODY, PARAM_TEXT, true, NULL, 0, "link skip create",
	   "What is done to it"},
	  {"userId", "user_id", IN_BODY, PARAM_UUID, false, NULL, 0, NULL, "The user, for `link`"},
	  NOTES}},
	{"POST",
	 ONE "/sync-matches/{matchId}/unlink",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "unlink_match",
	 DB_WRITE,
	 200,
	 NULL,
	 "Match",
	 "Take a match apart, so that the record is matched anew",
	 0,
	 {CONNECTOR,
	  {"matchId", "match_id", IN_PATH, PARAM_UUID, true, NULL, 0, NULL, "Id of the match"}}},
	{"POST",
	 ONE "/cache/clear",
	 FOR_MANAGERS,
	 ROUTE_CALL,
	 "clear_cache",
	 DB_WRITE,
	 204,
	 NULL,
	 NULL,
	 "Empty the cache of a connector",
	 0,
	 {CONNECTOR,
	  {"resourceType", "resource_type", IN_BODY, PARAM_TEXT, false, NULL, 0, NULL,
	   "Only this resource type"}}},

	{"GET",
	 "/api/jobs",
	 FOR_READERS,
	 ROUTE_CALL,
	 "jobs",
	 DB_READ,
	 200,
	 NULL,
	 "JobPage",
	 "List schedules and how they last went",
	 0,
	 {PAGE}},
	{"GET",
	 "/api/runs",
	 FOR_READERS,
	 ROUTE_CALL,
	 "runs",
	 DB_READ,
	 200,
	 NULL,
	 "RunPage",
	 "List the runs of all connectors, the newest first",
	 0,
	 {QUERY("connector", "connector", "Only this connector, by id or name"),
	  QUERY("type", "resource_type", "Only this resource type"),
	  {"status", "status", IN_QUERY, PARAM_TEXT, false, NULL, 0, RUN_STATUSES, "Only this status"},
	  {"mode", "mode", IN_QUERY, PARAM_TEXT, false, NULL, 0, "sync", "Only this mode"},
	  PAGE}},
	{"GET",
	 "/api/events",
	 FOR_READERS,
	 ROUTE_EVENTS,
	 NULL,
	 DB_READ,
	 200,
	 NULL,
	 "text/event-stream",
	 "Follow runs as they go on and end",
	 0,
	 {{"access_token", NULL, IN_QUERY, PARAM_TEXT, false, NULL, 0, NULL,
	   "The token, for clients that cannot set a header"}}},
	{"GET",
	 "/api/me",
	 FOR_READERS,
	 ROUTE_CALL,
	 "me",
	 DB_READ,
	 200,
	 NULL,
	 "Me",
	 "Read who the token is for",
	 0,
	 {{0}}},
	{"POST",
	 "/api/webhooks/{id}",
	 FOR_SENDERS,
	 ROUTE_WEBHOOK,
	 "webhook",
	 DB_WRITE,
	 200,
	 NULL,
	 "WebhookResult",
	 "Take a webhook",
	 30,
	 {CONNECTOR}},
	{"GET",
	 "/api/webhooks/{id}",
	 FOR_SENDERS,
	 ROUTE_WEBHOOK,
	 "webhook",
	 DB_WRITE,
	 200,
	 NULL,
	 "WebhookVerification",
	 "Answer a sender that asks whether the address is right",
	 30,
	 {CONNECTOR}},
	{"GET",
	 "/api/health",
	 FOR_ALL,
	 ROUTE_HEALTH,
	 "health",
	 DB_READ,
	 200,
	 "503",
	 "Health",
	 "Read how the database and the workers are",
	 5,
	 {{0}}},
	{"GET",
	 "/live",
	 FOR_ALL,
	 ROUTE_LIVE,
	 NULL,
	 DB_READ,
	 200,
	 NULL,
	 "Live",
	 "Ask whether this server runs",
	 0,
	 {{0}}},
	{"GET",
	 "/ready",
	 FOR_ALL,
	 ROUTE_READY,
	 NULL,
	 DB_READ,
	 200,
	 "503",
	 "Live",
	 "Ask whether this server can answer requests",
	 0,
	 {{0}}},
	{"GET",
	 "/metrics",
	 FOR_METRICS,
	 ROUTE_METRICS,
	 "metrics",
	 DB_READ,
	 200,
	 NULL,
	 "text/plain",
	 "Read metrics, for Prometheus",
	 10,
	 {{0}}},
	{"GET",
	 "/openapi.json",
	 FOR_ALL,
	 ROUTE_OPENAPI,
	 NULL,
	 DB_READ,
	 200,
	 "304",
	 "OpenApi",
	 "Read this description",
	 0,
	 {{0}}},
};

const int nroutes = sizeof(routes) / sizeof(routes[0]);

static DbStatement statements[sizeof(routes) / sizeof(routes[0])];

/* The segments of a pattern, NUL-terminated one by one. */
typedef struct Pattern
{
	char *segment[ROUTE_SEGMENTS];
	int	  n;
} Pattern;

static Pattern patterns[sizeof(routes) / sizeof(routes[0])];

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
