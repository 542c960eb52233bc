/*
 * groups.c
 *	  The groups that a record says it is a member of.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "utils/memutils.h"
#endif

#include <limits.h>

#include "page/page.h"
#include "page/private.h"

bool
page_group_ids(PageParser *parser, const Record *record, PageGroupVisitor visitor, void *arg)
{
	JsonParser	   *json = parser->json;
	uint32			attributes = record->attributes_node;
	const JsonNode *nodes;
	uint32			groups;

	if (attributes == 0)
	{
		if (record->attributes.data == NULL)
			return false;
		/* Merged attributes have no tree any more. */
		if (parser->attributes == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(parser->context);

			parser->attributes = json_parser_create_limited(INT_MAX);
			parser->attributes->memory = parser->memory;
			(void) MemoryContextSwitchTo(old);
		}
		json = parser->attributes;
		if (!json_parse(json, record->attributes.data, record->attributes.len,
						FLOHSYNC_MAX_NESTING))
			return false;
		attributes = JSON_ROOT;
	}
	nodes = json->nodes;
	groups = json_member(json, attributes, "groups", 6);
	if (groups == 0 || nodes[groups].type != JSON_ARRAY)
		return false;
	for (uint32 i = nodes[groups].child; i != 0; i = nodes[i].next)
	{
		Slice id = {NULL, 0};

		if (nodes[i].type == JSON_OBJECT)
		{
			if (page_id(parser, json, json_member(json, i, "id", 2), &id) != ERRCLASS_NONE)
				page_id(parser, json, json_member(json, i, "externalId", 10), &id);
		}
		else
			page_id(parser, json, i, &id);
		if (id.data != NULL && visitor(arg, id))
			return true;
	}
	return false;
}
