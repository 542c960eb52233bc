/*
 * request.h
 *	  A request, from its head to its answer.  See request.c.
 */
#ifndef GATEWAY_REQUEST_H
#define GATEWAY_REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "answer.h"
#include "auth.h"
#include "buf.h"
#include "db.h"
#include "routes.h"

#define QUERY_PAIRS	   32
#define REQUEST_ID_MAX 64

typedef struct Conn Conn;

typedef struct Request
{
	struct MHD_Connection *connection;
	Conn				  *conn;
	int64_t				   begun; /* microseconds */
	char				  *method;
	char				  *uri;	   /* as it was sent */
	const char			  *uri_at; /* where it was read from; not to be read */
	char				   id[REQUEST_ID_MAX + 1];
	const char			  *peer; /* address of the client, for limits and the log */
	char				   forwarded[64];
	char				   network[64]; /* for limits: the peer, or its network of IPv6 */
	bool				   local;		/* it comes from this machine, through nobody */

	char		*path; /* its segments, decoded, one after the other */
	char		*segment[ROUTE_SEGMENTS];
	int			 nsegments;
	char		*query; /* likewise its pairs */
	char		*name[QUERY_PAIRS];
	char		*value[QUERY_PAIRS];
	int			 npairs;
	const Route *route;

	Buf	   body;
	bool   body_too_large;
	size_t body_discarded;

	Identity *who;
	char	 *headers; /* JSON, for request.headers */
	Answer	  answer;

	/* The call of the route's function. */
	char	   *owned[ROUTE_PARAMS];
	const char *values[ROUTE_PARAMS];
	int			lengths[ROUTE_PARAMS];
	int			formats[ROUTE_PARAMS];
	DbTask		task;
	void	   *waiting; /* of trigger.c */

	bool seen;	  /* the head was looked at */
	bool running; /* it was given to its handler */
	bool in_handler;
	bool suspended;
	bool answered;
	bool queued; /* the answer was handed to the library */
	bool last;	 /* the connection ends with it */
} Request;

/* The head has come: may answer. */
extern void request_head(Request *r);
/* The body has come, too: answers, now or later. */
extern void request_run(Request *r);
/* To be called when r->answer is complete. */
extern void request_answered(Request *r);
extern void request_free(Request *r);

/* A header of the request, NULL when there is none. */
extern const char *request_header(const Request *r, const char *name);
extern const char *request_query(const Request *r, const char *name);

/* Calls the route's function with the parameters of the request. */
extern bool request_call(Request *r, DbDone done);
/* The answer from the database, as it is. */
extern void request_called(void *arg, const DbResult *result);

/* The request's own rights are not enough: what the database would say, too. */
extern void request_forbidden(Request *r, const char *permission);

/* params.c: reads the parameters into values; false when it has answered. */
extern bool params_read(Request *r);
/* params.c: reads path and query out of the uri; false when they are malformed. */
extern bool uri_read(Request *r, char *problem, size_t size);

#endif /* GATEWAY_REQUEST_H */
