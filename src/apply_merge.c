/*
 * apply_merge.c
 *	  Records that hold only what has changed are completed from what is stored.
 *
 * It is done on text: the members of the stored attributes, then those of each
 * record with that id in the order in which they came, in one object.  Of two
 * members of one name the later one counts, in jsonb as in the canonical form,
 * so this is what "||" does; and what comes out is read like any other records.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/json.h"

#include "apply.h"
#include "db.h"
#include "page.h"

typedef struct Stored
{
	Slice		display_name;
	Slice		email;
	Slice		attributes;
} Stored;

static Slice
merge_slice(uint64 row, int column)
{
	char	   *text = db_text(row, column);

	return (Slice) {text, text ? (int) strlen(text) : 0};
}

/* Reads what is stored of the records with different ids, whose places are first[]. */
static Stored *
merge_read(ApplyScope *scope, const Record *ids, int n)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text, r.display_name::pg_catalog.text, r.email::pg_catalog.text, r.attributes::pg_catalog.text"
		" from flohsync.resource_record r where r.connector_id = $1 and r.resource_type = $2 and r.external_id = any ($3)",
		3, {UUIDOID, TEXTOID, TEXTARRAYOID}, .by_index = true
	};
	Slice	   *slices = palloc(sizeof(Slice) * Max(n, 1));
	Stored	   *stored = palloc0(sizeof(Stored) * Max(n, 1));
	Datum		v[3] = {scope->connector, scope->resource_type};
	uint64		rows;

	for (int i = 0; i < n; i++)
		slices[i] = ids[i].external_id;
	v[2] = store_text_array(slices, n);
	rows = db_execute(&query, v, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		char	   *id = db_text(row, 1);
		int			i = page_find_id(ids, n, id, strlen(id));

		if (i < 0)
			continue;
		stored[i].display_name = merge_slice(row, 2);
		stored[i].email = merge_slice(row, 3);
		stored[i].attributes = merge_slice(row, 4);
	}
	return stored;
}

static void
merge_text(StringInfo out, const char *name, Slice value)
{
	appendStringInfo(out, ",\"%s\":", name);
	if (value.data == NULL)
		appendStringInfoString(out, "null");
	else
		escape_json(out, pnstrdup(value.data, value.len));
}

/* Adds the members of an object to one that is being written. */
static void
merge_members(StringInfo out, Slice object)
{
	int			from = 1;

	while (from < object.len - 1 && strchr(" \t\r\n", object.data[from]) != NULL)
		from++;
	if (object.data == NULL || from >= object.len - 1)
		return;
	if (out->data[out->len - 1] != '{')
		appendStringInfoChar(out, ',');
	appendBinaryStringInfo(out, object.data + from, object.len - 1 - from);
}

/*
 * apply_merge makes whole records of a partial page's, read by a parser of
 * their own; merged is the page with these.
 */
void
apply_merge(ApplyScope *scope, PageParser *parser, PageParser *merger, const UpstreamPage *page, UpstreamPage *merged)
{
	const Record *records = page->records;
	Record	   *ids = palloc(sizeof(Record) * Max(page->nrecords, 1));
	int			n = 0;
	Stored	   *stored;
	StringInfoData text;
	RecordFault *faults;
	const char *problem;

	for (int i = 0; i < page->nrecords; i++)
		if (n == 0 || page_compare_ids(ids[n - 1].external_id.data, ids[n - 1].external_id.len,
									   records[i].external_id.data, records[i].external_id.len) != 0)
			ids[n++] = records[i];
	stored = merge_read(scope, ids, n);

	initStringInfo(&text);
	appendStringInfoChar(&text, '[');
	for (int i = 0, k = 0; i < n; i++)
	{
		Stored	   *s = &stored[i];
		bool		has_attributes = s->attributes.data != NULL;
		StringInfoData attributes;

		initStringInfo(&attributes);
		appendStringInfoChar(&attributes, '{');
		merge_members(&attributes, s->attributes);
		for (; k < page->nrecords && page_compare_ids(ids[i].external_id.data, ids[i].external_id.len,
													  records[k].external_id.data, records[k].external_id.len) == 0; k++)
		{
			Slice		changed = page_stored_attributes(parser, &records[k]);

			if (!(records[k].partial & RECORD_KEEPS_NAME))
				s->display_name = records[k].display_name;
			if (!(records[k].partial & RECORD_KEEPS_EMAIL))
				s->email = records[k].email;
			has_attributes |= changed.data != NULL;
			merge_members(&attributes, changed);
		}
		appendStringInfoChar(&attributes, '}');
		appendStringInfoString(&text, i ? ",{\"externalId\":" : "{\"externalId\":");
		escape_json(&text, pnstrdup(ids[i].external_id.data, ids[i].external_id.len));
		merge_text(&text, "displayName", s->display_name);
		merge_text(&text, "email", s->email);
		if (has_attributes)
			appendStringInfo(&text, ",\"attributes\":%s", attributes.data);
		appendStringInfoChar(&text, '}');
		pfree(attributes.data);
	}
	appendStringInfoChar(&text, ']');

	if (!page_parse_records(merger, text.data, text.len, merged, &problem))
		elog(ERROR, "records that were put together cannot be read: %s", problem);
	faults = palloc(sizeof(RecordFault) * (page->nfaults + merged->nfaults + 1));
	memcpy(faults, page->faults, sizeof(RecordFault) * page->nfaults);
	memcpy(faults + page->nfaults, merged->faults, sizeof(RecordFault) * merged->nfaults);
	merged->faults = faults;
	merged->nfaults += page->nfaults;
	merged->deleted = page->deleted;
	merged->ndeleted = page->ndeleted;
	merged->received = page->received;
	merged->duplicates = page->duplicates + page->nrecords - n;
	merged->gone = page->gone;
	merged->truncated = page->truncated;
	merged->next_cursor = page->next_cursor;
	merged->total_estimate = page->total_estimate;
}
