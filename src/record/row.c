/*
 * row.c
 *	  Rows of flohsync.resource_record, as C writes them without a statement
 *	  (insert.c, stored.c): which columns there are, and which values they take.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/rows.h"
#include "json/jsonb.h"
#include "record/row.h"

static const RowsColumn row_columns[ROW_NCOLUMNS] = {
	[ROW_CONNECTOR] = {"connector_id", UUIDOID},
	[ROW_TYPE] = {"resource_type", VARCHAROID},
	[ROW_EXTERNAL_ID] = {"external_id", VARCHAROID},
	[ROW_NAME] = {"display_name", VARCHAROID},
	[ROW_EMAIL] = {"email", VARCHAROID},
	[ROW_ATTRIBUTES] = {"attributes", JSONBOID},
	[ROW_HASH] = {"sync_hash", VARCHAROID},
	[ROW_OBSERVED_AT] = {"observed_at", TIMESTAMPTZOID},
	[ROW_EVENT_AT] = {"event_at", TIMESTAMPTZOID},
	[ROW_EVENT_KEYS] = {"event_keys", JSONBOID},
	[ROW_NUM] = {"record_no", INT8OID},
	[ROW_ID] = {"id", UUIDOID},
	[ROW_CREATED_AT] = {"created_at", TIMESTAMPTZOID},
	[ROW_STALE] = {"stale_since", TIMESTAMPTZOID},
};

/* row_find_columns: has a table these columns, and no others? */
bool
row_find_columns(Relation table, RowColumns columns)
{
	return rows_find_columns(table, row_columns, ROW_NCOLUMNS, columns);
}

/* row_text_fits: is a text no longer than its column?  More bytes may still be few characters. */
bool
row_text_fits(Relation table, const RowColumns columns, int column, const Slice *text)
{
	int typmod = TupleDescAttr(RelationGetDescr(table), columns[column] - 1)->atttypmod;

	return text->data == NULL || typmod < (int32) VARHDRSZ || text->len <= typmod - VARHDRSZ ||
		pg_mbstrlen_with_len(text->data, text->len) <= typmod - VARHDRSZ;
}

/* row_fits: are the texts of a record? */
bool
row_fits(Relation table, const RowColumns columns, const Record *record)
{
	Slice hash = {record->hash, FLOHSYNC_HASH_HEX};

	return row_text_fits(table, columns, ROW_EXTERNAL_ID, &record->external_id) &&
		row_text_fits(table, columns, ROW_NAME, &record->display_name) &&
		row_text_fits(table, columns, ROW_EMAIL, &record->email) &&
		row_text_fits(table, columns, ROW_HASH, &hash);
}

/*
 * row_attributes is what is stored as the attributes of a record that a parser (NULL: none
 * that is known) has read; 0: it has none.
 */
Datum
row_attributes(PageParser *parser, const Record *record)
{
	const JsonParser *tree = NULL;
	uint32			  node = 0;
	Slice			  text = record->attributes;

	if (text.data == NULL)
		return (Datum) 0;
	if (parser)
		tree = page_stored_tree(parser, record, &node);
	if (tree)
		return JsonbPGetDatum(json_node_to_jsonb(tree, node));
	if (parser)
		text = page_stored_attributes(parser, record);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(text.data, text.len)));
}
