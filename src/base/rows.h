/*
 * rows.h
 *	  Rows of a table of the extension, inserted without a statement.  See rows.c.
 */
#ifndef FLOHSYNC_ROWS_H
#define FLOHSYNC_ROWS_H

#include "executor/executor.h"
#include "utils/reltrigger.h"

typedef struct Rows
{
	Relation	   table;
	AttrNumber	   alike; /* the column in which all rows are the same */
	EState		  *estate;
	ResultRelInfo *target; /* with all triggers */
	ResultRelInfo *others; /* without those that are called for the first row alone */
	int			   done;   /* rows that have been inserted */
} Rows;

typedef struct RowsColumn
{
	const char *name;
	Oid			type;
} RowsColumn;

typedef bool (*RowsNeedless)(const Trigger *trigger, void *arg);

extern bool rows_find_columns(Relation table, const RowsColumn *columns, int n, AttrNumber *places);
extern bool rows_are_plain(Relation table);
extern bool rows_possible(Relation table, AttrNumber alike);
extern void rows_begin(Rows *rows, Relation table, AttrNumber alike, RowsNeedless needless,
					   void *arg);
extern TupleTableSlot *rows_slot(const Rows *rows);
extern void			   rows_made(const Rows *rows, TupleTableSlot *slot);
extern void			   rows_insert(Rows *rows, TupleTableSlot **slots, int n);
extern void			   rows_end(Rows *rows);

#endif /* FLOHSYNC_ROWS_H */
