/*
 * db_value.h
 *	  Arrays for statements, and values of their rows.  See db_value.c.
 */
#ifndef FLOHSYNC_DB_VALUE_H
#define FLOHSYNC_DB_VALUE_H

#include "utils/uuid.h"

#include "base/bytes.h"

extern Datum  db_uuid_array(const pg_uuid_t *ids, int n);
extern Datum  db_text_array(const Slice *slices, int n);
extern int	  db_get_texts(uint64 row, int column, char ***texts, MemoryContext context);
extern bytea *db_get_bytea(uint64 row, int column, MemoryContext context);
extern char	 *db_get_text(uint64 row, int column, MemoryContext context);

#endif /* FLOHSYNC_DB_VALUE_H */
