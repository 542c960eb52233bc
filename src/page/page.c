/*
 * page.c
 *	  Reads one page of an upstream's answer: checks every record (page/record.c),
 *	  sets the bad ones aside, hashes the good ones and puts them in order.
 *
 * Invariants:
 *	- No byte of an answer raises an error, and one bad record never costs
 *	  another: what is in records can be stored as it is (valid UTF-8, no
 *	  U+0000, lengths within limits, attributes that jsonb takes).
 *	- What is not understood is never read as empty: a page without a list of
 *	  resources is a problem, an entry that cannot be used is a fault.
 *	- Bytes are checked for UTF-8 as a whole, and one by one only when that
 *	  fails.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "utils/memutils.h"
#endif

#include <limits.h>

#include "base/bytes.h"
#include "page/page.h"
#include "page/private.h"

CanonicalPath *
page_ignored(const char *const *paths, int n, int *nignored)
{
	static const char prefix[] = "attributes.";
	CanonicalPath	 *ignored = palloc0(sizeof(CanonicalPath) * (n + 1));

	*nignored = 0;
	for (int i = 0; i < n; i++)
	{
		const char *path = paths[i];

		if (strncmp(path, prefix, sizeof(prefix) - 1) == 0)
			path += sizeof(prefix) - 1;
		if (*path == '\0')
			continue;
		ignored[*nignored].separator = '.';
		ignored[*nignored].data = pstrdup(path);
		ignored[(*nignored)++].len = strlen(path);
	}
	return ignored;
}

PageParser *
page_parser_create(const char *const *hash_ignore, int nhash_ignore, PageMemory *memory)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "flohsync page parser",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	PageParser	 *parser = palloc0(sizeof(PageParser));

	if (memory == NULL)
	{
		memory = palloc(sizeof(PageMemory));
		memory_begin(memory, context);
	}
	parser->memory = memory;
	parser->context = context;
	parser->texts.context = context;
	parser->texts.memory = memory;
	parser->json = json_parser_create_limited(INT_MAX);
	parser->json->memory = memory;
	parser->canonical = canonical_create();
	parser->canonical->arena.memory = memory;
	parser->canonical->limit = 2 * FLOHSYNC_MAX_RECORD_BYTES;
	parser->ignore = page_ignored(hash_ignore, nhash_ignore, &parser->nignore);
	(void) MemoryContextSwitchTo(old);
	return parser;
}

PageMemory *
page_memory(const PageParser *parser)
{
	return parser->memory;
}

void
page_settle(PageParser *parser)
{
	json_parser_trim(parser->json, 0);
	canonical_trim(parser->canonical, 0);
}

/* Says which limit was passed; false. */
bool
page_too_large(PageParser *parser, UpstreamPage *page, const char **problem, const char *format,
			   ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(parser->problem, sizeof(parser->problem), format, args);
	va_end(args);
	*problem = parser->problem;
	page->too_large = true;
	return false;
}

void *
page_reserve(PageParser *parser, void *array, size_t *size, size_t wanted, size_t item)
{
	if (array != NULL && *size >= wanted)
		return array;
	if (array != NULL)
		pfree(array);
	*size = 0;
	memory_take(parser->memory, Max(wanted, 64) * item);
	array = MemoryContextAllocHuge(parser->context, Max(wanted, 64) * item);
	*size = Max(wanted, 64);
	return array;
}

void
page_room_records(PageParser *parser, size_t wanted)
{
	if (parser->records_size >= wanted)
		return;
	if (parser->records != NULL)
		pfree(parser->records);
	if (parser->sorted != NULL)
		pfree(parser->sorted);
	if (parser->keys != NULL)
		pfree(parser->keys);
	parser->records = parser->sorted = NULL;
	parser->keys = NULL;
	parser->records_size = 0;
	memory_take(parser->memory, wanted * 2 * (sizeof(Record) + sizeof(CanonicalKey)));
	parser->records = MemoryContextAllocHuge(parser->context, wanted * sizeof(Record));
	parser->sorted = MemoryContextAllocHuge(parser->context, wanted * sizeof(Record));
	parser->keys = MemoryContextAllocHuge(parser->context, wanted * 2 * sizeof(CanonicalKey));
	parser->records_size = wanted;
}

static inline void
page_find_members(const PageParser *parser, uint32 index, PageMapped *found)
{
	const JsonNode *nodes = parser->json->nodes;
	const char	   *text = parser->json->text;

	memset(found, 0, sizeof(PageMapped));
	found->json = parser->json;
	found->record = index;
	found->external_id.json = found->display_name.json = found->email.json =
		found->attributes.json = parser->json;
	for (uint32 i = nodes[index].child; i != 0; i = nodes[nodes[i].next].next)
	{
		const char *name = text + nodes[i].start + 1;
		uint32		len = nodes[i].end - nodes[i].start - 2;
		char		decoded[128];

		if (unlikely(nodes[i].flags & JSON_F_ESCAPED))
		{
			if (len > sizeof(decoded))
				continue;
			len = json_string_decode(parser->json, &nodes[i], decoded);
			name = decoded;
		}
		if (len == 10 && memcmp(name, "externalId", 10) == 0)
			found->external_id.node = nodes[i].next;
		else if (len == 11 && memcmp(name, "displayName", 11) == 0)
			found->display_name.node = nodes[i].next;
		else if (len == 5 && memcmp(name, "email", 5) == 0)
			found->email.node = nodes[i].next;
		else if (len == 10 && memcmp(name, "attributes", 10) == 0)
			found->attributes.node = nodes[i].next;
	}
}

static void
page_read_record(PageParser *parser, UpstreamPage *page, uint32 index, uint32 position)
{
	PageMapped found;

	if (parser->json->nodes[index].type != JSON_OBJECT)
	{
		page_set_aside(parser, page, parser->json, index, position, (Slice){NULL, 0},
					   ERRCLASS_RECORD_TYPE, NULL);
		return;
	}
	page_find_members(parser, index, &found);
	page_add_record(parser, page, &found, position);
}

/* Sorts by external_id; of the same id the one that came last stays. */
void
page_sort_records(PageParser *parser, UpstreamPage *page)
{
	const char	 *start = parser->json->text;
	const char	 *limit = start + parser->json->len;
	Record		 *records = parser->records;
	CanonicalKey *keys = parser->keys;
	int			  n = page->nrecords;
	int			  kept = 0;
	bool		  ascending = true;

	page->records = records;
	page->heaviest = parser->heaviest;
	for (int i = 0; i < n; i++)
	{
		Slice id = records[i].external_id;
		bool  in_body = id.data >= start && id.data < limit;

		canonical_key_init(&keys[i], id.data, id.len, in_body ? limit : id.data + id.len, false, i);
		if (ascending && i > 0 && canonical_key_compare(&keys[i - 1], &keys[i]) >= 0)
			ascending = false;
	}
	if (ascending)
		return;
	canonical_key_sort(keys, keys + n, n);
	for (int i = 0; i < n; i++)
	{
		if (i + 1 < n && canonical_key_compare(&keys[i], &keys[i + 1]) == 0 && !page->partial)
			page->duplicates++;
		else
			parser->sorted[kept++] = records[keys[i].ref];
	}
	page->records = parser->sorted;
	page->nrecords = kept;
}

static void
page_read_list(PageParser *parser, UpstreamPage *page, uint32 first)
{
	const JsonNode *nodes = parser->json->nodes;

	for (uint32 i = first; i != 0; i = nodes[i].next)
	{
		CHECK_FOR_INTERRUPTS();
		if (page_knows(parser, page, parser->json, i))
			continue;
		page_read_record(parser, page, i, page->received);
		page->received++;
	}
}

/* Entries of payload.deleted that name nothing become faults, too. */
static void
page_read_deleted(PageParser *parser, UpstreamPage *page, uint32 list)
{
	const JsonNode *nodes = parser->json->nodes;
	uint32			position = 0;

	for (uint32 i = nodes[list].child; i != 0; i = nodes[i].next)
	{
		Slice	   id;
		ErrorClass error_class = page_id(parser, parser->json, i, &id);

		if (error_class == ERRCLASS_NONE)
			parser->deleted[page->ndeleted++] = id;
		else
			page_set_aside(parser, page, parser->json, i, position, (Slice){NULL, 0}, error_class,
						   "an entry of payload.deleted is not a usable id");
		position++;
	}
	page->deleted = parser->deleted;
}

bool
page_begin(PageParser *parser, const char *body, size_t len, uint32 max_depth, UpstreamPage *page,
		   const char **problem)
{
	JsonParser *json = parser->json;

	memset(page, 0, sizeof(UpstreamPage));
	page->total_estimate = -1;
	parser->heaviest = 0;
	*problem = NULL;
	canonical_arena_reset(&parser->texts);
	canonical_trim(parser->canonical, memory_keep());
	/* Mostly a value has 20 bytes; more than twice as many nodes may be needed elsewhere. */
	json_parser_trim(json, Max(len / 10, memory_keep() / sizeof(JsonNode)));
	if (parser->attributes)
		json_parser_trim(parser->attributes, memory_keep() / sizeof(JsonNode));
	if (len >= INT_MAX)
		return page_too_large(parser, page, problem, "the answer is larger than %d bytes",
							  INT_MAX - 1);
	/* Where most records are known, only what is read is looked at. */
	parser->utf8 = !page_knows_much(parser) && page_is_utf8(body, len);
	if (!json_parse(json, body, len, max_depth))
	{
		snprintf(parser->problem, sizeof(parser->problem), "the answer is not JSON: %s at byte %zu",
				 json->error, json->error_offset);
		*problem = parser->problem;
		return false;
	}
	return true;
}

/* A string node as a C string of the parser's, at most max - 1 bytes of it. */
static char *
page_cstring(PageParser *parser, const JsonNode *node, int max)
{
	Slice text = page_text(parser, parser->json, node);
	char *result;

	if (text.len >= max)
	{
		text.len = max - 1;
		while (text.len > 0 && (text.data[text.len] & 0xC0) == 0x80)
			text.len--;
	}
	result = canonical_arena_alloc(&parser->texts, text.len + 1);
	memcpy(result, text.data, text.len);
	result[text.len] = '\0';
	return result;
}

/* The reason in an answer without success, NULL when it gives none. */
static char *
page_error_text(PageParser *parser, uint32 node)
{
	const JsonNode *nodes = parser->json->nodes;

	if (node != 0 && nodes[node].type == JSON_OBJECT)
		node = json_member(parser->json, node, "message", 7);
	if (node == 0 || nodes[node].type != JSON_STRING || nodes[node].end - nodes[node].start <= 2)
		return NULL;
	if (!page_node_is_utf8(parser, parser->json, &nodes[node]))
		return NULL;
	return page_cstring(parser, &nodes[node], FLOHSYNC_MAX_ERROR_BYTES);
}

static bool
page_read_cursor(PageParser *parser, UpstreamPage *page, uint32 index, const char **problem)
{
	const JsonNode *node = &parser->json->nodes[index];
	Slice			raw = page_raw(parser->json, node);
	Slice			text;

	if (index == 0 || node->type == JSON_NULL)
		return true;
	*problem = "payload.nextCursor is neither a string nor an integer";
	if (node->type == JSON_STRING)
	{
		if ((node->flags & JSON_F_BAD_ESCAPE) || !page_node_is_utf8(parser, parser->json, node))
			return false;
		text = page_text(parser, parser->json, node);
	}
	else if (json_is_integer(parser->json, node))
		text = raw;
	else
		return false;
	if (text.len > FLOHSYNC_MAX_CURSOR_BYTES)
		return page_too_large(parser, page, problem,
							  "payload.nextCursor has %d bytes, more than %d", text.len,
							  FLOHSYNC_MAX_CURSOR_BYTES);
	*problem = NULL;
	if (text.len == 0)
		return true;
	page->next_cursor = canonical_arena_alloc(&parser->texts, text.len + 1);
	memcpy(page->next_cursor, text.data, text.len);
	page->next_cursor[text.len] = '\0';
	return true;
}

static int64
page_estimate(PageParser *parser, uint32 index)
{
	const JsonNode *node = &parser->json->nodes[index];
	Slice			raw = page_raw(parser->json, node);
	int64			estimate = 0;

	if (index == 0 || !json_is_integer(parser->json, node) || raw.data[0] == '-' || raw.len > 18)
		return -1;
	for (int i = 0; i < raw.len; i++)
		estimate = estimate * 10 + (raw.data[i] - '0');
	return estimate;
}

/* The record of an answer about one; null says that there is none. */
static void
page_read_one(PageParser *parser, UpstreamPage *page, uint32 record)
{
	const JsonNode *nodes = parser->json->nodes;
	uint32			depth;

	page_room_records(parser, 1);
	parser->faults = page_reserve(parser, parser->faults, &parser->faults_size, 1,
								  sizeof(RecordFault));
	page->faults = parser->faults;
	page->success = true;
	if (nodes[record].type == JSON_NULL)
		return;
	page->received = 1;
	/* It is one level higher than in a list. */
	(void) json_weight(parser->json, record, &depth);
	if (depth > FLOHSYNC_MAX_NESTING)
		page_set_aside(parser, page, parser->json, record, 0, (Slice){NULL, 0},
					   ERRCLASS_NESTING_TOO_DEEP, NULL);
	else
		page_read_record(parser, page, record, 0);
	page_sort_records(parser, page);
}

/*
 * Longer than a screen: the members of an answer, in turn.
 */
static bool
page_parse_answer(PageParser *parser, const char *body, size_t len, bool one, UpstreamPage *page,
				  const char **problem)
{
	JsonParser	   *json = parser->json;
	const JsonNode *nodes;
	uint32			success;
	uint32			payload;
	uint32			record;
	uint32			resources;
	uint32			deleted;
	uint32			error;

	page_knows_begin(parser, one ? 0 : LEVELS_ABOVE_RECORD + 1);
	if (!page_begin(parser, body, len, LEVELS_ABOVE_RECORD + FLOHSYNC_MAX_NESTING, page, problem))
		return false;
	nodes = json->nodes;
	if (nodes[JSON_ROOT].type != JSON_OBJECT)
	{
		*problem = "the answer is not a JSON object";
		return false;
	}

	success = json_member(json, JSON_ROOT, "success", 7);
	error = json_member(json, JSON_ROOT, "error", 5);
	/* A success with an error: it is unknown what is missing. */
	if (success == 0 || nodes[success].type != JSON_TRUE ||
		(error != 0 && json_says_yes(json, error)))
	{
		page->upstream_error = page_error_text(parser, error);
		if (page->upstream_error == NULL)
			page->upstream_error = page_error_text(parser,
												   json_member(json, JSON_ROOT, "message", 7));
		page->unexplained = page->upstream_error == NULL;
		if (page->unexplained)
			page->upstream_error = success == 0 ||
					(nodes[success].type != JSON_TRUE && nodes[success].type != JSON_FALSE) ?
				"the answer does not say \"success\": true" :
				"the upstream reported a failure and gave no reason";
		return true;
	}

	payload = json_member(json, JSON_ROOT, "payload", 7);
	if (payload == 0 || nodes[payload].type != JSON_OBJECT)
	{
		*problem = "the answer has no payload object";
		return false;
	}
	record = one ? json_member(json, payload, "resource", 8) : 0;
	if (record != 0)
	{
		page_read_one(parser, page, record);
		return true;
	}
	resources = json_member(json, payload, "resources", 9);
	if (resources == 0 || nodes[resources].type != JSON_ARRAY)
	{
		*problem = "payload.resources is not an array";
		return false;
	}
	if (nodes[resources].count > FLOHSYNC_MAX_PAGE_RECORDS)
		return page_too_large(parser, page, problem, "the page has %u records, more than %d",
							  nodes[resources].count, FLOHSYNC_MAX_PAGE_RECORDS);
	deleted = json_member(json, payload, "deleted", 7);
	if (deleted != 0 && nodes[deleted].type == JSON_NULL)
		deleted = 0;
	if (deleted != 0 && nodes[deleted].type != JSON_ARRAY)
	{
		*problem = "payload.deleted is not an array";
		return false;
	}
	if (nodes[deleted].count > FLOHSYNC_MAX_PAGE_DELETED)
		return page_too_large(parser, page, problem, "payload.deleted has %u entries, more than %d",
							  nodes[deleted].count, FLOHSYNC_MAX_PAGE_DELETED);
	if (!page_read_cursor(parser, page, json_member(json, payload, "nextCursor", 10), problem))
		return false;
	page->total_estimate = page_estimate(parser, json_member(json, payload, "totalEstimate", 13));

	page_room_records(parser, nodes[resources].count + 1);
	parser->deleted = page_reserve(parser, parser->deleted, &parser->deleted_size,
								   nodes[deleted].count, sizeof(Slice));
	parser->faults = page_reserve(parser, parser->faults, &parser->faults_size,
								  nodes[resources].count + nodes[deleted].count,
								  sizeof(RecordFault));
	page->faults = parser->faults;
	page_knows_room(parser, page, nodes[resources].count);
	page_read_list(parser, page, nodes[resources].child);
	if (page_knows_wrongly(parser, page))
		return page_parse_answer(parser, body, len, one, page, problem);
	page_sort_records(parser, page);
	if (deleted != 0)
		page_read_deleted(parser, page, deleted);
	page->success = true;
	return true;
}

bool
page_parse(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
		   const char **problem)
{
	return page_parse_answer(parser, body, len, false, page, problem);
}

bool
page_parse_one(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
			   const char **problem)
{
	return page_parse_answer(parser, body, len, true, page, problem);
}

void
page_make_empty(PageParser *parser, UpstreamPage *page)
{
	const char *problem;

	(void) page_parse_list(parser, "[]", 2, page, &problem);
}

/* Reads a list of at most so many records, or one record. */
static bool
page_parse_bare(PageParser *parser, const char *body, size_t len, uint32 most, UpstreamPage *page,
				const char **problem)
{
	const JsonNode *root;
	size_t			start = 0;
	bool			list;

	while (start < len && strchr(" \t\r\n", body[start]) != NULL && body[start] != '\0')
		start++;
	list = start < len && body[start] == '[';
	if (!page_begin(parser, body, len, FLOHSYNC_MAX_NESTING + (list ? 1 : 0), page, problem))
		return false;
	root = &parser->json->nodes[JSON_ROOT];
	if (list && root->count > most)
		return page_too_large(parser, page, problem, "there are %u, more than %u", root->count,
							  most);
	page_room_records(parser, list ? root->count + 1 : 2);
	parser->faults = page_reserve(parser, parser->faults, &parser->faults_size,
								  list ? root->count : 1, sizeof(RecordFault));
	page->faults = parser->faults;
	page_read_list(parser, page, list ? root->child : JSON_ROOT);
	page_sort_records(parser, page);
	page->success = true;
	return true;
}

bool
page_parse_records(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
				   const char **problem)
{
	return page_parse_bare(parser, body, len, FLOHSYNC_MAX_UPSERT_RECORDS, page, problem);
}

bool
page_parse_list(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
				const char **problem)
{
	return page_parse_bare(parser, body, len, FLOHSYNC_MAX_PAGE_RECORDS, page, problem);
}
