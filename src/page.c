/*
 * page.c
 *	  Reads one page of an upstream's answer: checks every record, sets the
 *	  bad ones aside, hashes the good ones and puts them in order.
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
#include "shim.h"
#else
#include "postgres.h"

#include "utils/memutils.h"
#endif

#include <limits.h>

#include "canonical.h"
#include "json.h"
#include "mb/pg_wchar.h"
#include "page.h"

/* Contract, section 3. */
#define MAX_ID_CHARS			255
#define MAX_EMAIL_CHARS			255

/* A longer literal is set aside with those of too great an exponent. */
#define MAX_NUMBER_LENGTH		4000

/* The tree of a 64 MB body of short values would take 768 MB. */
#define MAX_PAGE_NODES			(16 * 1024 * 1024)

#define MAX_ERROR_BYTES			1024

/* Levels around a record: answer, payload, resources. */
#define LEVELS_ABOVE_RECORD		3

#define KEEP_NODES				(1024 * 1024)
#define KEEP_BYTES				(16 * 1024 * 1024)

struct PageParser
{
	MemoryContext context;
	JsonParser *json;
	Canonical  *canonical;
	CanonicalArena texts;		/* strings that had escapes */
	CanonicalPath *ignore;
	int			nignore;
	int			nexclude;		/* so many of the first are not stored either */
	Record	   *records;
	Record	   *sorted;
	CanonicalKey *keys;
	size_t		records_size;
	RecordFault *faults;
	size_t		faults_size;
	Slice	   *deleted;
	size_t		deleted_size;
	bool		utf8;			/* the whole body is valid */
	char		problem[256];
};

PageParser *
page_parser_create(const char *const *hash_ignore, int nhash_ignore)
{
	static const char prefix[] = "attributes.";
	PageParser *parser = palloc0(sizeof(PageParser));

	parser->context = CurrentMemoryContext;
	parser->texts.context = CurrentMemoryContext;
	parser->json = json_parser_create();
	parser->json->max_exponent = FLOHSYNC_MAX_EXPONENT;
	parser->json->max_number_length = MAX_NUMBER_LENGTH;
	parser->canonical = canonical_create();
	parser->canonical->limit = 2 * FLOHSYNC_MAX_RECORD_BYTES;
	parser->ignore = palloc0(sizeof(CanonicalPath) * (nhash_ignore + 1));
	for (int i = 0; i < nhash_ignore; i++)
	{
		const char *path = hash_ignore[i];

		if (strncmp(path, prefix, sizeof(prefix) - 1) == 0)
			path += sizeof(prefix) - 1;
		if (*path == '\0')
			continue;
		parser->ignore[parser->nignore].separator = '.';
		parser->ignore[parser->nignore].data = pstrdup(path);
		parser->ignore[parser->nignore++].len = strlen(path);
	}
	return parser;
}

static void *
page_room(PageParser *parser, void *array, size_t *size, size_t wanted, size_t item)
{
	if (array != NULL && *size >= wanted)
		return array;
	if (array != NULL)
		pfree(array);
	*size = 0;
	array = MemoryContextAllocHuge(parser->context, Max(wanted, 64) * item);
	*size = Max(wanted, 64);
	return array;
}

static void
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
	parser->records = MemoryContextAllocHuge(parser->context, wanted * sizeof(Record));
	parser->sorted = MemoryContextAllocHuge(parser->context, wanted * sizeof(Record));
	parser->keys = MemoryContextAllocHuge(parser->context, wanted * 2 * sizeof(CanonicalKey));
	parser->records_size = wanted;
}

static inline bool
page_is_utf8(const char *data, size_t len)
{
	return pg_encoding_verifymbstr(PG_UTF8, data, (int) len) == (int) len;
}

/* The bytes of a node as they came. */
static inline Slice
page_raw(const JsonParser *json, const JsonNode *node)
{
	return (Slice) {json->text + node->start, (int) (node->end - node->start)};
}

static bool
page_node_is_utf8(const PageParser *parser, const JsonParser *json, const JsonNode *node)
{
	Slice		raw = page_raw(json, node);

	return parser->utf8 || json != parser->json || page_is_utf8(raw.data, raw.len);
}

/* The characters of a string node. */
static inline Slice
page_text(PageParser *parser, const JsonParser *json, const JsonNode *node)
{
	Slice		text = {json->text + node->start + 1, (int) (node->end - node->start - 2)};

	if (unlikely(node->flags & JSON_F_ESCAPED))
	{
		char	   *decoded = canonical_arena_alloc(&parser->texts, text.len + 1);

		text.len = (int) json_string_decode(json, node, decoded);
		text.data = decoded;
	}
	return text;
}

/* The length in bytes of the first max characters, or of all when there are no more. */
static inline int
page_clip(Slice text, int max)
{
	int			chars = 0;

	if (likely(text.len <= max))
		return text.len;
	for (int i = 0; i < text.len; i++)
	{
		if ((text.data[i] & 0xC0) != 0x80 && chars++ == max)
			return i;
	}
	return text.len;
}

/* An id is a text or an integer.  Returns NULL, or the error class when it is of no use. */
static const char *
page_id(PageParser *parser, const JsonParser *json, uint32 index, Slice *id)
{
	const JsonNode *node = &json->nodes[index];
	Slice		text;

	*id = (Slice) {NULL, 0};
	if (index == 0 || node->type == JSON_NULL)
		return "external_id_missing";
	if (node->type == JSON_STRING)
	{
		if (node->flags & JSON_F_BAD_ESCAPE)
			return "invalid_unicode";
		text = page_text(parser, json, node);
		if (text.len == 0)
			return "external_id_empty";
	}
	else if (json_is_integer(json, node))
	{
		text = page_raw(json, node);
		if (text.len == 2 && memcmp(text.data, "-0", 2) == 0)
			text = (Slice) {text.data + 1, 1};
	}
	else
		return "external_id_type";
	if (!page_node_is_utf8(parser, json, node))
		return "invalid_utf8";
	if (page_clip(text, MAX_ID_CHARS) < text.len)
		return "external_id_too_long";
	*id = text;
	return NULL;
}

/* Which of the two faults behind JSON_F_BAD_ESCAPE a record has. */
static const char *
page_escape_class(Slice raw)
{
	for (int i = 0; i + 1 < raw.len; i++)
	{
		if (raw.data[i] != '\\')
			continue;
		if (raw.len - i >= 6 && memcmp(raw.data + i + 1, "u0000", 5) == 0)
			return "nul_character";
		i++;
	}
	return "invalid_unicode";
}

static const char *
page_class_message(const char *error_class)
{
	static const char *const messages[][2] = {
		{"external_id_missing", "externalId is missing"},
		{"external_id_empty", "externalId is empty"},
		{"external_id_too_long", "externalId is longer than 255 characters"},
		{"external_id_type", "externalId is neither a text nor an integer"},
		{"display_name_type", "displayName is not a text"},
		{"email_type", "email is not a text"},
		{"email_too_long", "email is longer than 255 characters"},
		{"attributes_type", "attributes is not an object"},
		{"record_type", "the record is not an object"},
		{"nul_character", "a string holds the character U+0000"},
		{"invalid_unicode", "a string holds half of a surrogate pair"},
		{"invalid_utf8", "the record is not valid UTF-8"},
		{"nesting_too_deep", "values are nested more than 64 levels deep"},
		{"number_out_of_range", "a number has more than 4000 characters or an exponent over 400"},
		{"record_too_large", "the record is larger than 8 MB, or is with its numbers written out"},
	};

	for (size_t i = 0; i < lengthof(messages); i++)
	{
		if (strcmp(messages[i][0], error_class) == 0)
			return messages[i][1];
	}
	return error_class;
}

static void
page_set_aside(PageParser *parser, UpstreamPage *page, const JsonParser *json, uint32 index, uint32 position,
			   Slice external_id, const char *error_class, const char *message)
{
	RecordFault *fault = &parser->faults[page->nfaults++];

	fault->external_id = external_id;
	fault->error_class = error_class;
	fault->message = message;
	fault->payload = page_raw(json, &json->nodes[index]);
	fault->position = position;
}

static inline void
page_find_members(const PageParser *parser, uint32 index, PageMapped *found)
{
	const JsonNode *nodes = parser->json->nodes;
	const char *text = parser->json->text;

	memset(found, 0, sizeof(PageMapped));
	found->json = parser->json;
	found->record = index;
	found->external_id.json = found->display_name.json = found->email.json = found->attributes.json = parser->json;
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

/* An id with what stands before it. */
static const char *
page_prefix_id(PageParser *parser, Slice prefix, Slice *id)
{
	char	   *whole = canonical_arena_alloc(&parser->texts, prefix.len + id->len + 1);

	memcpy(whole, prefix.data, prefix.len);
	memcpy(whole + prefix.len, id->data, id->len);
	*id = (Slice) {whole, prefix.len + id->len};
	if (page_clip(*id, MAX_ID_CHARS) == id->len)
		return NULL;
	*id = (Slice) {NULL, 0};
	return "external_id_too_long";
}

/* Fills a record but for its hash; returns NULL or an error class. */
static inline const char *
page_check_record(PageParser *parser, const PageMapped *found, Record *record, bool *truncated)
{
	const JsonNode *node = &found->json->nodes[found->record];
	const JsonNode *value;
	const char *error_class;
	int			kept;

	/* First, because it tells which stored row the entry is about. */
	error_class = page_id(parser, found->external_id.json, found->external_id.node, &record->external_id);
	if (found->id_prefix.data != NULL && error_class == NULL)
		error_class = page_prefix_id(parser, found->id_prefix, &record->external_id);

	if (unlikely(node->end - node->start > FLOHSYNC_MAX_RECORD_BYTES))
		return "record_too_large";
	if (unlikely(!page_node_is_utf8(parser, found->json, node)))
		return "invalid_utf8";
	if (unlikely(node->flags & JSON_F_BAD))
	{
		if (node->flags & JSON_F_BAD_DEPTH)
			return "nesting_too_deep";
		if (node->flags & JSON_F_BAD_ESCAPE)
			return page_escape_class(page_raw(found->json, node));
		return "number_out_of_range";
	}
	if (error_class != NULL)
		return error_class;

	record->display_name = (Slice) {NULL, 0};
	*truncated = false;
	value = &found->display_name.json->nodes[found->display_name.node];
	if (found->display_name.node != 0 && value->type != JSON_NULL)
	{
		if (value->type != JSON_STRING)
			return "display_name_type";
		record->display_name = page_text(parser, found->display_name.json, value);
		kept = page_clip(record->display_name, FLOHSYNC_MAX_NAME_CHARS);
		*truncated = kept < record->display_name.len;
		record->display_name.len = kept;
	}

	record->email = (Slice) {NULL, 0};
	value = &found->email.json->nodes[found->email.node];
	if (found->email.node != 0 && value->type != JSON_NULL)
	{
		if (value->type != JSON_STRING)
			return "email_type";
		record->email = page_text(parser, found->email.json, value);
		if (page_clip(record->email, MAX_EMAIL_CHARS) < record->email.len)
			return "email_too_long";
	}

	record->attributes = (Slice) {NULL, 0};
	record->attributes_node = 0;
	value = &found->attributes.json->nodes[found->attributes.node];
	if (found->attributes.node != 0 && value->type != JSON_NULL)
	{
		if (value->type != JSON_OBJECT)
			return "attributes_type";
		record->attributes = page_raw(found->attributes.json, value);
		record->attributes_node = found->attributes.node;
	}
	return NULL;
}

/* Returns false when written out in full the record is far larger than a record may be. */
static inline bool
page_hash_record(PageParser *parser, const JsonParser *json, Record *record)
{
	Canonical  *canonical = parser->canonical;

	canonical_reset(canonical);
	canonical_append_bytes(canonical, "{\"attributes\":", 14);
	if (record->attributes_node != 0)
		canonical_append_node(canonical, json, record->attributes_node,
							  parser->ignore, parser->nignore);
	else
		canonical_append_bytes(canonical, "null", 4);
	canonical_append_bytes(canonical, ",\"displayName\":", 15);
	canonical_append_string(canonical, record->display_name.data, record->display_name.len);
	canonical_append_bytes(canonical, ",\"email\":", 9);
	canonical_append_string(canonical, record->email.data, record->email.len);
	canonical_append_bytes(canonical, ",\"externalId\":", 14);
	canonical_append_string(canonical, record->external_id.data, record->external_id.len);
	canonical_append_bytes(canonical, "}", 1);
	if (unlikely(canonical->overflow))
		return false;
	canonical_hash(canonical, record->hash);
	return true;
}

static void
page_add_record(PageParser *parser, UpstreamPage *page, const PageMapped *found, uint32 position)
{
	Record	   *record = &parser->records[page->nrecords];
	const char *error_class;
	bool		truncated;

	error_class = page_check_record(parser, found, record, &truncated);
	if (error_class == NULL && unlikely(!page_hash_record(parser, found->attributes.json, record)))
		error_class = "record_too_large";
	if (unlikely(error_class != NULL))
	{
		page_set_aside(parser, page, found->json, found->record, position, record->external_id,
					   error_class, page_class_message(error_class));
		return;
	}
	/* The node is of use as long as its tree is. */
	if (found->attributes.json != parser->json)
		record->attributes_node = 0;
	record->position = position;
	record->partial = (found->display_name.found ? 0 : RECORD_KEEPS_NAME) | (found->email.found ? 0 : RECORD_KEEPS_EMAIL);
	page->truncated += truncated;
	page->nrecords++;
}

static void
page_read_record(PageParser *parser, UpstreamPage *page, uint32 index, uint32 position)
{
	PageMapped	found;

	if (parser->json->nodes[index].type != JSON_OBJECT)
	{
		page_set_aside(parser, page, parser->json, index, position, (Slice) {NULL, 0},
					   "record_type", page_class_message("record_type"));
		return;
	}
	page_find_members(parser, index, &found);
	page_add_record(parser, page, &found, position);
}

/* Sorts by external_id; of the same id the one that came last stays. */
static void
page_sort_records(PageParser *parser, UpstreamPage *page)
{
	const char *start = parser->json->text;
	const char *limit = start + parser->json->len;
	Record	   *records = parser->records;
	CanonicalKey *keys = parser->keys;
	int			n = page->nrecords;
	int			kept = 0;
	bool		ascending = true;

	page->records = records;
	for (int i = 0; i < n; i++)
	{
		Slice		id = records[i].external_id;
		bool		in_body = id.data >= start && id.data < limit;

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
		page_read_record(parser, page, i, page->received);
		page->received++;
	}
	page_sort_records(parser, page);
}

/* Entries of payload.deleted that name nothing become faults, too. */
static void
page_read_deleted(PageParser *parser, UpstreamPage *page, uint32 list)
{
	const JsonNode *nodes = parser->json->nodes;
	uint32		position = 0;

	for (uint32 i = nodes[list].child; i != 0; i = nodes[i].next)
	{
		Slice		id;
		const char *error_class = page_id(parser, parser->json, i, &id);

		if (error_class == NULL)
			parser->deleted[page->ndeleted++] = id;
		else
			page_set_aside(parser, page, parser->json, i, position, (Slice) {NULL, 0}, error_class,
						   "an entry of payload.deleted is not a usable id");
		position++;
	}
	page->deleted = parser->deleted;
}

static bool
page_begin(PageParser *parser, const char *body, size_t len, uint32 max_depth,
		   UpstreamPage *page, const char **problem)
{
	JsonParser *json = parser->json;

	memset(page, 0, sizeof(UpstreamPage));
	page->total_estimate = -1;
	*problem = NULL;
	canonical_arena_reset(&parser->texts);
	canonical_trim(parser->canonical, KEEP_BYTES);
	if (len > KEEP_NODES)
		json_parser_trim(json, Max(len, KEEP_NODES));
	else
		json_parser_trim(json, KEEP_NODES);
	if (len >= INT_MAX)
	{
		*problem = "the answer is too long";
		return false;
	}
	parser->utf8 = page_is_utf8(body, len);
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
	Slice		text = page_text(parser, parser->json, node);
	char	   *result;

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
	return page_cstring(parser, &nodes[node], MAX_ERROR_BYTES);
}

static bool
page_read_cursor(PageParser *parser, UpstreamPage *page, uint32 index)
{
	const JsonNode *node = &parser->json->nodes[index];
	char	   *cursor;
	Slice		raw;

	if (index == 0 || node->type == JSON_NULL)
		return true;
	raw = page_raw(parser->json, node);
	if (node->type == JSON_STRING)
	{
		if ((node->flags & JSON_F_BAD_ESCAPE) || !page_node_is_utf8(parser, parser->json, node))
			return false;
		cursor = page_cstring(parser, node, INT_MAX);
		if (*cursor != '\0')
			page->next_cursor = cursor;
		return true;
	}
	if (!json_is_integer(parser->json, node))
		return false;
	page->next_cursor = canonical_arena_alloc(&parser->texts, raw.len + 1);
	memcpy(page->next_cursor, raw.data, raw.len);
	page->next_cursor[raw.len] = '\0';
	return true;
}

static int64
page_estimate(PageParser *parser, uint32 index)
{
	const JsonNode *node = &parser->json->nodes[index];
	Slice		raw = page_raw(parser->json, node);
	int64		estimate = 0;

	if (index == 0 || !json_is_integer(parser->json, node) || raw.data[0] == '-' || raw.len > 18)
		return -1;
	for (int i = 0; i < raw.len; i++)
		estimate = estimate * 10 + (raw.data[i] - '0');
	return estimate;
}

bool
page_parse(PageParser *parser, const char *body, size_t len, UpstreamPage *page, const char **problem)
{
	JsonParser *json = parser->json;
	const JsonNode *nodes;
	uint32		success;
	uint32		payload;
	uint32		resources;
	uint32		deleted;

	json->max_nodes = MAX_PAGE_NODES;
	if (!page_begin(parser, body, len, LEVELS_ABOVE_RECORD + FLOHSYNC_MAX_NESTING, page, problem))
		return false;
	nodes = json->nodes;
	if (nodes[JSON_ROOT].type != JSON_OBJECT)
	{
		*problem = "the answer is not a JSON object";
		return false;
	}

	success = json_member(json, JSON_ROOT, "success", 7);
	if (success == 0 || nodes[success].type != JSON_TRUE)
	{
		page->upstream_error = page_error_text(parser, json_member(json, JSON_ROOT, "error", 5));
		if (page->upstream_error == NULL)
			page->upstream_error = page_error_text(parser, json_member(json, JSON_ROOT, "message", 7));
		if (page->upstream_error == NULL)
			page->upstream_error = success == 0 ? "the answer does not say \"success\": true"
				: "the upstream reported a failure and gave no reason";
		return true;
	}

	payload = json_member(json, JSON_ROOT, "payload", 7);
	if (payload == 0 || nodes[payload].type != JSON_OBJECT)
	{
		*problem = "the answer has no payload object";
		return false;
	}
	resources = json_member(json, payload, "resources", 9);
	if (resources == 0 || nodes[resources].type != JSON_ARRAY)
	{
		*problem = "payload.resources is not an array";
		return false;
	}
	if (nodes[resources].count > FLOHSYNC_MAX_PAGE_RECORDS)
	{
		snprintf(parser->problem, sizeof(parser->problem), "the page has %u records, more than %d",
				 nodes[resources].count, FLOHSYNC_MAX_PAGE_RECORDS);
		*problem = parser->problem;
		return false;
	}
	deleted = json_member(json, payload, "deleted", 7);
	if (deleted != 0 && nodes[deleted].type == JSON_NULL)
		deleted = 0;
	if (deleted != 0 && nodes[deleted].type != JSON_ARRAY)
	{
		*problem = "payload.deleted is not an array";
		return false;
	}
	if (!page_read_cursor(parser, page, json_member(json, payload, "nextCursor", 10)))
	{
		*problem = "payload.nextCursor is neither a text nor an integer";
		return false;
	}
	page->total_estimate = page_estimate(parser, json_member(json, payload, "totalEstimate", 13));

	page_room_records(parser, nodes[resources].count + 1);
	parser->deleted = page_room(parser, parser->deleted, &parser->deleted_size,
								nodes[deleted].count, sizeof(Slice));
	parser->faults = page_room(parser, parser->faults, &parser->faults_size,
							   nodes[resources].count + nodes[deleted].count, sizeof(RecordFault));
	page->faults = parser->faults;
	page_read_list(parser, page, nodes[resources].child);
	if (deleted != 0)
		page_read_deleted(parser, page, deleted);
	page->success = true;
	return true;
}

bool
page_parse_records(PageParser *parser, const char *body, size_t len, UpstreamPage *page, const char **problem)
{
	const JsonNode *root;
	size_t		start = 0;
	bool		list;

	while (start < len && strchr(" \t\r\n", body[start]) != NULL && body[start] != '\0')
		start++;
	list = start < len && body[start] == '[';
	parser->json->max_nodes = PG_INT32_MAX;
	if (!page_begin(parser, body, len, FLOHSYNC_MAX_NESTING + (list ? 1 : 0), page, problem))
		return false;
	root = &parser->json->nodes[JSON_ROOT];
	page_room_records(parser, list ? root->count + 1 : 2);
	parser->faults = page_room(parser, parser->faults, &parser->faults_size,
							   list ? root->count : 1, sizeof(RecordFault));
	page->faults = parser->faults;
	page_read_list(parser, page, list ? root->child : JSON_ROOT);
	page->success = true;
	return true;
}

int
page_group_ids(PageParser *parser, const Record *record, Slice *ids, int max)
{
	JsonParser *json = parser->json;
	uint32		attributes = record->attributes_node;
	const JsonNode *nodes;
	uint32		groups;
	int			n = 0;

	if (attributes == 0)
	{
		if (record->attributes.data == NULL)
			return 0;
		/* Attributes that were put together have no tree any more. */
		json = json_parser_create();
		if (!json_parse(json, record->attributes.data, record->attributes.len, FLOHSYNC_MAX_NESTING))
			return 0;
		attributes = JSON_ROOT;
	}
	nodes = json->nodes;
	groups = json_member(json, attributes, "groups", 6);
	if (groups == 0 || nodes[groups].type != JSON_ARRAY)
		return 0;
	for (uint32 i = nodes[groups].child; i != 0; i = nodes[i].next)
	{
		Slice		id = {NULL, 0};

		if (nodes[i].type == JSON_OBJECT)
		{
			if (page_id(parser, json, json_member(json, i, "id", 2), &id) != NULL)
				page_id(parser, json, json_member(json, i, "externalId", 10), &id);
		}
		else
			page_id(parser, json, i, &id);
		if (id.data == NULL)
			continue;
		if (n < max)
			ids[n] = id;
		n++;
	}
	return n;
}

void
page_exclude(PageParser *parser, const CanonicalPath *paths, int n)
{
	CanonicalPath *all = MemoryContextAlloc(parser->context, sizeof(CanonicalPath) * (parser->nignore + n + 1));

	/* Those that are not stored come first. */
	memcpy(all, paths, sizeof(CanonicalPath) * n);
	memcpy(all + n, parser->ignore, sizeof(CanonicalPath) * parser->nignore);
	parser->ignore = all;
	parser->nignore += n;
	parser->nexclude = n;
}

JsonParser *
page_mapped_begin(PageParser *parser, const char *body, size_t len, int levels, UpstreamPage *page, const char **problem)
{
	parser->json->max_nodes = MAX_PAGE_NODES;
	return page_begin(parser, body, len, FLOHSYNC_MAX_NESTING + levels, page, problem) ? parser->json : NULL;
}

bool
page_mapped_room(PageParser *parser, UpstreamPage *page, uint32 records, const char **problem)
{
	if (records > FLOHSYNC_MAX_PAGE_RECORDS)
	{
		snprintf(parser->problem, sizeof(parser->problem), "the page has %u records, more than %d",
				 records, FLOHSYNC_MAX_PAGE_RECORDS);
		*problem = parser->problem;
		return false;
	}
	page_room_records(parser, records + 1);
	parser->deleted = page_room(parser, parser->deleted, &parser->deleted_size, records, sizeof(Slice));
	parser->faults = page_room(parser, parser->faults, &parser->faults_size, records, sizeof(RecordFault));
	page->faults = parser->faults;
	page->deleted = parser->deleted;
	return true;
}

/* A deletion undoes what the page said of the record before. */
static void
page_mapped_gone(PageParser *parser, UpstreamPage *page, const PageMapped *found, uint32 position)
{
	Record		record;
	const char *error_class;
	bool		truncated;

	error_class = page_check_record(parser, found, &record, &truncated);
	/* Of a record that is gone, only the id counts. */
	if (record.external_id.data == NULL)
	{
		page_set_aside(parser, page, found->json, found->record, position, (Slice) {NULL, 0},
					   error_class, page_class_message(error_class));
		return;
	}
	for (int i = page->nrecords - 1; i >= 0; i--)
	{
		Slice		id = parser->records[i].external_id;

		if (page_compare_ids(id.data, id.len, record.external_id.data, record.external_id.len) == 0)
		{
			memmove(&parser->records[i], &parser->records[i + 1], sizeof(Record) * (--page->nrecords - i));
			page->duplicates++;
		}
	}
	page->gone++;
	parser->deleted[page->ndeleted++] = record.external_id;
}

/* A record after its deletion undoes that. */
static void
page_mapped_back(PageParser *parser, UpstreamPage *page)
{
	Slice		id = parser->records[page->nrecords - 1].external_id;

	for (int i = page->ndeleted - 1; i >= 0; i--)
		if (page_compare_ids(id.data, id.len, parser->deleted[i].data, parser->deleted[i].len) == 0)
			parser->deleted[i] = parser->deleted[--page->ndeleted];
}

void
page_mapped_add(PageParser *parser, UpstreamPage *page, const PageMapped *found)
{
	uint32		position = page->received++;
	int			before = page->nrecords;

	if (found->json->nodes[found->record].type != JSON_OBJECT)
		page_set_aside(parser, page, found->json, found->record, position, (Slice) {NULL, 0},
					   "record_type", page_class_message("record_type"));
	else if (found->gone)
		page_mapped_gone(parser, page, found, position);
	else
	{
		page_add_record(parser, page, found, position);
		if (page->ndeleted > 0 && page->nrecords > before)
			page_mapped_back(parser, page);
	}
}

void
page_mapped_end(PageParser *parser, UpstreamPage *page)
{
	page_sort_records(parser, page);
	page->success = true;
}

bool
page_is_clean(const PageParser *parser, const JsonParser *json, uint32 node)
{
	return (json->nodes[node].flags & JSON_F_BAD) == 0 && page_node_is_utf8(parser, json, &json->nodes[node]);
}

Slice
page_value_text(PageParser *parser, const JsonParser *json, uint32 node)
{
	const JsonNode *value = &json->nodes[node];

	if (node == 0 || !page_is_clean(parser, json, node) || value->type == JSON_OBJECT || value->type == JSON_ARRAY)
		return (Slice) {NULL, 0};
	return value->type == JSON_STRING ? page_text(parser, json, value) : page_raw(json, value);
}

/* Does a name stand at the head of a path that leads on (or: ends there)? */
static bool
page_path_head(const CanonicalPath *path, uint32 offset, const char *name, uint32 len, bool ends)
{
	return path->len - offset >= len && memcmp(path->data + offset, name, len) == 0 &&
		(ends ? path->len - offset == len : path->len - offset > len && path->data[offset + len] == path->separator);
}

typedef struct PageTail
{
	int			path;
	uint32		offset;
} PageTail;

/* Writes a value without what the tails lead to; the depth is that of a record. */
static void
page_render(PageParser *parser, Canonical *out, const JsonParser *json, uint32 index, const PageTail *tails, int ntails)
{
	const JsonNode *node = &json->nodes[index];
	PageTail   *inner;
	bool		first = true;

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
		Slice		key = page_text(parser, json, name);
		bool		left_out = false;
		int			n = 0;

		for (int k = 0; k < ntails && !left_out; k++)
		{
			const CanonicalPath *path = &parser->ignore[tails[k].path];

			left_out = page_path_head(path, tails[k].offset, key.data, key.len, true);
			if (page_path_head(path, tails[k].offset, key.data, key.len, false))
				inner[n++] = (PageTail) {tails[k].path, tails[k].offset + key.len + 1};
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
	Canonical  *out = parser->canonical;
	PageTail   *tails = palloc(sizeof(PageTail) * (parser->nexclude + 1));
	char	   *text;

	for (int i = 0; i < parser->nexclude; i++)
		tails[i] = (PageTail) {i, 0};
	canonical_reset(out);
	page_render(parser, out, json, node, tails, parser->nexclude);
	pfree(tails);
	text = canonical_arena_alloc(&parser->texts, out->len + 1);
	memcpy(text, out->data, out->len);
	text[out->len] = '\0';
	return (Slice) {text, (int) out->len};
}

Slice
page_stored_attributes(PageParser *parser, const Record *record)
{
	if (parser->nexclude == 0 || record->attributes_node == 0)
		return record->attributes;
	return page_without_excluded(parser, parser->json, record->attributes_node);
}
