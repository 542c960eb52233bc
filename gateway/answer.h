/*
 * answer.h
 *	  What a request is answered with.  See answer.c.
 */
#ifndef GATEWAY_ANSWER_H
#define GATEWAY_ANSWER_H

#include <stdbool.h>

#include "buf.h"
#include "db.h"

#define ANSWER_HEADERS 8

struct MHD_Response;

typedef struct Answer
{
	unsigned			 status; /* 0: there is none yet */
	const char			*type;	 /* of the body; NULL: JSON */
	Buf					 body;
	const char			*shared; /* a body that lives longer than the answer, instead */
	size_t				 shared_n;
	int					 nheaders;
	const char			*name[ANSWER_HEADERS];
	char				*value[ANSWER_HEADERS];
	bool				 close;	  /* the connection, too */
	struct MHD_Response *stream;  /* instead of a body */
	char				 code[8]; /* of an error, for the log and the metrics */
} Answer;

/* Codes of our own: FLS and the status, without its hundreds for 4xx. */
#define FLS_BAD_REQUEST "FLS00"
#define FLS_NO_TOKEN	"FLS01"
#define FLS_FORBIDDEN	"42501"
#define FLS_NOT_FOUND	"FLS04"
#define FLS_METHOD		"FLS05"
#define FLS_TOO_LARGE	"FLS13"
#define FLS_MEDIA_TYPE	"FLS15"
#define FLS_TOO_MANY	"FLS29"
#define FLS_INTERNAL	"FLS50"
#define FLS_NO_DATABASE "FLS53"
#define FLS_INVALID		"22023"

extern void answer_free(Answer *a);
extern void answer_header(Answer *a, const char *name, const char *value);

/* An error, in the form that all have.  hint and details may be NULL. */
extern void answer_error(Answer *a, unsigned status, const char *code, const char *message,
						 const char *details, const char *hint);
extern void answer_errorf(Answer *a, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* An error of the database, or its absence. */
extern void answer_db_error(Answer *a, const DbResult *r);

/*
 * A row (body, response.status, response.headers) as the functions of flohsync_api
 * answer; status is the one when they say none.
 */
extern void answer_row(Answer *a, PGresult *row, unsigned status);

#endif /* GATEWAY_ANSWER_H */
