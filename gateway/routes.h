/*
 * routes.h
 *	  The table of routes, and finding one.  See routes.c.
 */
#ifndef GATEWAY_ROUTES_H
#define GATEWAY_ROUTES_H

#include <stdbool.h>
#include <stdio.h>

#include "db.h"

#define ROUTE_PARAMS   8
#define ROUTE_SEGMENTS 10

typedef enum ParamIn
{
	IN_PATH,
	IN_QUERY,
	IN_BODY,	  /* a member of the object that the body is */
	IN_WHOLE_BODY /* the object itself */
} ParamIn;

typedef enum ParamType
{
	PARAM_TEXT,
	PARAM_INT,
	PARAM_BIGINT,
	PARAM_BOOL,
	PARAM_UUID,
	PARAM_UUIDS,
	PARAM_OBJECT, /* JSON objects */
	PARAM_JSON	  /* any JSON */
} ParamType;

typedef struct Param
{
	const char *name; /* as the client says it */
	const char *sql;  /* as the function of SQL has it; NULL: it is for the handler */
	ParamIn		in;
	ParamType	type;
	bool		required;
	const char *initial; /* when it is absent; NULL: null */
	int			most;	 /* of a number that is at least 1; 0: what its type holds */
	const char *values;	 /* that it may have, separated by spaces; NULL: any */
	const char *about;
} Param;

typedef enum Permission
{
	FOR_ALL,	 /* no token */
	FOR_METRICS, /* see setting metrics */
	FOR_READERS,
	FOR_MANAGERS,
	FOR_SENDERS /* of webhooks: their signature */
} Permission;

/* How a route is answered. */
typedef enum RouteKind
{
	ROUTE_CALL,	   /* by what the function of SQL returns */
	ROUTE_TRIGGER, /* the same, and then the end of the run is waited for */
	ROUTE_WEBHOOK,
	ROUTE_EVENTS,
	ROUTE_HEALTH,
	ROUTE_METRICS,
	ROUTE_LIVE,
	ROUTE_READY,
	ROUTE_OPENAPI
} RouteKind;

typedef struct Route
{
	const char *method;
	const char *path; /* with {name} for parameters */
	Permission	permission;
	RouteKind	kind;
	const char *function; /* of schema flohsync_api; NULL: none */
	DbMode		mode;
	int			status; /* when the function does not say another one */
	const char *other;	/* statuses beside it that are no errors, for the document */
	const char *answer; /* schema of the answer in openapi_schemas.json; NULL: no body */
	const char *summary;
	int			timeout; /* seconds that the database may take; 0: as configured */
	Param		param[ROUTE_PARAMS];
} Route;

extern const Route routes[];
extern const int   nroutes;

/* To be called first: makes the statements. */
extern void				  routes_start(void);
extern const DbStatement *route_statement(const Route *route);

/*
 * routes_find looks a method and the decoded segments of a path up.  Without a
 * route of that method, allow is a list of the methods that there are, if any.
 */
extern const Route *routes_find(const char *method, char *const *segment, int n, char allow[64]);
/* Which segment of the path has a parameter, -1: none. */
extern int route_segment(const Route *route, const char *name);

/* A table in Markdown. */
extern void routes_print(FILE *out);

#endif /* GATEWAY_ROUTES_H */
