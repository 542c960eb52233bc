/*
 * render.h
 *	  What the shapes of a record have in common: what it holds follows from
 *	  the seed, its type, its number and its versions.  See render.c.
 */
#ifndef UPSTREAM_RENDER_H
#define UPSTREAM_RENDER_H

#include "data.h"

typedef enum name_part
{
	NAME_WHOLE,
	NAME_GIVEN,
	NAME_FAMILY
} name_part;

extern uint64_t	   render_hash(const data_type *t, size_t number);
extern void		   render_name(buf *b, const data_type *t, size_t number, name_part part);
extern void		   render_email(buf *b, const data_type *t, size_t number);
extern int		   render_groups(const data_type *t, size_t number, size_t group[2]);
extern const char *render_department(const data_type *t, size_t number);
extern const char *render_locale(const data_type *t, size_t number);
extern bool		   render_patched(buf *b, const patch *p, int field, const char *start);

#endif
