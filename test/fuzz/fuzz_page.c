/*
 * fuzz_page.c
 *	  Any bytes as an answer or a list of records: what comes out keeps the
 *	  promises of page.h.  The first byte picks the entry point.  Answers of the command
 *	  protocol are read once more with what came of them known: with the same result.
 */
#include "base/standalone.h"

#include "json/json.h"
#include "mb/pg_wchar.h"
#include "page/known.h"
#include "page/page.h"

jmp_buf *standalone_catch;

static PageParser *parsers[2];

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "check failed: %s\n", #condition); \
			abort(); \
		} \
	} while (0)

static void
check_text(Slice text, bool needed, int max_chars)
{
	int chars = 0;

	CHECK(text.data != NULL || (!needed && text.len == 0));
	CHECK(pg_encoding_verifymbstr(PG_UTF8, text.data ? text.data : "", text.len) == text.len);
	for (int i = 0; i < text.len; i++)
		chars += (text.data[i] & 0xC0) != 0x80;
	CHECK(chars <= max_chars);
}

static int
compare(Slice a, Slice b)
{
	int order = memcmp(a.data, b.data, Min(a.len, b.len));

	return order != 0 ? order : a.len - b.len;
}

static bool
check_group(void *arg, Slice id)
{
	check_text(id, true, 255);
	return false;
}

static void
check_page(PageParser *parser, const UpstreamPage *page)
{
	CHECK(page->nrecords + page->nknown + page->duplicates + page->nfaults >= page->received);
	for (int i = 0; i < page->nrecords; i++)
	{
		const Record *record = &page->records[i];

		check_text(record->external_id, true, 255);
		CHECK(record->external_id.len > 0);
		check_text(record->display_name, false, 255);
		check_text(record->email, false, 255);
		check_text(record->attributes, false, INT32_MAX);
		CHECK((record->attributes.data == NULL) == (record->attributes_node == 0));
		CHECK(record->position < (uint32) page->received);
		for (int j = 0; j < FLOHSYNC_HASH_HEX; j++)
			CHECK(strchr("0123456789abcdef", record->hash[j]) != NULL && record->hash[j] != '\0');
		if (i > 0)
			CHECK(compare(page->records[i - 1].external_id, record->external_id) < 0);
		page_group_ids(parser, record, check_group, NULL);
	}
	for (int i = 0; i < page->nfaults; i++)
	{
		CHECK(page->faults[i].error_class != ERRCLASS_NONE && page->faults[i].message != NULL);
		CHECK(page->faults[i].payload.data != NULL && page->faults[i].payload.len > 0);
		check_text(page->faults[i].external_id, false, 255);
	}
	for (int i = 0; i < page->ndeleted; i++)
		check_text(page->deleted[i], true, 255);
	if (page->next_cursor != NULL)
		CHECK(page->next_cursor[0] != '\0');
	CHECK(page->total_estimate >= -1);
}

/* Of pages with a fault no list is kept; those with several records of an id are read in full. */
static void
check_known(PageParser *parser, const char *body, size_t len)
{
	static Known *known = NULL;
	UpstreamPage  first;
	UpstreamPage  again;
	KnownText	  text = {.base = 1};
	const char	 *problem;
	char		 *list;
	int			  duplicates;
	int			  received;
	int			  nrecords;

	if (known == NULL)
		known = known_create();
	known_clear(known);
	known_begin(known, NULL, NULL);
	page_know(parser, known);
	CHECK(page_parse(parser, body, len, &first, &problem));
	if (!first.success || first.nfaults > 0 || first.received > KNOWN_MAX_RECORDS)
	{
		page_know(parser, NULL);
		return;
	}
	CHECK(first.nknown == 0);
	for (int i = 0; i < first.nrecords; i++)
		if (first.came[first.records[i].position].num != KNOWN_UNLISTED)
			first.came[first.records[i].position].num = 1 + i;
	list = malloc(KNOWN_ENCODED(first.received));
	text.whole = (Slice){list, known_encode(first.came, first.received, list)};
	CHECK(known_add_list(known, 1, &text));
	free(list);
	duplicates = first.duplicates;
	received = first.received;
	nrecords = first.nrecords;
	known_begin(known, NULL, NULL);
	CHECK(page_parse(parser, body, len, &again, &problem));
	CHECK(again.success && again.received == received && again.nfaults == 0);
	CHECK(again.duplicates == duplicates);
	CHECK(again.nrecords + again.nknown == nrecords);
	CHECK(duplicates == 0 || again.nknown == 0);
	check_page(parser, &again);
	page_know(parser, NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const ignored[] = {"a", "b.c", "attributes.d.e"};
	UpstreamPage			 page;
	const char				*problem;
	PageParser				*parser;
	bool					 good;

	if (size == 0)
		return 0;
	if (parsers[0] == NULL)
	{
		parsers[0] = page_parser_create(NULL, 0, NULL);
		parsers[1] = page_parser_create(ignored, lengthof(ignored), NULL);
	}
	parser = parsers[data[0] >> 1 & 1];
	good = (data[0] & 4		? (data[0] & 1 ? page_parse_one : page_parse_list) :
				data[0] & 1 ? page_parse :
							  page_parse_records)(parser, (const char *) data + 1, size - 1, &page,
												  &problem);
	CHECK(good || (problem != NULL && problem[0] != '\0'));
	if (!good)
		return 0;
	if (!page.success)
		CHECK(page.upstream_error != NULL && page.upstream_error[0] != '\0' &&
			  strlen(page.upstream_error) < 1024);
	else
		check_page(parser, &page);
	if ((data[0] & 5) == 1)
		check_known(parser, (const char *) data + 1, size - 1);
	return 0;
}
