/*
 * rest.h
 *	  The same records as other services would list them.  See rest.c
 *	  (paths and single records), rest_list.c (styles of paging), src/rest/auth.c
 *	  (who may ask) and jwt.c (signed assertions).
 */
#ifndef UPSTREAM_REST_H
#define UPSTREAM_REST_H

#include "call.h"
#include "faults.h"
#include "page.h"

typedef struct rest_call rest_call;

typedef struct rest_style
{
	const char		 *name;
	page_record		 *put_record;
	bool			  by_position;	   /* a page is asked for by number or count, not by cursor */
	const char *const cursor_args[3];  /* parameters that say where the page is */
	const char *(*read)(rest_call *r); /* where the page is; returns a complaint, or NULL */
	void (*write)(buf *b, const page *p, void *rest_call);
	void (*head)(rest_call *r); /* headers of the page, or NULL */
} rest_style;

struct rest_call
{
	call			 *call;
	const rest_style *style;
	char			  options[200]; /* ";relative;cap=30" */
	char			  path[320];	/* of the listing: "/rest/link;relative/users" */
	const data_type	 *type;
	request			  q;
	page			  page;
	struck			  struck;
	/* delta listings */
	bool	delta;
	bool	latest;
	int64_t began; /* when this listing was begun */
};

extern const rest_style rest_styles[];

/* rest.c */
extern const char *rest_option(const rest_call *r, const char *name);
extern void	 rest_complain(rest_call *r, unsigned status, const char *code, const char *message);
extern void	 rest_put_origin(buf *b, call *c, bool other);
extern void	 rest_put_record(buf *b, const page *p, size_t position, const patch *change);
extern char *rest_other_origin;

/* rest_list.c */
extern enum MHD_Result rest_list(rest_call *r);

#endif
