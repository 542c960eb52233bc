/*
 * call.h
 *	  One request and its answer, on the way through the server.
 */
#ifndef UPSTREAM_CALL_H
#define UPSTREAM_CALL_H

#include <microhttpd.h>
#include <stdint.h>

#include "buf.h"

#define MAX_HEADERS 16

/* Bytes that several answers may share: a page of the page cache. */
typedef struct shared_bytes
{
	buf		 bytes;
	int		 refs;
	uint64_t hash; /* for an ETag; 0: not made yet */
} shared_bytes;

typedef struct answer
{
	unsigned	  status;
	buf			  body;
	shared_bytes *shared;		/* the body, instead of the above */
	char		 *content_type; /* NULL: application/json; "": none */
	char		 *date;			/* NULL: the server's clock; "": none */
	int			  headers;
	char		 *name[MAX_HEADERS];
	char		 *value[MAX_HEADERS];
} answer;

typedef enum call_stage
{
	CALL_READING, /* the request's body is coming in */
	CALL_DELIVER, /* was held; the answer is ready */
	CALL_CLOSE	  /* a thread has answered on the socket; close it */
} call_stage;

typedef struct call
{
	struct MHD_Connection *connection;
	const char			  *method;
	const char			  *url;
	char				  *uri; /* as it was sent */
	bool				   begun;
	bool				   counted; /* as open, by journal.c */
	buf					   body;
	call_stage			   stage;
	answer				   answer;
} call;

/* answer.c */
extern void answer_json(answer *a, unsigned status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
extern void			   answer_error(answer *a, unsigned status, const char *message);
extern void			   answer_header(answer *a, const char *name, const char *value);
extern void			   answer_no_body(answer *a);
extern void			   answer_free(answer *a);
extern void			   answer_head(buf *b, const answer *a);
extern enum MHD_Result answer_send(call *c);
extern void			   shared_release(void *shared);
extern const char	  *call_arg(call *c, const char *name);
extern long long	   call_arg_int(call *c, const char *name, long long otherwise);

/* commands.c: the directory itself. */
extern bool			   commands_page_cache;
extern char			  *commands_token;	 /* the bearer token that is asked for, or NULL */
extern unsigned		   commands_missing; /* status for a record that is not there */
extern enum MHD_Result command_run(call *c);
extern bool			   command_token_is_right(call *c);

/* validator.c */
typedef enum validator
{
	VALIDATOR_NONE,
	VALIDATOR_STRONG,
	VALIDATOR_WEAK,
	VALIDATOR_MODIFIED
} validator;

extern validator commands_validator;
extern bool		 validator_apply(call *c);

/* rest.c: the directory as other services would list it. */
extern enum MHD_Result rest_run(call *c);
extern char			  *rest_other_origin;

/* control.c: what tests tell the server. */
extern enum MHD_Result control_run(call *c);
extern bool			   control_records(const char *list, char *error, size_t size);
extern bool			   control_reset(char *error, size_t size);
extern const char	  *control_default_records;

#endif
