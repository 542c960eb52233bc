/*
 * data.h
 *	  The records that the server has, and what has happened to them.
 *	  See data.c (state) and render.c (their JSON).
 */
#ifndef UPSTREAM_DATA_H
#define UPSTREAM_DATA_H

#include "buf.h"

#define MAX_TYPES 16

/*
 * What cannot be computed from the record's number.  All that a record shows
 * follows from the seed, its type, its number and the versions here.
 */
typedef struct record
{
	int64_t	 modified_at; /* microseconds since 1970 */
	uint16_t version;	  /* of the plain attributes */
	uint8_t	 name_version;
	uint8_t	 email_version;
	uint8_t	 group_version;
	bool	 deleted;
	bool	 added; /* it was not there at the start */
	char	*whole; /* the record's JSON, when it was set by hand */
} record;

typedef struct data_type
{
	char	 name[64];
	uint64_t seed;
	record	*records; /* record number n is records[n - 1] */
	size_t	 count;	  /* with the deleted ones */
	size_t	 cap;
	size_t	 deleted;
} data_type;

/* Which records an action is for; see select_records(). */
typedef struct selection
{
	const char *ids;  /* a comma-separated list of external ids, or NULL */
	size_t		from; /* record numbers from..to (0: no bound) */
	size_t		to;
	double		fraction; /* of those eligible; below 0: all of them */
	int64_t		number;	  /* how many of those eligible; below 0: all */
	uint64_t	seed;	  /* another seed picks other records */
} selection;

typedef enum change_what
{
	CHANGE_ATTRIBUTES,
	CHANGE_NAME,
	CHANGE_EMAIL,
	CHANGE_GROUPS,
	CHANGE_DELETE,
	CHANGE_RESTORE
} change_what;

/* A record's JSON with parts of it replaced; see render.c. */
enum
{
	FIELD_ID,
	FIELD_NAME,
	FIELD_EMAIL,
	FIELD_ATTRIBUTES,
	FIELDS
};

typedef struct patch
{
	const char *json[FIELDS]; /* raw JSON for this field, or NULL for the record's own */
	size_t		json_len[FIELDS];
	bool		drop[FIELDS]; /* leave the field out */
	const char *id_prefix;	  /* put before the record's own id */
	const char *name_suffix;  /* put after the record's own name (raw JSON text) */
	size_t		name_suffix_len;
	const char *more; /* raw JSON members added to attributes, from the comma on */
	size_t		more_len;
	const char *before; /* raw JSON members before the id, up to the comma */
	const char *whole;	/* raw JSON instead of the record */
	size_t		whole_len;
} patch;

extern uint64_t data_generation; /* another value: something changed */
extern bool		data_random_ids;
extern uint64_t data_seed;

extern int		  data_types_used(void);
extern data_type *data_type_at(int i);
extern data_type *data_find(const char *name);
extern data_type *data_make(const char *name, size_t count);
extern void		  data_drop_all(void);
extern void		  data_add(data_type *t, size_t n);
extern size_t	  data_change(data_type *t, const selection *s, change_what what, buf *ids,
							  size_t list);
extern bool		  data_set(data_type *t, const char *id, const char *json, size_t n);
extern size_t	  data_lookup(const data_type *t, const char *id); /* number, 0: none */

/* The clock of the server. */
extern int64_t clock_skew;	/* microseconds */
extern int64_t clock_fixed; /* 0, or the time it stands at */
extern int64_t clock_now(void);
extern bool	   parse_time(const char *s, int64_t *at);
extern void	   put_time(buf *b, int64_t at);

/* render.c */
extern uint64_t mix(uint64_t x);
extern void		render_id(buf *b, const data_type *t, size_t number);
extern void		render_record(buf *b, const data_type *t, size_t number, const patch *p);
extern void		render_changed(buf *b, const data_type *t, size_t number, const char *before);
extern bool		record_is_member(const data_type *t, size_t number, size_t group);

/* render_scim.c */
extern void render_scim(buf *b, const data_type *t, size_t number, const patch *p);
extern void render_scim_command(buf *b, const data_type *t, size_t number, const patch *p);

#endif
