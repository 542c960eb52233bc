/*
 * unit_rest.c
 *	  Checks what kind rest reads without a server: paths, Link headers,
 *	  templates, and pages whose records are mapped.
 *
 * ../data/paths.tsv says what a path finds in a text; test/sql/paths.sql holds
 * PostgreSQL to the same lines.
 */
#include "unit.h"

#include "json/canonical.h"
#include "page/page.h"
#include "rest/link.h"
#include "rest/path.h"
#include "source/template.h"

typedef struct Found
{
	const JsonParser *json;
	StringInfoData	  text;
} Found;

static bool
collect(void *arg, uint32_t node)
{
	Found		   *found = arg;
	const JsonNode *item = &found->json->nodes[node];

	if (found->text.len > 1)
		appendStringInfoChar(&found->text, ',');
	appendBinaryStringInfo(&found->text, found->json->text + item->start, item->end - item->start);
	return false;
}

/* What a path finds, in canonical form; NULL when it is not native. */
static char *
path_finds(const char *text, const char *document)
{
	RestPath   *path = rest_path_compile(text);
	JsonParser *json = json_parser_create();
	Found		found = {.json = json};
	size_t		len;

	if (!path->native || !json_parse(json, document, strlen(document), 64))
		return NULL;
	initStringInfo(&found.text);
	appendStringInfoChar(&found.text, '[');
	rest_path_walk(path, path->nsteps, json, JSON_ROOT, collect, &found);
	appendStringInfoChar(&found.text, ']');
	return canonical_text(found.text.data, found.text.len, &len);
}

static void
test_paths(void)
{
	const char *name = getenv("UNIT_DATA");
	char		file[1024];
	char		line[4096];
	int			lines = 0;
	FILE	   *in;

	snprintf(file, sizeof(file), "%s/paths.tsv", name ? name : "test/data");
	in = fopen(file, "r");
	ok(in != NULL, "the file with paths is there");
	while (in && fgets(line, sizeof(line), in))
	{
		char  *path = strtok(line, "\t");
		char  *document = strtok(NULL, "\t");
		char  *expected = strtok(NULL, "\n");
		char   title[600];
		size_t len;

		lines++;
		snprintf(title, sizeof(title), "%s in %s", path, document);
		is(path_finds(path, document), canonical_text(expected, strlen(expected), &len), title);
	}
	if (in)
		fclose(in);
	ok(lines > 300, "the file has its lines");

	{
		/* Valid, but for PostgreSQL to evaluate; or none at all. */
		/* clang-format off */
		static const char *const others[] = {
			"strict $.a", "$.a.size()", "$.a ? (@ like_regex \"x\")", "$.a ? (@.b != 1)", "$.a[last]", "$.a[0 to 2]", "$.**", "$.*",
			"$.a ? (!(@.b == true))", "$.a ? (exists(@.b))", "$.a ? (@.b == 1)", "$.a + 1", "$.\"a\\u0062\"", "$a", "$.a.b == 1",
			"-$.a", "$.a ? (@.b == \"x\\n\")", "$.a[00]", "$.a-b", "$.1a", "", "a", "$.", "$[", "$.a ?", "$.a ? (", "$.a ? (@", "$.a ? (@.b",
			"$.a ? (@.b ==", "$.a ? (@.b == true", "$.\"a", "$.a[1", "$.a[-1]", "$.a[9999999999]", "laxative $.a", "$.a ? (@.b == truely)",
			"$.a ? (true == @.b)", "$.a ? (@.b == $.c)", "$.a ? (@.b = true)", "$.a ? (@.b & true)", "$.a !",
		};
		/* clang-format on */
		char deep[2000] = "$";

		for (size_t i = 0; i < lengthof(others); i++)
			ok(!rest_path_compile(others[i])->native, others[i]);
		for (int i = 0; i < 200; i++)
			strcat(deep, ".a");
		ok(!rest_path_compile(deep)->native, "two hundred members");
		strcpy(deep, "$");
		for (int i = 0; i < 100; i++)
			strcat(deep, "?(@");
		ok(!rest_path_compile(deep)->native, "filters within each other, without an end");
		strcpy(deep, "$?(");
		for (int i = 0; i < 1000; i++)
			strcat(deep, "(");
		ok(!rest_path_compile(deep)->native, "a thousand parentheses");
	}
}

static void
test_links(void)
{
	static const struct
	{
		const char *header;
		const char *rel;
		const char *target;
		bool		malformed;
	} cases[] = {
		{"<https://h/a?b=c>; rel=\"next\"", "next", "https://h/a?b=c", false},
		{"<https://h/a>;rel=next", "next", "https://h/a", false},
		{"<a>; rel=\"self\", <b>; rel=\"next\"", "next", "b", false},
		{"<a,b;c>; rel=\"next\"", "next", "a,b;c", false},
		{"<a>; title=\"x, <y>; rel=next\"; rel=\"prev\", <b>; rel=\"next\"", "next", "b", false},
		{"<a>; title=\"with \\\" and , in it\"; rel=\"next\"", "next", "a", false},
		{"<a>; rel=\"first next\"", "next", "a", false},
		{"<a>; rel=\"nextone\"", "next", NULL, false},
		{"<a>; REL=\"NEXT\"", "next", "a", false},
		{"<a>; rel=\"prev\"; rel=\"next\"", "next", NULL, false},
		{"<a> ; rel = \"next\"", "next", "a", false},
		{"<a>; rel", "next", NULL, false},
		{"<a>; rel=", "next", NULL, false},
		{"<a>", "next", NULL, false},
		{"<a>; rel=\"next", "next", "a", true},
		{"<a>; rel=\"prev", "next", NULL, true},
		{"<a>; title=\"x; rel=next", "next", NULL, true},
		{"<a", "next", NULL, true},
		{"<a>; rel=\"self\", <b; rel=\"next\"", "next", NULL, true},
		{"a; rel=next", "next", NULL, true},
		{"a, b; rel=\"x\", <c>; rel=next", "next", "c", true},
		{"<a>; rel=\"x\" junk</b>; , h:; <c>; rel=\"next\"", "next", NULL, true},
		{"<a> junk; rel=next", "next", NULL, true},
		{"<a>; rel=next, junk", "next", "a", false},
		{" , ", "next", NULL, false},
		{"", "next", NULL, false},
		{", ,<a>; rel=next", "next", "a", false},
		{"<>; rel=next", "next", "", false},
		{"<a>; rel=\"next\" trailing, <b>; rel=\"prev\"", "prev", "b", true},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		bool malformed = false;

		is(rest_link_find(cases[i].header, cases[i].rel, &malformed), cases[i].target,
		   cases[i].header);
		ok(malformed == cases[i].malformed,
		   cases[i].malformed ? "it is malformed" : "it is not malformed");
	}
}

static const char *
lookup(void *arg, const TemplatePiece *piece)
{
	static const char *const names[] = {
		[TEMPLATE_CONFIG] = "{{secret.x}}", [TEMPLATE_SECRET] = "s", [TEMPLATE_SINCE] = "2026",
		[TEMPLATE_SINCE_EPOCH] = "1",		[TEMPLATE_PARENT] = "p",
	};

	return piece->type == TEMPLATE_EXTERNAL_ID ? NULL : names[piece->type];
}

static bool
as_it_is(StringInfo out, const char *value)
{
	appendStringInfoString(out, value);
	return true;
}

static bool
in_brackets(StringInfo out, const char *value)
{
	appendStringInfo(out, "[%s]", value);
	return true;
}

static void
test_templates(void)
{
	/* clang-format off */
	static const struct
	{
		const char *text;
		const char *result;
	}			cases[] = {
		{"", ""}, {"abc", "abc"}, {"a{b}c", "a{b}c"}, {"a}}b", "a}}b"},
		{"{{config.x}}", "[{{secret.x}}]"},
		{"a{{secret.token}}b{{since}}{{since|epoch}}", "a[s]b[2026][1]"},
		{"{{parent.attributes.a.b}}/", "[p]/"},
		{"{{external_id}}", "missing"},
		{"{{", "malformed"}, {"{{config.}}", "malformed"}, {"{{config}}", "malformed"}, {"{{nothing.x}}", "malformed"},
		{"{{since|date}}", "malformed"}, {"{{ config.x }}", "malformed"}, {"x{{config.x", "malformed"},
	};
	/* clang-format on */

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Template			*t = template_parse(cases[i].text);
		const TemplatePiece *missing = NULL;
		StringInfoData		 out;

		initStringInfo(&out);
		if (t == NULL)
			is("malformed", cases[i].result, cases[i].text);
		else if (!template_render(t, &out, as_it_is, in_brackets, lookup, NULL, &missing))
			is("missing", cases[i].result, cases[i].text);
		else
			is(out.data, cases[i].result, cases[i].text);
	}
	ok(template_parse("{{secret.x}}")->secret && !template_parse("{{config.x}}")->secret,
	   "a template knows of its secrets");
}

/* A page of mapped records: externalId $.id, displayName $.name, attributes $; gone: $.gone. */
static bool partial_page;

static UpstreamPage *
map_page(PageParser *page_parser, const char *body)
{
	static UpstreamPage page;
	const char		   *problem = NULL;
	JsonParser *json = page_mapped_begin(page_parser, body, strlen(body), 1, &page, &problem);

	if (json == NULL ||
		!page_mapped_room(page_parser, &page, json->nodes[JSON_ROOT].count, &problem))
		return NULL;
	page.partial = partial_page;
	for (uint32 i = json->nodes[JSON_ROOT].child; i != 0; i = json->nodes[i].next)
	{
		bool	   object = json->nodes[i].type == JSON_OBJECT;
		PageMapped m = {.json = json, .record = i};

		m.external_id = (PageValue){json, object ? json_member(json, i, "id", 2) : 0, true, false};
		m.display_name = (PageValue){json, object ? json_member(json, i, "name", 4) : 0, true,
									 false};
		m.email.json = json;
		m.attributes = (PageValue){json, i, true, false};
		m.gone = object && json_member(json, i, "gone", 4) != 0;
		page_mapped_add(page_parser, &page, &m);
	}
	page_mapped_end(page_parser, &page);
	return &page;
}

static void
test_mapped(void)
{
	static const CanonicalPath exclude[] = {{"login", 5, 0}, {"a\0b", 3, 0}, {"x.y", 3, 0}};
	static const char *const   ignore[] = {"seen", "c.d"};
	PageParser				  *plain = page_parser_create(NULL, 0, NULL);
	PageParser				  *without = page_parser_create(ignore, lengthof(ignore), NULL);
	UpstreamPage			  *page;
	UpstreamPage			   whole;
	const char				  *problem;
	char					   hash[FLOHSYNC_HASH_HEX];
	Slice					   stored;

	page_exclude(without, exclude, lengthof(exclude));
	page = map_page(
		without,
		"[{\"id\":1,\"name\":\"N\",\"login\":5,\"a\":{\"b\":1,\"c\":2.50},\"a.b\":7,\"x.y\":8,\"x\":{\"y\":9},"
		"\"seen\":1,\"c\":{\"d\":1,\"e\":2},\"list\":[{\"b\":1}]}]");
	is_int(page->nrecords, 1, "mapped: one record");
	stored = page_stored_attributes(without, &page->records[0]);
	is(pnstrdup(stored.data, stored.len),
	   "{\"id\":1,\"name\":\"N\",\"a\":{\"c\":2.50},\"a.b\":7,\"x\":{\"y\":9},\"seen\":1,\"c\":{\"d\":1,\"e\":2},\"list\":[{\"b\":1}]}",
	   "mapped: what is excluded is not stored, the rest as it came");
	memcpy(hash, page->records[0].hash, sizeof(hash));
	{
		static const char same[] =
			"{\"externalId\":\"1\",\"displayName\":\"N\",\"attributes\":{\"id\":1,\"name\":\"N\",\"a\":{\"c\":2.5},\"a.b\":7,"
			"\"x\":{\"y\":9},\"c\":{\"e\":2},\"list\":[{\"b\":1}]}}";

		ok(page_parse_records(plain, same, strlen(same), &whole, &problem) && whole.nrecords == 1 &&
			   memcmp(whole.records[0].hash, hash, sizeof(hash)) == 0,
		   "mapped: nor hashed, as what hash_ignore names");
	}

	page = map_page(
		plain,
		"[{\"id\":\"b\"},{\"id\":\"a\"},{\"id\":\"b\",\"name\":\"2\"},5,{\"id\":null},{\"id\":\"c\",\"name\":1}]");
	is_int(page->nrecords, 2, "mapped: two good records");
	is_int(page->nfaults, 3, "mapped: three faults");
	is_int(page->duplicates, 1, "mapped: one came twice");
	is_int(page->received, 6, "mapped: six came");

	page = map_page(
		plain,
		"[{\"id\":\"a\"},{\"id\":\"a\",\"gone\":1},{\"id\":\"b\",\"gone\":1},{\"id\":\"b\"},{\"id\":\"c\",\"gone\":1},{\"gone\":1}]");
	is_int(page->ndeleted, 2, "mapped: what is gone last is gone");
	is_int(page->nrecords, 1, "mapped: what came back after it is there");
	ok(page->nrecords == 1 && page->records[0].external_id.data[0] == 'b',
	   "mapped: and it is that one");
	is_int(page->nfaults, 1, "mapped: gone without an id");
	is_int(page->nrecords + page->nfaults + page->duplicates + page->gone, page->received,
		   "mapped: the counts add up");
	ok(map_page(plain, "{") == NULL, "mapped: no JSON");
	is_int(map_page(plain, "[]")->nrecords, 0, "mapped: nothing");
}

/* Records and deletions of a few ids in all orders, against what a walk over them says. */
static void
test_undone(void)
{
	PageParser *page_parser = page_parser_create(NULL, 0, NULL);
	int			wrong = 0;

	for (int round = 0; round < 3000; round++)
	{
		char		  body[4096] = "[";
		int			  n = round % 24;
		uint32		  random = round * 2654435761u;
		int			  last_gone[4] = {-1, -1, -1, -1};
		int			  last_record[4] = {-1, -1, -1, -1};
		int			  kept[4] = {0};
		int			  records = 0;
		int			  deleted = 0;
		int			  gone = 0;
		UpstreamPage *page;

		partial_page = round % 2;
		for (int i = 0; i < n; i++)
		{
			int	 id;
			bool is_gone;

			random = random * 1664525u + 1013904223u;
			id = random >> 30;
			is_gone = (random >> 20) % 3 == 0;
			sprintf(body + strlen(body), "%s{\"id\":\"%.*s\",\"name\":\"%d\"%s}", i ? "," : "",
					id + 1, "aaaa", i, is_gone ? ",\"gone\":1" : "");
			if (is_gone)
			{
				last_gone[id] = i;
				kept[id] = 0;
				gone++;
			}
			else
			{
				last_record[id] = i;
				kept[id] = partial_page ? kept[id] + 1 : 1;
			}
		}
		strcat(body, "]");
		for (int id = 0; id < 4; id++)
		{
			records += kept[id];
			deleted += last_gone[id] > last_record[id];
		}
		page = map_page(page_parser, body);
		wrong += page->nrecords != records || page->ndeleted != deleted || page->gone != gone ||
			page->nrecords + page->duplicates + page->gone != n;
		for (int i = 0; i < page->nrecords; i++)
		{
			int id = page->records[i].external_id.len - 1;
			int at = atoi(
				pnstrdup(page->records[i].display_name.data, page->records[i].display_name.len));

			wrong += at != (int) page->records[i].position || at < last_gone[id] ||
				(!partial_page && at != last_record[id]);
			if (i > 0)
				wrong += page->records[i - 1].external_id.len > id + 1 ||
					(page->records[i - 1].external_id.len == id + 1 &&
					 (int) page->records[i - 1].position >= at);
		}
		for (int i = 0; i < page->ndeleted; i++)
			wrong += last_gone[page->deleted[i].len - 1] < last_record[page->deleted[i].len - 1];
	}
	partial_page = false;
	is_int(wrong, 0, "undone: records and deletions in any order");
}

void
test_rest(void)
{
	test_paths();
	test_links();
	test_templates();
	test_mapped();
	test_undone();
}
