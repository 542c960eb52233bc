/*
 * mapped.c
 *	  Pages whose records are located and taken apart by another module, and
 *	  what is excluded from their attributes.
 *
 * Of a record and its deletion on one page, the later one counts.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/bytes.h"
#include "page/page.h"
#include "page/private.h"

void
page_exclude(PageParser *parser, const CanonicalPath *paths, int n)
{
	CanonicalPath *all;

	if (parser->excludes)
		return;
	parser->excludes = true;
	all = MemoryContextAlloc(parser->context, sizeof(CanonicalPath) * (parser->nignore + n + 1));
	/* Those that are not stored come first. */
	if (n > 0)
		memcpy(all, paths, sizeof(CanonicalPath) * n);
	memcpy(all + n, parser->ignore, sizeof(CanonicalPath) * parser->nignore);
	pfree(parser->ignore);
	parser->ignore = all;
	parser->nignore += n;
	parser->nexclude = n;
}

JsonParser *
page_mapped_begin(PageParser *parser, const char *body, size_t len, int levels, UpstreamPage *page,
				  const char **problem)
{
	page_knows_begin(parser, 0);
	return page_begin(parser, body, len, FLOHSYNC_MAX_NESTING + levels, page, problem) ?
		parser->json :
		NULL;
}

bool
page_mapped_room(PageParser *parser, UpstreamPage *page, uint32 records, const char **problem)
{
	if (records > FLOHSYNC_MAX_PAGE_RECORDS)
		return page_too_large(parser, page, problem, "the page has %u records, more than %d",
							  records, FLOHSYNC_MAX_PAGE_RECORDS);
	page_room_records(parser, records + 1);
	page_knows_room(parser, page, records);
	parser->deleted = page_reserve(parser, parser->deleted, &parser->deleted_size, records,
								   sizeof(Slice));
	parser->deleted_at = page_reserve(parser, parser->deleted_at, &parser->deleted_at_size, records,
									  sizeof(uint32));
	parser->faults = page_reserve(parser, parser->faults, &parser->faults_size, records,
								  sizeof(RecordFault));
	page->faults = parser->faults;
	page->deleted = parser->deleted;
	return true;
}

static void
page_mapped_gone(PageParser *parser, UpstreamPage *page, const PageMapped *found, uint32 position)
{
	Record	   record;
	ErrorClass error_class;
	bool	   truncated;

	error_class = page_check_record(parser, found, &record, &truncated);
	/* Of a record that is gone, only the id counts. */
	if (record.external_id.data == NULL)
	{
		page_set_aside(parser, page, found->json, found->record, position, (Slice){NULL, 0},
					   error_class, NULL);
		return;
	}
	page->gone++;
	parser->deleted_at[page->ndeleted] = position;
	parser->deleted[page->ndeleted++] = record.external_id;
}

/* How many keys from one on are the same. */
static int
page_mapped_same(const CanonicalKey *keys, int n, int from)
{
	int i = from + 1;

	while (i < n && canonical_key_compare(&keys[from], &keys[i]) == 0)
		i++;
	return i - from;
}

/*
 * A deletion undoes what the page said of the record before, and a record after
 * its deletion undoes that.  Both are sorted by their ids, so that what is said
 * of one stands together.
 */
static void
page_mapped_undo(PageParser *parser, UpstreamPage *page)
{
	Record		 *records = parser->records;
	int			  n = page->nrecords;
	int			  ngone = page->ndeleted;
	CanonicalKey *of_records = parser->keys;
	CanonicalKey *of_gone = parser->keys +
		n; /* records and deletions are no more than there is room for records */
	int kept = 0;

	for (int i = 0; i < n; i++)
	{
		Slice id = records[i].external_id;

		canonical_key_init(&of_records[i], id.data, id.len, id.data + id.len, false, i);
	}
	for (int i = 0; i < ngone; i++)
	{
		Slice id = parser->deleted[i];

		canonical_key_init(&of_gone[i], id.data, id.len, id.data + id.len, false, i);
	}
	canonical_key_sort(of_records, of_gone + ngone, n);
	canonical_key_sort(of_gone, of_gone + ngone, ngone);
	for (int r = 0, g = 0, same; g < ngone; g += same)
	{
		uint32 last = 0;
		bool   back = false;

		/* Of one deletion that comes twice, one is enough. */
		same = page_mapped_same(of_gone, ngone, g);
		for (int i = g; i < g + same; i++)
		{
			last = Max(last, parser->deleted_at[of_gone[i].ref]);
			if (i > g)
				parser->deleted[of_gone[i].ref].data = NULL;
		}
		while (r < n && canonical_key_compare(&of_records[r], &of_gone[g]) < 0)
			r++;
		for (; r < n && canonical_key_compare(&of_records[r], &of_gone[g]) == 0; r++)
		{
			Record *record = &records[of_records[r].ref];

			if (record->position > last)
				back = true;
			else
				record->partial |= RECORD_UNDONE;
		}
		if (back)
			parser->deleted[of_gone[g].ref].data = NULL;
	}
	for (int i = 0; i < n; i++)
	{
		if (records[i].partial & RECORD_UNDONE)
			page->duplicates++;
		else
			records[kept++] = records[i];
	}
	page->nrecords = kept;
	kept = 0;
	for (int i = 0; i < ngone; i++)
		if (parser->deleted[i].data != NULL)
			parser->deleted[kept++] = parser->deleted[i];
	page->ndeleted = kept;
}

void
page_mapped_add(PageParser *parser, UpstreamPage *page, const PageMapped *found)
{
	uint32 position = page->received++;

	CHECK_FOR_INTERRUPTS();
	if (found->json->nodes[found->record].type != JSON_OBJECT)
		page_set_aside(parser, page, found->json, found->record, position, (Slice){NULL, 0},
					   ERRCLASS_RECORD_TYPE, NULL);
	else if (found->gone)
		page_mapped_gone(parser, page, found, position);
	else
		page_add_record(parser, page, found, position);
}

bool
page_mapped_knows(PageParser *parser, UpstreamPage *page, const JsonParser *json, uint32 record)
{
	return page_knows(parser, page, json, record);
}

bool
page_mapped_again(PageParser *parser, UpstreamPage *page)
{
	if (!page_knows_wrongly(parser, page))
		return false;
	page->nrecords = page->nfaults = page->ndeleted = page->received = page->truncated =
		page->gone = page->nknown = page->nknown_out = 0;
	return true;
}

void
page_mapped_end(PageParser *parser, UpstreamPage *page)
{
	if (page->ndeleted > 0)
		page_mapped_undo(parser, page);
	page_sort_records(parser, page);
	page->success = true;
}

bool
page_is_clean(const PageParser *parser, const JsonParser *json, uint32 node)
{
	return (json->nodes[node].flags & JSON_F_BAD) == 0 &&
		page_node_is_utf8(parser, json, &json->nodes[node]);
}

Slice
page_value_text(PageParser *parser, const JsonParser *json, uint32 node)
{
	const JsonNode *value = &json->nodes[node];

	if (node == 0 || !page_is_clean(parser, json, node) || value->type == JSON_OBJECT ||
		value->type == JSON_ARRAY)
		return (Slice){NULL, 0};
	return value->type == JSON_STRING ? page_text(parser, json, value) : page_raw(json, value);
}

/* Does a name stand at the head of a path that leads on (or: ends there)? */
static bool
page_path_head(const CanonicalPath *path, uint32 offset, const char *name, uint32 len, bool ends)
{
	return path->len - offset >= len && memcmp(path->data + offset, name, len) == 0 &&
		(ends ? path->len - offset == len :
				path->len - offset > len && path->data[offset + len] == path->separator);
}

typedef struct PageTail
{
	int	   path;
	uint32 offset;
} PageTail;

/* Writes a value without what the tails lead to; the depth is that of a record. */
static void
page_render(PageParser *parser, Canonical *out, const JsonParser *json, uint32 index,
			const PageTail *tails, int ntails)
{
	const JsonNode *node = &json->nodes[index];
	PageTail	   *inner;
	bool			first = true;

	if (ntails == 0 || (node->type != JSON_OBJECT && node->type != JSON_ARRAY))
	{
		canonical_append_bytes(out, json->text + node->start, node->end - node->start);
		return;
	}
	if (node->type == JSON_ARRAY)
	{
		canonical_append_bytes(out, "[", 1);
		for (uint32 i = node->child; i != 0; i = json->nodes[i].next)
		{
			canonical_append_bytes(out, ",", first ? 0 : 1);
			first = false;
			page_render(parser, out, json, i, tails, ntails);
		}
		canonical_append_bytes(out, "]", 1);
		return;
	}
	inner = palloc(sizeof(PageTail) * ntails);
	canonical_append_bytes(out, "{", 1);
	for (uint32 i = node->child; i != 0; i = json->nodes[json->nodes[i].next].next)
	{
		const JsonNode *name = &json->nodes[i];
		Slice			key = page_text(parser, json, name);
		bool			left_out = false;
		int				n = 0;

		for (int k = 0; k < ntails && !left_out; k++)
		{
			const CanonicalPath *path = &parser->ignore[tails[k].path];

			left_out = page_path_head(path, tails[k].offset, key.data, key.len, true);
			if (page_path_head(path, tails[k].offset, key.data, key.len, false))
				inner[n++] = (PageTail){tails[k].path, tails[k].offset + key.len + 1};
		}
		if (left_out)
			continue;
		canonical_append_bytes(out, ",", first ? 0 : 1);
		first = false;
		canonical_append_bytes(out, json->text + name->start, name->end - name->start);
		canonical_append_bytes(out, ":", 1);
		page_render(parser, out, json, name->next, inner, n);
	}
	canonical_append_bytes(out, "}", 1);
	pfree(inner);
}

Slice
page_without_excluded(PageParser *parser, const JsonParser *json, uint32 node)
{
	Canonical *out = parser->canonical;
	PageTail  *tails = palloc(sizeof(PageTail) * (parser->nexclude + 1));
	char	  *text;

	for (int i = 0; i < parser->nexclude; i++)
		tails[i] = (PageTail){i, 0};
	canonical_reset(out);
	page_render(parser, out, json, node, tails, parser->nexclude);
	pfree(tails);
	text = canonical_arena_alloc(&parser->texts, out->len + 1);
	memcpy(text, out->data, out->len);
	text[out->len] = '\0';
	return (Slice){text, (int) out->len};
}

Slice
page_stored_attributes(PageParser *parser, const Record *record)
{
	if (parser->nexclude == 0 || record->attributes_node == 0)
		return record->attributes;
	return page_without_excluded(parser, parser->json, record->attributes_node);
}

const JsonParser *
page_stored_tree(const PageParser *parser, const Record *record, uint32 *node)
{
	if (parser->nexclude > 0 || record->attributes_node == 0)
		return NULL;
	*node = record->attributes_node;
	return parser->json;
}
