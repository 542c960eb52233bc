/*
 * record.c
 *	  One record of a page: what makes it unusable, its parts, its hash.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/bytes.h"
#include "page/page.h"
#include "page/private.h"

/* The length in bytes of the first max characters, or of all when there are no more. */
static inline int
page_clip(Slice text, int max)
{
	int chars = 0;

	if (likely(text.len <= max))
		return text.len;
	for (int i = 0; i < text.len; i++)
	{
		if ((text.data[i] & 0xC0) != 0x80 && chars++ == max)
			return i;
	}
	return text.len;
}

/* An id is a text or an integer.  Returns the error class when it is of no use. */
ErrorClass
page_id(PageParser *parser, const JsonParser *json, uint32 index, Slice *id)
{
	const JsonNode *node = &json->nodes[index];
	Slice			text;

	*id = (Slice){NULL, 0};
	if (index == 0 || node->type == JSON_NULL)
		return ERRCLASS_EXTERNAL_ID_MISSING;
	if (node->type == JSON_STRING)
	{
		if (node->flags & JSON_F_BAD_ESCAPE)
			return ERRCLASS_INVALID_UNICODE;
		text = page_text(parser, json, node);
		if (text.len == 0)
			return ERRCLASS_EXTERNAL_ID_EMPTY;
	}
	else if (json_is_integer(json, node))
	{
		text = page_raw(json, node);
		if (text.len == 2 && memcmp(text.data, "-0", 2) == 0)
			text = (Slice){text.data + 1, 1};
	}
	else
		return ERRCLASS_EXTERNAL_ID_TYPE;
	if (!page_node_is_utf8(parser, json, node))
		return ERRCLASS_INVALID_UTF8;
	if (page_clip(text, MAX_ID_CHARS) < text.len)
		return ERRCLASS_EXTERNAL_ID_TOO_LONG;
	*id = text;
	return ERRCLASS_NONE;
}

/* Which of the two faults behind JSON_F_BAD_ESCAPE a record has. */
static ErrorClass
page_escape_class(Slice raw)
{
	for (int i = 0; i + 1 < raw.len; i++)
	{
		if (raw.data[i] != '\\')
			continue;
		if (raw.len - i >= 6 && memcmp(raw.data + i + 1, "u0000", 5) == 0)
			return ERRCLASS_NUL_CHARACTER;
		i++;
	}
	return ERRCLASS_INVALID_UNICODE;
}

/* Without a message the record gets that of the class. */
void
page_set_aside(PageParser *parser, UpstreamPage *page, const JsonParser *json, uint32 index,
			   uint32 position, Slice external_id, ErrorClass error_class, const char *message)
{
	RecordFault *fault = &parser->faults[page->nfaults++];

	fault->external_id = external_id;
	fault->error_class = error_class;
	fault->message = message ? message : error_class_entries[error_class].meaning;
	fault->payload = page_raw(json, &json->nodes[index]);
	fault->position = position;
}

/* Like page_reserve, but what is in it stays. */
void
page_fault(PageParser *parser, UpstreamPage *page, Slice external_id, ErrorClass error_class,
		   Slice payload)
{
	if (page->nfaults == parser->faults_size)
	{
		size_t more = Max(parser->faults_size, 64);

		memory_take(parser->memory, more * sizeof(RecordFault));
		parser->faults = repalloc_huge(parser->faults,
									   (parser->faults_size + more) * sizeof(RecordFault));
		parser->faults_size += more;
		page->faults = parser->faults;
	}
	page->faults[page->nfaults++] = (RecordFault){external_id, error_class,
												  error_class_entries[error_class].meaning, payload,
												  page->received++};
}

/* Is a value too much to be made jsonb?  Only a large text can be. */
static bool
page_is_heavy(const JsonParser *json, uint32 node, size_t *weight)
{
	size_t bytes = json->nodes[node].end - json->nodes[node].start;

	*weight = bytes * JSON_MOST_WEIGHT;
	if (likely(*weight <= memory_record_limit() / 16))
		return false;
	*weight = json_weight(json, node, NULL);
	return *weight > memory_record_limit();
}

bool
page_may_store(const JsonParser *json, uint32 node)
{
	size_t weight;

	return json->nodes[node].end - json->nodes[node].start <= FLOHSYNC_MAX_RECORD_BYTES &&
		!page_is_heavy(json, node, &weight);
}

/* An id with what stands before it. */
static ErrorClass
page_prefix_id(PageParser *parser, Slice prefix, Slice *id)
{
	char *whole = canonical_arena_alloc(&parser->texts, prefix.len + id->len + 1);

	memcpy(whole, prefix.data, prefix.len);
	memcpy(whole + prefix.len, id->data, id->len);
	*id = (Slice){whole, prefix.len + id->len};
	if (page_clip(*id, MAX_ID_CHARS) == id->len)
		return ERRCLASS_NONE;
	*id = (Slice){NULL, 0};
	return ERRCLASS_EXTERNAL_ID_TOO_LONG;
}

/* Fills a record but for its hash; returns NULL or an error class. */
ErrorClass
page_check_record(PageParser *parser, const PageMapped *found, Record *record, bool *truncated)
{
	const JsonNode *node = &found->json->nodes[found->record];
	const JsonNode *value;
	ErrorClass		error_class;
	size_t			weight;
	int				kept;

	/* First, because it tells which stored row the entry is about. */
	error_class = page_id(parser, found->external_id.json, found->external_id.node,
						  &record->external_id);
	if (found->id_prefix.data != NULL && error_class == ERRCLASS_NONE)
		error_class = page_prefix_id(parser, found->id_prefix, &record->external_id);

	if (unlikely(node->end - node->start > FLOHSYNC_MAX_RECORD_BYTES))
		return ERRCLASS_RECORD_TOO_LARGE;
	if (unlikely(!page_node_is_utf8(parser, found->json, node)))
		return ERRCLASS_INVALID_UTF8;
	if (unlikely(node->flags & JSON_F_BAD))
	{
		if (node->flags & JSON_F_BAD_DEPTH)
			return ERRCLASS_NESTING_TOO_DEEP;
		if (node->flags & JSON_F_BAD_ESCAPE)
			return page_escape_class(page_raw(found->json, node));
		return ERRCLASS_NUMBER_OUT_OF_RANGE;
	}
	if (unlikely(page_is_heavy(found->json, found->record, &weight)))
		return ERRCLASS_TOO_MANY_VALUES;
	if (error_class != ERRCLASS_NONE)
		return error_class;

	record->display_name = (Slice){NULL, 0};
	*truncated = false;
	value = &found->display_name.json->nodes[found->display_name.node];
	if (found->display_name.node != 0 && value->type != JSON_NULL)
	{
		if (value->type != JSON_STRING)
			return ERRCLASS_DISPLAY_NAME_TYPE;
		record->display_name = page_text(parser, found->display_name.json, value);
		kept = page_clip(record->display_name, FLOHSYNC_MAX_NAME_CHARS);
		*truncated = kept < record->display_name.len;
		record->display_name.len = kept;
	}

	record->email = (Slice){NULL, 0};
	value = &found->email.json->nodes[found->email.node];
	if (found->email.node != 0 && value->type != JSON_NULL)
	{
		if (value->type != JSON_STRING)
			return ERRCLASS_EMAIL_TYPE;
		record->email = page_text(parser, found->email.json, value);
		if (page_clip(record->email, MAX_EMAIL_CHARS) < record->email.len)
			return ERRCLASS_EMAIL_TOO_LONG;
	}

	record->attributes = (Slice){NULL, 0};
	record->attributes_node = 0;
	value = &found->attributes.json->nodes[found->attributes.node];
	if (found->attributes.node != 0 && value->type != JSON_NULL)
	{
		if (value->type != JSON_OBJECT)
			return ERRCLASS_ATTRIBUTES_TYPE;
		/* Of another tree: what is not in it would not be hashed. */
		if (value->flags & JSON_F_BAD_DEPTH)
			return ERRCLASS_NESTING_TOO_DEEP;
		if (found->attributes.json != found->json &&
			page_is_heavy(found->attributes.json, found->attributes.node, &weight))
			return ERRCLASS_TOO_MANY_VALUES;
		parser->heaviest = Max(parser->heaviest, weight);
		record->attributes = page_raw(found->attributes.json, value);
		record->attributes_node = found->attributes.node;
	}
	return ERRCLASS_NONE;
}

/* Returns false when written out in full the record is far larger than a record may be. */
static inline bool
page_hash_record(PageParser *parser, const JsonParser *json, Record *record)
{
	Canonical *canonical = parser->canonical;

	canonical_reset(canonical);
	canonical_append_bytes(canonical, "{\"attributes\":", 14);
	if (record->attributes_node != 0)
		canonical_append_node(canonical, json, record->attributes_node, parser->ignore,
							  parser->nignore);
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

void
page_add_record(PageParser *parser, UpstreamPage *page, const PageMapped *found, uint32 position)
{
	Record	  *record = &parser->records[page->nrecords];
	ErrorClass error_class;
	bool	   truncated;

	error_class = page_check_record(parser, found, record, &truncated);
	if (error_class == ERRCLASS_NONE &&
		unlikely(!page_hash_record(parser, found->attributes.json, record)))
		error_class = ERRCLASS_RECORD_TOO_LARGE;
	if (unlikely(error_class != ERRCLASS_NONE))
	{
		page_set_aside(parser, page, found->json, found->record, position, record->external_id,
					   error_class, NULL);
		return;
	}
	/* The node is of use as long as its tree is. */
	if (found->attributes.json != parser->json)
		record->attributes_node = 0;
	record->position = position;
	record->partial = (found->display_name.found ? 0 : RECORD_KEEPS_NAME) |
		(found->email.found ? 0 : RECORD_KEEPS_EMAIL);
	page_came(page, record, truncated);
	page->truncated += truncated;
	page->nrecords++;
}
