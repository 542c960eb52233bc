/*
 * merge.c
 *	  Records that hold only what has changed, of pages and of webhooks, are
 *	  completed from what is stored.
 *
 * Merging is done on text: the members of the stored attributes, then those of
 * part in the order in which they came, in one object.  Of two members of one
 * name the later one counts, in jsonb as in the canonical form, so this is what
 * "||" does; and what comes out is read like any other records.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "base/bytes.h"
#include "base/db.h"
#include "base/db_value.h"
#include "page/page.h"
#include "record/apply.h"
#include "record/merge.h"

/* Amount of data, stored and of the page, merged at a time. */
#define MERGE_BYTES (8 * 1024 * 1024)

typedef struct Stored
{
	bool  there;
	Slice display_name;
	Slice email;
	Slice attributes;
} Stored;

struct Merge
{
	ApplyScope		   *scope;
	PageParser		   *parser; /* of the page */
	PageParser		   *merger; /* of the merged records */
	const UpstreamPage *page;
	bool				fresh_only; /* a stale record is as good as none */
	Record			   *ids;		/* the first record with each id */
	int64			   *bytes;		/* of its attributes as text */
	int					n;
	int					next;	 /* of ids: where the next part begins */
	int					at;		 /* of the page's records: likewise */
	MemoryContext		context; /* of a part */
};

static Slice
merge_slice(uint64 row, int column)
{
	char *text = db_text(row, column);

	return (Slice){text, text ? (int) strlen(text) : 0};
}

static Datum
merge_ids(const Record *ids, int n)
{
	Slice *slices = palloc(sizeof(Slice) * Max(n, 1));
	Datum  array;

	for (int i = 0; i < n; i++)
		slices[i] = ids[i].external_id;
	array = db_text_array(slices, n);
	pfree(slices);
	return array;
}

/*
 * Locks what is stored of a page's records, in the order of their ids, and
 * notes how large it is.  Concurrent writers of one of them wait: what is
 * merged from them must not undo their changes.
 */
static void
merge_lock(Merge *m)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text,"
		" pg_catalog.octet_length(r.attributes::pg_catalog.text)"
		" from flohsync.resource_record r where r.connector_id = $1 and r.resource_type = $2"
		" and r.external_id = any ($3)"
		" order by r.external_id collate \"C\" for no key update of r",
		3,
		{UUIDOID, TEXTOID, TEXTARRAYOID},
		.plan_as = PLAN_BY_INDEX};
	Datum  v[3] = {m->scope->connector, m->scope->resource_type, merge_ids(m->ids, m->n)};
	uint64 rows = db_execute(&query, v, NULL);

	for (uint64 row = 0; row < rows; row++)
	{
		char *id = db_text(row, 1);
		int	  i = page_find_id(m->ids, m->n, id, strlen(id));

		if (i < 0)
			continue;
		m->bytes[i] = db_int64(row, 2, 0);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Reads what is stored of so many records from the next one on. */
static Stored *
merge_read(const Merge *m, int n)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text, r.display_name::pg_catalog.text,"
		" r.email::pg_catalog.text, r.attributes::pg_catalog.text"
		" from flohsync.resource_record r where r.connector_id = $1 and r.resource_type = $2"
		" and r.external_id = any ($3)"
		" and (r.stale_since is null or not $4)",
		4,
		{UUIDOID, TEXTOID, TEXTARRAYOID, BOOLOID},
		.plan_as = PLAN_BY_INDEX};
	const Record *ids = m->ids + m->next;
	Stored		 *stored = palloc0(sizeof(Stored) * Max(n, 1));
	Datum		  v[4] = {m->scope->connector, m->scope->resource_type, merge_ids(ids, n),
						  BoolGetDatum(m->fresh_only)};
	uint64		  rows = db_execute(&query, v, NULL);

	/* SPI leaves its own context behind, which lives on. */
	MemoryContextSwitchTo(m->context);
	for (uint64 row = 0; row < rows; row++)
	{
		char *id = db_text(row, 1);
		int	  i = page_find_id(ids, n, id, strlen(id));

		if (i < 0)
			continue;
		stored[i].there = true;
		stored[i].display_name = merge_slice(row, 2);
		stored[i].email = merge_slice(row, 3);
		stored[i].attributes = merge_slice(row, 4);
	}
	SPI_freetuptable(SPI_tuptable);
	return stored;
}

/* merge_members adds the members of an object to one that is being written. */
void
merge_members(StringInfo out, Slice object)
{
	int from = 1;

	while (from < object.len - 1 && strchr(" \t\r\n", object.data[from]) != NULL)
		from++;
	if (object.data == NULL || from >= object.len - 1)
		return;
	if (out->data[out->len - 1] != '{')
		appendStringInfoChar(out, ',');
	appendBinaryStringInfo(out, object.data + from, object.len - 1 - from);
}

static void
merge_value(StringInfo out, const char *name, MergeValue value)
{
	if (value.text.data == NULL)
		return;
	appendStringInfo(out, ",\"%s\":", name);
	if (value.json)
		appendBinaryStringInfo(out, value.text.data, value.text.len);
	else
		escape_json(out, pnstrdup(value.text.data, value.text.len));
}

/* merge_write writes a record; attributes are JSON. */
void
merge_write(StringInfo out, Slice id, MergeValue name, MergeValue email, Slice attributes)
{
	appendStringInfoString(out, "{\"externalId\":");
	escape_json(out, pnstrdup(id.data, id.len));
	merge_value(out, "displayName", name);
	merge_value(out, "email", email);
	merge_value(out, "attributes", (MergeValue){attributes, true});
	appendStringInfoChar(out, '}');
}

static bool
merge_same(const Record *a, const Record *b)
{
	return page_compare_ids(a->external_id.data, a->external_id.len, b->external_id.data,
							b->external_id.len) == 0;
}

/*
 * merge_known tells of sorted records, of which several may have one id,
 * whether a record is stored that they can be put together with for certain.
 */
bool *
merge_known(ApplyScope *scope, const Record *records, int n)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text"
		" from flohsync.resource_record r where r.connector_id = $1 and r.resource_type = $2"
		" and r.external_id = any ($3)"
		" and r.stale_since is null",
		3,
		{UUIDOID, TEXTOID, TEXTARRAYOID},
		.plan_as = PLAN_BY_INDEX};
	bool  *known = palloc0(sizeof(bool) * Max(n, 1));
	Datum  v[3] = {scope->connector, scope->resource_type, merge_ids(records, n)};
	uint64 rows = db_execute(&query, v, NULL);

	for (uint64 row = 0; row < rows; row++)
	{
		char *id = db_text(row, 1);
		int	  i = page_find_id(records, n, id, strlen(id));

		if (i < 0)
			continue;
		for (int k = i; k >= 0 && merge_same(&records[k], &records[i]); k--)
			known[k] = true;
		for (int k = i; k < n && merge_same(&records[k], &records[i]); k++)
			known[k] = true;
	}
	SPI_freetuptable(SPI_tuptable);
	return known;
}

/*
 * merge_begin locks what a partial page is to be merged with; in the
 * current context.  fresh_only: a stale record may have missed changes.
 */
Merge *
merge_begin(ApplyScope *scope, PageParser *parser, PageParser *merger, const UpstreamPage *page,
			bool fresh_only)
{
	Merge *m = palloc0(sizeof(Merge));

	m->scope = scope;
	m->parser = parser;
	m->merger = merger;
	m->page = page;
	m->fresh_only = fresh_only;
	m->ids = palloc(sizeof(Record) * Max(page->nrecords, 1));
	for (int i = 0; i < page->nrecords; i++)
		if (m->n == 0 || !merge_same(&m->ids[m->n - 1], &page->records[i]))
			m->ids[m->n++] = page->records[i];
	m->bytes = palloc0(sizeof(int64) * Max(m->n, 1));
	m->context = AllocSetContextCreate(CurrentMemoryContext, "flohsync merge",
									   ALLOCSET_DEFAULT_SIZES);
	if (m->n > 0)
		merge_lock(m);
	return m;
}

/* How many ids the next part has, one at least. */
static int
merge_part(const Merge *m)
{
	int64 bytes = 0;
	int	  at = m->at;
	int	  n = 0;

	while (m->next + n < m->n)
	{
		bytes += m->bytes[m->next + n];
		for (; at < m->page->nrecords && merge_same(&m->ids[m->next + n], &m->page->records[at]);
			 at++)
			bytes += m->page->records[at].attributes.len;
		if (n > 0 && bytes > MERGE_BYTES)
			break;
		n++;
	}
	return n;
}

/*
 * merge_next makes whole records of the next part of the page's, read by
 * a parser of their own; merged has these and their faults, good until the next
 * call.  False when there are no more.
 *
 * known_only: of a record that is not stored, what has changed may not be all of
 * it.  It is set aside, in the page's faults.
 */
bool
merge_next(Merge *m, bool known_only, UpstreamPage *merged)
{
	const Record  *records = m->page->records;
	MemoryContext  old;
	int			   n;
	int			   nunknown = 0;
	Stored		  *stored;
	StringInfoData text;
	RecordFault	  *unknown;
	RecordFault	  *faults;
	const char	  *problem;

	MemoryContextReset(m->context);
	if (m->next == m->n)
		return false;
	old = MemoryContextSwitchTo(m->context);
	n = merge_part(m);
	ereport(DEBUG1, (errmsg_internal("merging %d records, %d of %d so far", n, m->next, m->n)));
	stored = merge_read(m, n);
	unknown = palloc(sizeof(RecordFault) * n);

	initStringInfo(&text);
	appendStringInfoChar(&text, '[');
	for (int i = 0; i < n; i++)
	{
		const Record  *id = &m->ids[m->next + i];
		Stored		  *s = &stored[i];
		bool		   has_attributes = s->attributes.data != NULL;
		StringInfoData attributes;

		initStringInfo(&attributes);
		appendStringInfoChar(&attributes, '{');
		merge_members(&attributes, s->attributes);
		for (; m->at < m->page->nrecords && merge_same(id, &records[m->at]); m->at++)
		{
			const Record *record = &records[m->at];
			Slice		  changed = page_stored_attributes(m->parser, record);

			if (!(record->partial & RECORD_KEEPS_NAME))
				s->display_name = record->display_name;
			if (!(record->partial & RECORD_KEEPS_EMAIL))
				s->email = record->email;
			has_attributes |= changed.data != NULL;
			/* What is too large already is set aside, and need not become larger. */
			if (attributes.len <= FLOHSYNC_MAX_RECORD_BYTES)
				merge_members(&attributes, changed);
		}
		appendStringInfoChar(&attributes, '}');
		if (known_only && !s->there)
			unknown[nunknown++] =
				(RecordFault){id->external_id,
							  ERRCLASS_PARTIAL_UNKNOWN,
							  error_class_entries[ERRCLASS_PARTIAL_UNKNOWN].meaning,
							  {pnstrdup(attributes.data, attributes.len), attributes.len},
							  id->position};
		else
		{
			if (text.len > 1)
				appendStringInfoChar(&text, ',');
			merge_write(&text, id->external_id, (MergeValue){s->display_name},
						(MergeValue){s->email},
						has_attributes ? (Slice){attributes.data, attributes.len} : (Slice){NULL});
		}
		pfree(attributes.data);
	}
	appendStringInfoChar(&text, ']');
	m->next += n;

	if (!page_parse_records(m->merger, text.data, text.len, merged, &problem))
		elog(ERROR, "could not read merged records: %s", problem);
	faults = palloc(sizeof(RecordFault) * (merged->nfaults + nunknown + 1));
	if (merged->nfaults > 0)
		memcpy(faults, merged->faults, sizeof(RecordFault) * merged->nfaults);
	memcpy(faults + merged->nfaults, unknown, sizeof(RecordFault) * nunknown);
	merged->faults = faults;
	merged->nfaults += nunknown;
	merged->unknown = nunknown;
	MemoryContextSwitchTo(old);
	return true;
}

/* Emptied by the next call of merge_next. */
MemoryContext
merge_context(const Merge *m)
{
	return m->context;
}

/* Number of records of the page that were merged with others. */
int
merge_duplicates(const Merge *m)
{
	return m->page->nrecords - m->n;
}
