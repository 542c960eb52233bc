/*
 * find.h
 *	  Single rows, by an index, without a statement.  See find.c.
 */
#ifndef FLOHSYNC_FIND_H
#define FLOHSYNC_FIND_H

#include "utils/timestamp.h"

#include "base/look.h"

typedef struct FindTable FindTable;

/* Rows that are found, one after the other. */
typedef struct Find
{
	FindTable *from;
	Look	   look;
} Find;

/* Columns of a record that find_record finds. */
enum
{
	FIND_ID,
	FIND_EXTERNAL_ID,
	FIND_NAME,
	FIND_EMAIL,
	FIND_ATTRIBUTES,
	FIND_HASH,
	FIND_STALE,
	FIND_OBSERVED,
	FIND_CREATED,
	FIND_RECORD_COLUMNS
};

extern bool		   find_connector(text *connector, pg_uuid_t *id);
extern TimestampTz find_confirmed_at(Datum connector, text *type);
extern int64	   find_total(Datum connector, text *type);
extern bool		   find_record(Find *find, Datum connector, text *type, text *external_id);
extern bool		   find_list(Find *find, Datum connector, text *type, text *after);
extern bool		   find_next(Find *find);
extern Datum	   find_value(Find *find, int column, bool *isnull);
extern void		   find_end(Find *find);

#endif /* FLOHSYNC_FIND_H */
