/*
 * private.h
 *	  What the files of the page reader share.  Include page.h first.
 */
#ifndef FLOHSYNC_PAGE_PRIVATE_H
#define FLOHSYNC_PAGE_PRIVATE_H

#include "base/bytes.h"
#include "json/canonical.h"
#include "json/json.h"
#include "mb/pg_wchar.h"

#ifndef FLOHSYNC_STANDALONE
#include "base/memory_page.h"
#endif

/* Contract, section 3. */
#define MAX_ID_CHARS	255
#define MAX_EMAIL_CHARS 255

/* Levels around a record: answer, payload, resources. */
#define LEVELS_ABOVE_RECORD 3

struct PageParser
{
	MemoryContext		context;
	PageMemory		   *memory;
	JsonParser		   *json;
	JsonParser		   *attributes; /* of a record whose tree is gone; NULL: not needed so far */
	Canonical		   *canonical;
	CanonicalArena		texts; /* strings that had escapes */
	CanonicalPath	   *ignore;
	int					nignore;
	bool				excludes; /* page_exclude() has been called */
	int					nexclude; /* so many of the first are not stored either */
	Record			   *records;
	Record			   *sorted;
	CanonicalKey	   *keys;
	size_t				records_size;
	RecordFault		   *faults;
	size_t				faults_size;
	Slice			   *deleted;
	size_t				deleted_size;
	uint32			   *deleted_at; /* of a mapped page: their places */
	size_t				deleted_at_size;
	size_t				heaviest; /* of the page, so far */
	struct Known	   *known;	  /* NULL: each record is read */
	struct KnownRecord *came;
	size_t				came_size;
	bool				utf8; /* the whole body is valid */
	char				problem[256];
};

static inline bool
page_is_utf8(const char *data, size_t len)
{
	return pg_encoding_verifymbstr(PG_UTF8, data, (int) len) == (int) len;
}

/* The bytes of a node as they came. */
static inline Slice
page_raw(const JsonParser *json, const JsonNode *node)
{
	return (Slice){json->text + node->start, (int) (node->end - node->start)};
}

static inline bool
page_node_is_utf8(const PageParser *parser, const JsonParser *json, const JsonNode *node)
{
	Slice raw = page_raw(json, node);

	return parser->utf8 || json != parser->json || page_is_utf8(raw.data, raw.len);
}

/* The characters of a string node. */
static inline Slice
page_text(PageParser *parser, const JsonParser *json, const JsonNode *node)
{
	Slice text = {json->text + node->start + 1, (int) (node->end - node->start - 2)};

	if (unlikely(node->flags & JSON_F_ESCAPED))
	{
		char *decoded = canonical_arena_alloc(&parser->texts, text.len + 1);

		text.len = (int) json_string_decode(json, node, decoded);
		text.data = decoded;
	}
	return text;
}

/* page.c */
extern void *page_reserve(PageParser *parser, void *array, size_t *size, size_t wanted,
						  size_t item);
extern void	 page_room_records(PageParser *parser, size_t wanted);
extern bool	 page_too_large(PageParser *parser, UpstreamPage *page, const char **problem,
							const char *format, ...) pg_attribute_printf(4, 5);
extern void	 page_sort_records(PageParser *parser, UpstreamPage *page);
extern bool	 page_begin(PageParser *parser, const char *body, size_t len, uint32 max_depth,
						UpstreamPage *page, const char **problem);

/* page/came.c */
extern void page_knows_begin(PageParser *parser, uint32 depth);
extern bool page_knows_much(const PageParser *parser);
extern void page_knows_room(PageParser *parser, UpstreamPage *page, size_t records);
extern bool page_knows(PageParser *parser, UpstreamPage *page, const JsonParser *json,
					   uint32 index);
extern void page_came(const UpstreamPage *page, const Record *record, bool truncated);
extern bool page_knows_wrongly(PageParser *parser, const UpstreamPage *page);

/* page/record.c */
extern ErrorClass page_id(PageParser *parser, const JsonParser *json, uint32 index, Slice *id);
extern void		  page_set_aside(PageParser *parser, UpstreamPage *page, const JsonParser *json,
								 uint32 index, uint32 position, Slice external_id, ErrorClass error_class,
								 const char *message);
extern ErrorClass page_check_record(PageParser *parser, const PageMapped *found, Record *record,
									bool *truncated);
extern void		  page_add_record(PageParser *parser, UpstreamPage *page, const PageMapped *found,
								  uint32 position);

#endif /* FLOHSYNC_PAGE_PRIVATE_H */
