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
	{
		KnownText text = {.base = page,
						  .whole = {list, known_encode(read->came, read->received, list)}};

		ok(known_add_list(known, page, &text), "its list is taken back");
	}
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

/* Is a text read as a list of these? */
static bool
is_list(const KnownText *text, const KnownRecord *records, int n)
{
	KnownRecord *read;
	int			 got;
	bool		 same = known_decode(text, CurrentMemoryContext, &read, &got) && got == n;

	for (int i = 0; same && i < n; i++)
		same = read[i].num == records[i].num && read[i].len == records[i].len &&
			read[i].id_hash == records[i].id_hash &&
			memcmp(read[i].digest, records[i].digest, KNOWN_DIGEST_BYTES) == 0;
	pfree(read);
	return same;
}

static bool
is_damaged(const KnownText *text)
{
	KnownRecord *read;
	int			 got;
	bool		 good = known_decode(text, CurrentMemoryContext, &read, &got);

	pfree(read);
	return !good && got == 0;
}

static void
test_lists(void)
{
	KnownRecord records[3] = {{.num = 7, .len = 300, .id_hash = UINT64_MAX},
							  {.num = KNOWN_UNLISTED, .len = 2},
							  {.num = PG_INT64_MAX, .len = UINT32_MAX}};
	char		list[KNOWN_ENCODED(3) + 1];
	KnownText	text = {.base = 5, .whole = {list, 0}};
	Known	   *known = known_create();
	int			damaged = 0;

	memset(records[1].digest, 0xA5, KNOWN_DIGEST_BYTES);
	text.whole.len = known_encode(records, 3, list);
	ok(text.whole.len <= KNOWN_ENCODED(3), "a list is no longer than was said");
	ok(is_list(&text, records, 3), "it is read as it was");
	for (size_t i = 0; i < text.whole.len; i++)
	{
		char	 *cut = palloc(i + 1);
		KnownText part = {.base = 5, .whole = {cut, i}};

		memcpy(cut, list, i);
		damaged += is_damaged(&part);
		pfree(cut);
	}
	is_int(damaged, text.whole.len, "none that is cut");
	list[text.whole.len++] = 0;
	ok(is_damaged(&text), "nor with anything behind it");
	text.whole.len--;
	for (int i = 0; i < KNOWN_LISTS + 1; i++)
		ok(known_add_list(known, i, &text), "it is taken");
	is_int(known->nlists, KNOWN_LISTS, "so many are held");
	list[0]++;
	ok(is_damaged(&text), "nor of another version");
	ok(!known_add_list(known, 9, &text), "it is not taken");
	is_int(known->lists[known->nlists - 1].n, 0, "but is an empty one");
}

#define MANY 400

/* Lists by what is different from another one, after changes of all kinds. */
static void
test_changes(void)
{
	static KnownRecord base[MANY];
	static KnownRecord next[MANY * 2];
	static char		   whole[KNOWN_ENCODED(MANY)];
	static char		   changes[KNOWN_ENCODED_CHANGES(MANY * 2)];
	KnownText		   text = {.base = 77, .whole = {whole, 0}, .changes = {changes, 0}};
	int64			   stored = 0;
	int				   damaged = 0;
	static const struct
	{
		const char *what;
		int			drop, change, add, swap;
	} kinds[] = {{"nothing", 0, 0, 0, 0},		  {"some have changed", 0, 4, 0, 0},
				 {"some are gone", 4, 0, 0, 0},	  {"some are new", 0, 0, 4, 0},
				 {"some have moved", 0, 0, 0, 4}, {"all of that", 3, 3, 3, 3}};

	for (int i = 0; i < MANY; i++)
	{
		base[i] = (KnownRecord){.num = i * 3 + 1,
								.len = 100 + i,
								.id_hash = i * UINT64CONST(0x9E3779B97F4A7C15)};
		memset(base[i].digest, i, KNOWN_DIGEST_BYTES);
	}
	text.whole.len = known_encode(base, MANY, whole);
	for (int i = 0; i < MANY; i++)
	{
		base[i].base = 77;
		base[i].base_at = i;
	}
	for (int kind = 0; kind < (int) lengthof(kinds); kind++)
	{
		int n = 0;

		for (int i = 0; i < MANY; i++)
		{
			int percent = (int) (base[i].id_hash >> 32) % 100;
			int k = percent;

			if (k < kinds[kind].drop)
				continue;
			if ((k -= kinds[kind].drop) < kinds[kind].add)
			{
				next[n] = (KnownRecord){.num = 100000 - i, .len = 9, .id_hash = ~base[i].id_hash};
				n++;
			}
			next[n++] = base[i];
			if ((k -= kinds[kind].add) >= 0 && k < kinds[kind].change)
			{
				next[n - 1].base = 0;
				next[n - 1].digest[3]++;
			}
			else if (k >= kinds[kind].change && k < kinds[kind].change + kinds[kind].swap && n > 1)
			{
				KnownRecord swap = next[n - 1];

				next[n - 1] = next[n - 2];
				next[n - 2] = swap;
			}
		}
		text.changes.len = known_encode_changes(next, n, changes, &stored);
		ok(text.changes.len > 0 && stored == 77, kinds[kind].what);
		ok(text.changes.len <= KNOWN_ENCODED_CHANGES(n), "it is no longer than was said");
		ok(is_list(&text, next, n), "it is read as it was");
	}
	for (size_t i = 0; i < text.changes.len; i++)
	{
		char	 *cut = palloc(i + 1);
		KnownText part = text;

		memcpy(cut, changes, i);
		part.changes = (Slice){cut, i};
		damaged += is_damaged(&part);
		pfree(cut);
	}
	is_int(damaged, text.changes.len, "none that is cut");
	/* Against a list that has become shorter. */
	text.whole.len = known_encode(base, 10, whole);
	ok(is_damaged(&text), "nor what is different from another list");
	for (int i = 0; i < MANY; i++)
		if (i % 5 == 0)
			base[i].base = 0;
	is_int(known_encode_changes(base, MANY, changes, &stored), 0,
		   "of many changes the list is written as a whole");
	is_int(known_encode_changes(base, 1, changes, &stored), 0,
		   "and if there is none to compare with");
}

void
test_known(void)
{
	PageParser	*parser = page_parser_create(NULL, 0, NULL);
	Known		*known = known_create();
	UpstreamPage page;

	test_lists();
	test_changes();
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
