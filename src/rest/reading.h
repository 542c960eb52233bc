/*
 * reading.h
 *	  An answer that is being read: what rest/page.c and rest/next.c share.
 */
#ifndef FLOHSYNC_REST_READING_H
#define FLOHSYNC_REST_READING_H

#include "rest/rest.h"

/* Longer texts are no number of records or pages, and no yes or no. */
#define NUMBER_MAX_BYTES 64

typedef struct Reading
{
	RestState	 *state;
	PageParser	 *parser;
	UpstreamPage *page;
	SourceAnswer *answer;
	JsonParser	 *json;	 /* of the whole answer */
	JsonParser	 *tree;	 /* of the records: the same, or a side */
	uint32		 *nodes; /* of the records */
	uint32		  n;
	uint32		  room;
	bool		  bad_list; /* what should be a list is none */
	bool		  list_found;
	bool		  array;   /* reading_list() wants one */
	bool		  behind;  /* this is the page behind the end, which should have nothing */
	bool		  repeats; /* the page before */
	bool		  sign; /* there was something that tells of a next page, or that there is none */
} Reading;

/* rest/page.c */
extern bool reading_failed(Reading *r, ErrorClass error_class, const char *format, ...)
	pg_attribute_printf(3, 4);
extern bool	 reading_unknown(Reading *r, const RestPath *path);
extern void	 reading_incomplete(Reading *r, const char *format, ...) pg_attribute_printf(2, 3);
extern int64 reading_int64(Reading *r, const RestPath *path, bool *failed);

/* rest/next.c */
extern char *next_link_text(Reading *r, char *text);
extern char *next_text(Reading *r, const RestPath *path, bool json_text, bool *failed);
extern char *next_position(Reading *r, int64 total, bool *failed);

/* rest/map.c */
extern bool map_looks_inside(const RestDefinition *d);
extern void map_values(Reading *r, uint32 node, bool clean, PageMapped *m);
extern void map_leave_out(Reading *r, bool clean, PageMapped *m);
extern void map_record(Reading *r, uint32 node);

/* rest/page_one.c */
extern bool reading_one(Reading *r);

/* rest/page.c, for page_one.c */
extern bool reading_none(Reading *r, const char *problem, const char *path);

#endif /* FLOHSYNC_REST_READING_H */
