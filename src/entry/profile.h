/*
 * profile.h
 *	  What a patch of a profile changes.  See profile.c.
 */
#ifndef FLOHSYNC_PROFILE_H
#define FLOHSYNC_PROFILE_H

#include "access/htup.h"
#include "utils/jsonb.h"

/* Fields that have a column; the others are keys of custom_attributes. */
#define PROFILE_COLUMNS 8
#define PROFILE_CUSTOM	PROFILE_COLUMNS

typedef struct ProfileColumn
{
	const char *field;
	const char *column;
} ProfileColumn;

extern const ProfileColumn profile_columns[PROFILE_COLUMNS];

#define PROFILE_ALWAYS	 "overwrite_always"
#define PROFILE_IF_EMPTY "overwrite_if_empty"

extern bool profile_is(const char *value, int len, const char *word);
extern bool profile_is_blank(const JsonbValue *value);
extern void profile_value(Jsonb *jsonb, JsonbValue *value);
extern int	profile_column(const JsonbValue *field);
extern bool profile_writes(JsonbValue *entry, HeapTupleHeader profile, const JsonbValue *field,
						   JsonbValue *value);

extern void profile_new_init(void);

#endif /* FLOHSYNC_PROFILE_H */
