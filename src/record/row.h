/*
 * row.h
 *	  Rows of flohsync.resource_record, as C writes them.  See row.c.
 */
#ifndef FLOHSYNC_RECORD_ROW_H
#define FLOHSYNC_RECORD_ROW_H

#include "access/attnum.h"
#include "utils/rel.h"

#include "page/page.h"

/* What a statement that inserts names comes first; the others get their defaults. */
enum
{
	ROW_CONNECTOR,
	ROW_TYPE,
	ROW_EXTERNAL_ID,
	ROW_NAME,
	ROW_EMAIL,
	ROW_ATTRIBUTES,
	ROW_HASH,
	ROW_OBSERVED_AT,
	ROW_EVENT_AT,
	ROW_EVENT_KEYS,
	ROW_NGIVEN,
	ROW_NUM = ROW_NGIVEN,
	ROW_ID,
	ROW_CREATED_AT,
	ROW_STALE,
	ROW_NCOLUMNS
};

/* Where each is in the table. */
typedef AttrNumber RowColumns[ROW_NCOLUMNS];

extern bool	 row_find_columns(Relation table, RowColumns columns);
extern bool	 row_text_fits(Relation table, const RowColumns columns, int column, const Slice *text);
extern bool	 row_fits(Relation table, const RowColumns columns, const Record *record);
extern Datum row_attributes(PageParser *parser, const Record *record);

#endif /* FLOHSYNC_RECORD_ROW_H */
