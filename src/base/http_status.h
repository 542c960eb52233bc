/*
 * http_status.h
 *	  Which status of HTTP an SQLSTATE is answered with: the one table, for the
 *	  functions of schema flohsync_api and for programs that serve them.
 *
 * Needs nothing of PostgreSQL.
 */
#ifndef FLOHSYNC_HTTP_STATUS_H
#define FLOHSYNC_HTTP_STATUS_H

#include <stddef.h>
#include <string.h>

/* A code of two characters stands for its class; a whole code comes before its class. */
typedef struct HttpStatusOf
{
	const char *code;
	int			status;
} HttpStatusOf;

static const HttpStatusOf http_status_of[] = {
	/* The request is wrong. */
	{"0A000", 400}, /* not supported */
	{"22", 400},	/* a value: the message names it */
	{"23502", 400}, /* null where there must be a value */
	{"23514", 400}, /* a value that a check refuses */
	{"42601", 400}, /* the syntax of a query of kind sql */
	{"42602", 400}, /* a name */
	{"42883", 400}, /* a function that the request names */
	{"P0001", 400}, /* RAISE in a function of others */

	/* The caller may not. */
	{"28", 401},
	{"42501", 403},

	{"42704", 404},
	{"FLS05", 405},

	/* What there is does not allow it. */
	{"23503", 409},
	{"23505", 409},
	{"42710", 409},
	{"55000", 409},
	{"55006", 409},
	{"FLS12", 412}, /* changed meanwhile: If-Match */
	{"54", 413},	/* too much */

	/* An upstream failed, or a function that stands for one. */
	{"38", 502},
	{"HV", 502},

	/* Not now. */
	{"08", 503},
	{"25006", 503}, /* a standby, or a transaction that only reads */
	{"40", 503},
	{"53", 503},
	{"55P03", 503},
	{"57", 503},
	{"58", 503},
};

/* The status for an SQLSTATE; 500 for all that should not happen, and for no SQLSTATE. */
static inline int
http_status_of_sqlstate(const char *sqlstate)
{
	int of_class = 500;

	if (sqlstate == NULL || strlen(sqlstate) != 5)
		return 500;
	for (size_t i = 0; i < sizeof(http_status_of) / sizeof(http_status_of[0]); i++)
	{
		if (strcmp(http_status_of[i].code, sqlstate) == 0)
			return http_status_of[i].status;
		if (strlen(http_status_of[i].code) == 2 &&
			strncmp(http_status_of[i].code, sqlstate, 2) == 0)
			of_class = http_status_of[i].status;
	}
	return of_class;
}

#endif /* FLOHSYNC_HTTP_STATUS_H */
