/*
 * fuzz_json.c
 *	  Any bytes: the parser reads nothing past them, a tree fits its text, and
 *	  the canonical form is JSON and its own canonical form.
 */
#include "base/standalone.h"

#include "json/canonical.h"
#include "json/json.h"

jmp_buf *standalone_catch;

/* A zero may have any exponent as far as numeric goes; other numbers are kept short. */
#define FUZZ_EXPONENT 2000

static JsonParser *parser;
static JsonParser *shallow;
static Canonical  *first;
static Canonical  *second;

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "check failed: %s\n", #condition); \
			abort(); \
		} \
	} while (0)

/* Children lie inside their parent, in order, and are as many as it says. */
static void
check_tree(const JsonParser *p)
{
	for (uint32 i = JSON_ROOT; i < p->nnodes; i++)
	{
		const JsonNode *node = &p->nodes[i];
		uint32			n = 0;
		uint32			at = node->start;

		CHECK(node->start < node->end && node->end <= p->len);
		for (uint32 child = node->child; child != 0; child = p->nodes[child].next)
		{
			CHECK(child > i && child < p->nnodes);
			CHECK(p->nodes[child].start > at && p->nodes[child].end < node->end);
			CHECK((p->nodes[child].flags & JSON_F_BAD & ~node->flags) == 0);
			at = p->nodes[child].end - 1;
			n++;
		}
		CHECK(n == (node->type == JSON_OBJECT ? 2 * node->count : node->count));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool good;

	if (parser == NULL)
	{
		parser = json_parser_create();
		shallow = json_parser_create();
		first = canonical_create();
		second = canonical_create();
		parser->max_exponent = FUZZ_EXPONENT;
	}
	good = json_parse(parser, (const char *) data, size, UINT32_MAX);
	CHECK(json_parse(shallow, (const char *) data, size, 2) == good);
	if (!good)
	{
		CHECK(parser->error != NULL && parser->error_offset <= size);
		CHECK(shallow->error_offset == parser->error_offset);
		return 0;
	}
	check_tree(parser);
	check_tree(shallow);
	if (parser->nodes[JSON_ROOT].flags & JSON_F_BAD)
		return 0;

	canonical_reset(first);
	canonical_append_node(first, parser, JSON_ROOT, NULL, 0);
	CHECK(json_parse(parser, first->data, first->len, UINT32_MAX));
	CHECK((parser->nodes[JSON_ROOT].flags & JSON_F_BAD) == 0);
	check_tree(parser);
	canonical_reset(second);
	canonical_append_node(second, parser, JSON_ROOT, NULL, 0);
	CHECK(first->len == second->len && memcmp(first->data, second->data, first->len) == 0);
	return 0;
}
