/*
 * unit_known.c
 *	  Checks which records of a page are known by their text.
 */
#include "unit.h"

#include "json/canonical.h"
#include "page/known.h"
#include "page/page.h"

/* The answer of a command with these records. */
static char *
answer(const char *const *records, int n)
{
	size_t len = 100;
	char  *text;

	for (int i = 0; i < n; i++)
		len += strlen(records[i]) + 1;
	text = palloc(len);
	strcpy(text, "{\"success\":true,\"payload\":{\"resources\":[");
	for (int i = 0; i < n; i++)
	{
		strcat(text, i > 0 ? "," : "");
		strcat(text, records[i]);
	}
	strcat(text, "]}}");
	return text;
}

/* Reads a page; its records are numbered by the digits of their ids, and their list is added. */
static void
read_page(PageParser *parser, Known *known, int page, const char *const *records, int n,
		  UpstreamPage *read)
{
	char	   *body = answer(records, n);
	char	   *list = palloc(KNOWN_ENCODED(n));
	const char *problem = NULL;

	page_know(parser, known);
	known_begin(known, NULL, NULL);
	ok(page_parse(parser, body, strlen(body), read, &problem), "a page is read");
	for (int i = 0; i < read->nrecords; i++)
		if (read->came[read->records[i].position].num != KNOWN_UNLISTED)
			read->came[read->records[i].position].num = atoi(read->records[i].external_id.data + 1);
	if (page > 0)
		ok(known_add_list(known, page, list, known_encode(read->came, read->received, list)),
		   "its list is taken back");
}

/* Which records are known: their nums; "." for one that was read. */
static const char *
what_is_known(const UpstreamPage *page)
{
	static char text[1000];
	char	   *p = text;

	*p = '\0';
	for (int i = 0; i < page->received; i++)
		if (page->came[i].known)
			p += sprintf(p, "%s" INT64_FORMAT, i > 0 ? " " : "", page->came[i].num);
		else
			p += sprintf(p, "%s.", i > 0 ? " " : "");
	return text;
}

#define R(id, name) "{\"externalId\":\"u" #id "\",\"displayName\":\"" name "\"}"
#define PAGE(...)	(const char *const[]){__VA_ARGS__}, lengthof(((const char *const[]){__VA_ARGS__}))
#define KNOWN(expected, name, ...) \
	do \
	{ \
		UpstreamPage page; \
		known_go_to(known, 0); \
		read_page(parser, known, 0, PAGE(__VA_ARGS__), &page); \
		is(what_is_known(&page), expected, name); \
	} while (0)

static bool
doubt_two(void *arg, int64 num)
{
	return num == 2;
}

static void
test_lists(void)
{
	KnownRecord records[3] = {{.num = 7, .len = 300, .id_hash = UINT64_MAX},
							  {.num = KNOWN_UNLISTED, .len = 2},
							  {.num = PG_INT64_MAX, .len = UINT32_MAX}};
	char		list[KNOWN_ENCODED(3) + 1];
	size_t		len;
	Known	   *known = known_create();
	int			good = 0;

	memset(records[1].digest, 0xA5, KNOWN_DIGEST_BYTES);
	len = known_encode(records, 3, list);
	ok(len <= KNOWN_ENCODED(3), "a list is no longer than was said");
	ok(known_add_list(known, 5, list, len), "it is read");
	is_int(known->lists[0].n, 3, "with all records");
	for (int i = 0; i < 3; i++)
		ok(known->lists[0].records[i].num == records[i].num &&
			   known->lists[0].records[i].len == records[i].len &&
			   known->lists[0].records[i].id_hash == records[i].id_hash &&
			   memcmp(known->lists[0].records[i].digest, records[i].digest, KNOWN_DIGEST_BYTES) ==
				   0,
		   "as they were");
	for (size_t i = 0; i < len; i++)
	{
		char *cut = palloc(i + 1);

		memcpy(cut, list, i);
		good += known_add_list(known, 6, cut, i);
		pfree(cut);
	}
	is_int(good, 0, "none that is cut");
	is_int(known->lists[known->nlists - 1].n, 0, "which is empty then");
	list[len] = 0;
	ok(!known_add_list(known, 6, list, len + 1), "nor with anything behind it");
	list[0]++;
	ok(!known_add_list(known, 6, list, len), "nor of another version");
	is_int(known->nlists, KNOWN_LISTS, "so many are held");
}

void
test_known(void)
{
	PageParser	*parser = page_parser_create(NULL, 0, NULL);
	Known		*known = known_create();
	UpstreamPage page;

	test_lists();
	read_page(parser, known, 1, PAGE(R(1, "a"), R(2, "b"), R(3, "c"), R(4, "d")), &page);
	is(what_is_known(&page), ". . . .", "nothing is known at first");
	read_page(parser, known, 2, PAGE(R(5, "e"), R(6, "f"), R(7, "g"), R(8, "h")), &page);

	KNOWN("1 2 3 4", "a page that came before", R(1, "a"), R(2, "b"), R(3, "c"), R(4, "d"));
	is_int(page.nrecords, 4, "(what was read of the one before stays)");
	KNOWN("1 . 3 4", "one has changed", R(1, "a"), R(2, "x"), R(3, "c"), R(4, "d"));
	KNOWN("1 . 3 4", "one has another length", R(1, "a"), R(2, "bbb"), R(3, "c"), R(4, "d"));
	KNOWN(". . 3 4 5 6", "some have changed, and the next page has moved up", R(1, "x"), R(2, "x"),
		  R(3, "c"), R(4, "d"), R(5, "e"), R(6, "f"));
	KNOWN("1 3 4 5", "one is gone", R(1, "a"), R(3, "c"), R(4, "d"), R(5, "e"));
	KNOWN("4 5 6 7", "three are gone", R(4, "d"), R(5, "e"), R(6, "f"), R(7, "g"));
	KNOWN(". 1 2 3", "one is new", R(9, "n"), R(1, "a"), R(2, "b"), R(3, "c"));
	KNOWN("4 3 2 1", "in another order", R(4, "d"), R(3, "c"), R(2, "b"), R(1, "a"));
	KNOWN(". .", "another form of the same is another text",
		  "{\"externalId\": \"u1\",\"displayName\":\"a\"}",
		  "{\"displayName\":\"b\",\"externalId\":\"u2\"}");
	KNOWN(". . .", "the same text twice on a page: all of it is read", R(1, "a"), R(2, "b"),
		  R(2, "b"));

	/* What else a list says */
	read_page(parser, known, 0, PAGE(R(1, "a"), R(1, "a"), R(2, "b")), &page);
	is(what_is_known(&page), ". . .", "twice the same record: nothing is known of the page");
	is_int(page.duplicates, 1, "and it is a duplicate");
	known_go_to(known, 0);
	read_page(parser, known, 0, PAGE(R(1, "a"), R(2, "b"), R(1, "x")), &page);
	is(what_is_known(&page), ". . .", "nor if it has another form, which comes later");
	is_int(page.records[0].position, 2, "and is the one that counts");
	known_go_to(known, 0);
	read_page(parser, known, 0, PAGE(R(1, "x"), R(2, "b"), R(1, "a")), &page);
	is(what_is_known(&page), ". . .", "or earlier");
	is_int(page.records[0].position, 2, "and does not");

	known_go_to(known, 0);
	known_begin(known, doubt_two, NULL);
	{
		const char		 *problem;
		const char *const same[] = {R(1, "a"), R(2, "b"), R(3, "c")};
		char			 *body = answer(same, 3);

		ok(page_parse(parser, body, strlen(body), &page, &problem), "a page is read");
	}
	is(what_is_known(&page), "1 . 3", "whose row may have been written is read");

	/* Names that are cut are counted each time. */
	{
		char  name[400];
		char *record = palloc(500);

		memset(name, 'n', 300);
		name[300] = '\0';
		sprintf(record, "{\"externalId\":\"u20\",\"displayName\":\"%s\"}", name);
		read_page(parser, known, 3, PAGE(R(10, "x"), record), &page);
		is_int(page.truncated, 1, "a name is cut");
		known_go_to(known, known->nlists - 1);
		read_page(parser, known, 0, PAGE(R(10, "x"), record), &page);
		is(what_is_known(&page), "10 .", "such a record is read");
		is_int(page.truncated, 1, "and counted again");
	}

	/* Objects elsewhere are no records, whatever they look like. */
	{
		const char *problem;
		const char *body = "{\"success\":true,\"payload\":{\"deleted\":[" R(
			10, "x") "],\"resources\":[" R(10, "x") "]}}";

		known_go_to(known, known->nlists - 1);
		known_begin(known, NULL, NULL);
		ok(page_parse(parser, body, strlen(body), &page, &problem),
		   "a page with such a list is read");
		is_int(page.received, 1, "the record is one");
		is_int(page.nfaults, 1, "the other one is a fault");
	}
	page_know(parser, NULL);
	known_begin(known, NULL, NULL);
	{
		const char		 *problem;
		const char *const same[] = {R(1, "a"), R(2, "b"), R(3, "c")};
		char			 *body = answer(same, 3);

		ok(page_parse(parser, body, strlen(body), &page, &problem), "a page is read");
		is_int(page.nrecords + (page.came != NULL), 3, "without lists as it ever was");
	}
	known_clear(known);
	is_int(known->nlists, 0, "lists are forgotten");
}
