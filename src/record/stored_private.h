/*
 * stored_private.h
 *	  The table of stored records, shared by stored.c and stored_write.c only.
 */
#ifndef FLOHSYNC_RECORD_STORED_PRIVATE_H
#define FLOHSYNC_RECORD_STORED_PRIVATE_H

#include "record/row.h"

/* Good where stored_possible says so. */
extern Oid		  stored_table;
extern RowColumns stored_columns;

extern bool stored_possible(void);

#endif /* FLOHSYNC_RECORD_STORED_PRIVATE_H */
