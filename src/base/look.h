/*
 * look.h
 *	  Rows of a table of the extension, found by an index.  See look.c.
 */
#ifndef FLOHSYNC_LOOK_H
#define FLOHSYNC_LOOK_H

#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

typedef struct Look
{
	Relation		table;
	Relation		index;
	TupleTableSlot *slot;
	IndexScanDesc	scan;
} Look;

extern Oid	 look_relation(const char *schema, const char *name);
extern bool	 look_find(const char *schema, const char *table, const char *index, Oid *table_id,
					   Oid *index_id);
extern void	 look_may_read(Oid table);
extern void	 look_open(Look *look, Oid table, Oid index, Snapshot snapshot, int nkeys);
extern void	 look_close(Look *look);
extern void	 look_text_key(ScanKey key, const Look *look, int column, Datum value);
extern void	 look_uuid_key(ScanKey key, int column, const pg_uuid_t *value);
extern void	 look_int8_key(ScanKey key, int column, int64 value);
extern bool	 look_next(Look *look);
extern Datum look_value(Look *look, int column, bool *isnull);

#endif /* FLOHSYNC_LOOK_H */
