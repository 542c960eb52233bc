/*
 * page.h
 *	  A page of a listing.  See page.c.
 */
#ifndef UPSTREAM_PAGE_H
#define UPSTREAM_PAGE_H

#include "data.h"
#include "request.h"

/* Where a listing stands: what a cursor says. */
typedef struct cursor
{
	size_t	offset; /* records before it */
	int64_t epoch;	/* when it was given out; see cursors_expired() */
	long	page;	/* the page that it asks for, from 1 */
} cursor;

struct page;

/* Writes the page's record at a position (from 0), with parts of it replaced. */
typedef void page_record(buf *b, const struct page *p, size_t position, const patch *change);

/* What to answer; made by page_select(), changed by faults, written by page_render(). */
typedef struct page
{
	const data_type *type;
	cursor			 at;   /* of this page */
	long			 size; /* records asked for */
	bool			 incremental;
	int64_t			 since;
	bool			 by_position; /* at.offset counts records that are listed, not record numbers */
	bool			 with_deleted; /* deleted records are listed among the others */
	size_t			 member_of;	   /* only users of this group; 0: all */
	long			 part;		   /* only this one, from 1, of so many parts; 0: all */
	long			 parts;
	bool			 whole;		 /* changed records of a delta are written whole */
	page_record		*put_record; /* how a record is written */
	size_t			*numbers;	 /* the records of the page */
	size_t			 count;
	size_t			*deleted;
	size_t			 deleted_count;
	bool			 more;
	cursor			 next;		/* when more */
	char			*next_json; /* raw JSON instead of the next cursor; "" leaves it out */
	size_t			 estimate;
	char			*estimate_json; /* raw JSON instead of the estimate; "" leaves it out */
	char			*deleted_json;	/* raw JSON instead of the list of deleted ids */
	size_t			 copies_from;	/* records at these positions are copies with another name */
	size_t			 copies_to;
	bool			 next_first; /* write the cursor before the records */
} page;

extern bool	   page_by_position; /* cursors count records that are there, not record numbers */
extern bool	   page_reports_deleted;
extern int64_t cursor_epoch;		  /* given out with every cursor */
extern int64_t cursor_oldest;		  /* older ones are refused */
extern int	   cursor_expired_status; /* with this status */

extern bool cursor_parse(const char *s, long page_size, cursor *c);
extern void cursor_put(buf *b, const cursor *c);
extern void page_select(page *p);
extern void page_free(page *p);

/* Called for every record of a page: writes it, or something else. */
typedef void (*record_writer)(buf *b, const page *p, size_t position, void *closure);
typedef void (*page_writer)(buf *b, const page *p, void *closure);
struct answer;
extern size_t cache_page(page *p, uint64_t variant, page_writer write, void *closure,
						 struct answer *a);
extern void	  page_put_plain(buf *b, const page *p, size_t position, const patch *change);
extern void	  page_put_records(buf *b, const page *p, record_writer writer, void *closure);
extern void	  page_render(buf *b, const page *p, record_writer writer, void *closure);

#endif
