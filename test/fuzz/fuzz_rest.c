/*
 * fuzz_rest.c
 *	  Any bytes as a path and a document, a Link header, a template, or a page
 *	  of mapped records.  The first byte picks which.
 */
#include "base/standalone.h"

#include "mb/pg_wchar.h"
#include "page/page.h"
#include "rest/link.h"
#include "rest/path.h"
#include "source/template.h"
#include "keep.h"

jmp_buf *standalone_catch;

static int visited;

static bool
visit(void *arg, uint32_t node)
{
	const JsonParser *json = arg;

	CHECK(node > 0 && node < json->nnodes);
	return ++visited > 10000;
}

static char *
copy(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* The path, a newline, the document. */
static void
fuzz_path(const uint8_t *data, size_t size)
{
	static JsonParser *json = NULL;
	const uint8_t	  *newline = memchr(data, '\n', size);
	RestPath		  *path;
	char			  *text;
	bool			   found;
	uint32_t		   first;

	if (newline == NULL)
		return;
	if (json == NULL)
		json = json_parser_create();
	/* The tree is kept from input to input. */
	if (!json_parse(json, (const char *) newline + 1, data + size - newline - 1, 64))
		return;
	text = copy(data, newline - data);
	keep_begin();
	path = rest_path_compile(text);
	free(text);
	if (!path->native)
	{
		keep_end();
		return;
	}
	visited = 0;
	rest_path_walk(path, path->nsteps, json, JSON_ROOT, visit, json);
	first = rest_path_first(path, json, JSON_ROOT, false, &found);
	CHECK(found == (visited > 0));
	CHECK(first == 0 || (found && json->nodes[first].type != JSON_NULL));
	keep_end();
}

static const char *
lookup(void *arg, const TemplatePiece *piece)
{
	CHECK(piece->text != NULL);
	return "v";
}

static bool
put(StringInfo out, const char *value)
{
	appendStringInfoString(out, value);
	return true;
}

static void
fuzz_text(const uint8_t *data, size_t size, bool link)
{
	char				*text = copy(data, size);
	Template			*t;
	const TemplatePiece *missing;

	keep_begin();
	t = link ? NULL : template_parse(text);
	if (link)
	{
		bool  malformed = false;
		char *target = rest_link_find(text, "next", &malformed);

		CHECK(target == NULL || (strlen(target) < size && strchr(target, '>') == NULL));
	}
	else if (t)
	{
		StringInfoData out;

		initStringInfo(&out);
		CHECK(template_render(t, &out, put, put, lookup, NULL, &missing));
		CHECK(out.len <= (int) strlen(text));
	}
	keep_end();
	free(text);
}

static void
fuzz_mapped(const uint8_t *data, size_t size)
{
	static const CanonicalPath exclude[] = {{"a", 1, 0}, {"b\0c", 3, 0}};
	static PageParser		  *parser = NULL;
	UpstreamPage			   page;
	const char				  *problem;
	JsonParser				  *json;

	if (parser == NULL)
	{
		parser = page_parser_create(NULL, 0, NULL);
		page_exclude(parser, exclude, lengthof(exclude));
	}
	json = page_mapped_begin(parser, (const char *) data, size, 1, &page, &problem);
	if (json == NULL || json->nodes[JSON_ROOT].type != JSON_ARRAY ||
		!page_mapped_room(parser, &page, json->nodes[JSON_ROOT].count, &problem))
		return;
	for (uint32 i = json->nodes[JSON_ROOT].child; i != 0; i = json->nodes[i].next)
	{
		bool	   object = json->nodes[i].type == JSON_OBJECT;
		PageMapped m = {.json = json, .record = i};

		m.external_id = (PageValue){json, object ? json_member(json, i, "i", 1) : 0, true, false};
		m.display_name = (PageValue){json, object ? json_member(json, i, "n", 1) : 0, true, false};
		m.email = (PageValue){json, object ? json_member(json, i, "e", 1) : 0, true, false};
		m.attributes = (PageValue){json, i, true, false};
		m.gone = object && json_member(json, i, "g", 1) != 0;
		if (object && json_member(json, i, "p", 1) != 0)
			m.id_prefix = (Slice){"p/", 2};
		page_mapped_add(parser, &page, &m);
	}
	page_mapped_end(parser, &page);
	CHECK(page.nrecords + page.nfaults + page.duplicates + page.gone >= page.received);
	for (int i = 0; i < page.nrecords; i++)
	{
		Slice		stored = page_stored_attributes(parser, &page.records[i]);
		JsonParser *again = json_parser_create();

		CHECK(json_parse(again, stored.data, stored.len, 64));
		CHECK(again->nodes[JSON_ROOT].type == JSON_OBJECT &&
			  json_member(again, JSON_ROOT, "a", 1) == 0);
		CHECK(pg_encoding_verifymbstr(PG_UTF8, stored.data, stored.len) == stored.len);
		pfree(again->nodes);
		pfree(again);
		if (i > 0)
			CHECK(page_compare_ids(page.records[i - 1].external_id.data,
								   page.records[i - 1].external_id.len,
								   page.records[i].external_id.data,
								   page.records[i].external_id.len) < 0);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] & 3)
	{
		case 0:
			fuzz_path(data + 1, size - 1);
			break;
		case 1:
		case 2:
			fuzz_text(data + 1, size - 1, (data[0] & 3) == 1);
			break;
		default:
			fuzz_mapped(data + 1, size - 1);
	}
	return 0;
}
