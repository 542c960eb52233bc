/*
 * faults.h
 *	  What a test asks the server to do wrong.  See faults.c.
 */
#ifndef UPSTREAM_FAULTS_H
#define UPSTREAM_FAULTS_H

#include "call.h"
#include "page.h"

/* The moments at which a fault can strike, in the order in which an answer is made. */
typedef enum fault_stage
{
	STRIKE_REQUEST, /* before the records of a page are chosen */
	STRIKE_PAGE,	/* after it: records, cursor, estimate */
	STRIKE_RECORD,	/* while records are written */
	STRIKE_ANSWER,	/* instead of the page */
	STRIKE_BODY,	/* on the finished bytes and headers */
	STRIKE_WIRE		/* while they are sent */
} fault_stage;

typedef struct fault_kind
{
	const char *name;
	fault_stage stage;
	const char *parameters; /* for the list of kinds */
} fault_kind;

typedef struct fault_arg
{
	char *name;
	char *value;
} fault_arg;

#define MAX_FAULT_ARGS 24

typedef struct fault
{
	struct fault	 *next;
	int				  id;
	const fault_kind *kind;
	long			  after; /* matches to let pass first */
	long			  times; /* how often it strikes yet; below 0: always */
	long			  fired;
	int				  args;
	fault_arg		  arg[MAX_FAULT_ARGS];
	buf				  body; /* what was uploaded with it */
} fault;

#define MAX_STRUCK 16

/* The faults that strike one answer. */
typedef struct struck
{
	int	   n;
	fault *fault[MAX_STRUCK];
} struck;

extern const char *fault_text(const fault *f, const char *name, const char *otherwise);
extern long long   fault_int(const fault *f, const char *name, long long otherwise);
extern bool		   in_ranges(const char *ranges, long n);

extern fault *fault_add(call *c, char *error, size_t size);
extern bool	  fault_heal(int id);
extern void	  fault_heal_all(void);
extern void	  fault_list(buf *b);
extern void	  fault_kinds(buf *b);
extern void	  faults_match(struck *s, const char *type, long page, bool single);
extern void	  faults_names(const struck *s, buf *b);

/* commands.c */
extern enum MHD_Result command_finish(call *c, const struck *s, size_t records);

/* shape.c */
extern void shape_request(const struck *s, request *q);
extern void shape_page(const struck *s, page *p, const request *q);

/* mangle.c */
extern bool mangles(const struck *s);
extern void mangle_record(buf *b, const page *p, size_t position, void *struck_faults);

/* spoil.c */
extern bool spoil_answer(const struck *s, call *c, const request *q);
extern void spoil_body(const struck *s, answer *a);

/* wire.c */
extern enum MHD_Result wire_send(const struck *s, call *c);
extern enum MHD_Result wire_hold_for(call *c, bool (*work)(void *closure), void *closure);
extern void			   wire_release(void);

#endif
