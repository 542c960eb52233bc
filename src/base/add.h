/*
 * add.h
 *	  A row added to a table of the extension without a statement.  See add.c.
 */
#ifndef FLOHSYNC_ADD_H
#define FLOHSYNC_ADD_H

#include "access/attnum.h"

#include "base/rows.h"

#define ADD_COLUMNS 6

/* A table, and all of its columns.  Static; the rest is for add.c. */
typedef struct AddTable
{
	const char		*name; /* in the internal schema */
	RowsColumn		 columns[ADD_COLUMNS];
	bool			 known; /* what follows; until the table is changed */
	bool			 plain; /* it has nothing but what the extension made */
	Oid				 oid;
	AttrNumber		 places[ADD_COLUMNS];
	bool			 listed; /* among those that changes are looked for of */
	struct AddTable *next;
} AddTable;

/* Whether a row was added; ADD_IMPOSSIBLE: nothing was done, a statement has to do it. */
typedef enum AddResult
{
	ADD_DONE,
	ADD_CONFLICT, /* there is one of the key */
	ADD_IMPOSSIBLE
} AddResult;

extern AddResult add_row(AddTable *table, const Datum *values, const bool *nulls,
						 bool unless_there);

#endif /* FLOHSYNC_ADD_H */
