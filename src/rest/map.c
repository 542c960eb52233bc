/*
 * map.c
 *	  From a record of an answer to one of a page: paths of the definition give its
 *	  parts.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "rest/reading.h"

/* Does the definition look for something inside the values of a map? */
bool
map_looks_inside(const RestDefinition *d)
{
	static const char inside[] = "$.value.";
	const RestPaths	 *of[] = {&d->external_id, &d->display_name, &d->email, &d->attributes};

	for (size_t k = 0; k < lengthof(of); k++)
		for (int i = 0; i < of[k]->n; i++)
			if (strncmp(of[k]->paths[i]->text, inside, sizeof(inside) - 1) == 0)
				return true;
	return false;
}

/* The first alternative that finds what is neither null nor an empty text. */
static PageValue
map_find(RestState *state, const RestPaths *paths, JsonParser *json, uint32 node, bool clean,
		 int side)
{
	PageValue value = {json, 0, false};
	bool	  found = false;

	for (int i = 0; i < paths->n && value.node == 0; i++)
	{
		/* What PostgreSQL cannot read is set aside anyway. */
		if (!paths->paths[i]->native && !clean)
			continue;
		value = rest_find_full(state, paths->paths[i], json, node, state->scratch[side]);
		found |= value.found;
		if (value.node == 0)
			value = (PageValue){json, 0, false};
	}
	value.found = found;
	return value;
}

/* Does the upstream say that the record is gone? */
static bool
map_is_gone(RestState *state, JsonParser *json, uint32 node, bool clean)
{
	const RestPath *path = state->def->gone;

	return path != NULL && (path->native || clean) &&
		rest_says_yes(state, path, json, node, state->scratch[0]);
}

/*
 * What stands before a member's id: the parent's, without a slash, so that no two pairs look
 * the same.
 */
static Slice
map_prefix(const char *parent)
{
	StringInfoData text;

	initStringInfo(&text);
	for (const char *p = parent; *p; p++)
	{
		if (*p == '/' || *p == '%')
			appendStringInfo(&text, "%%%02X", (unsigned char) *p);
		else
			appendStringInfoChar(&text, *p);
	}
	appendStringInfoChar(&text, '/');
	return (Slice){text.data, text.len};
}

/* The attributes of a record of for_each: with the ids of both sides. */
static void
map_membership(Reading *r, const RestParent *parent, PageMapped *m)
{
	RestState	  *state = r->state;
	JsonParser	  *side = state->scratch[3];
	PageValue	  *a = &m->attributes;
	Slice		   own = page_value_text(r->parser, m->external_id.json, m->external_id.node);
	StringInfoData text;

	m->id_prefix = map_prefix(parent->external_id);
	if (own.data == NULL || !page_is_clean(r->parser, m->json, m->record) ||
		(a->node != 0 && a->json->nodes[a->node].type != JSON_OBJECT))
		return;
	initStringInfo(&text);
	appendStringInfoChar(&text, '{');
	if (a->node != 0)
	{
		Slice members = page_without_excluded(r->parser, a->json, a->node);

		/* Of two members of one name the later one counts. */
		appendBinaryStringInfo(&text, members.data + 1, members.len - 2);
		if (text.len > 1)
			appendStringInfoChar(&text, ',');
	}
	appendStringInfoString(&text, "\"parentId\":");
	escape_json(&text, parent->external_id);
	appendStringInfoString(&text, ",\"memberId\":");
	escape_json(&text, pnstrdup(own.data, own.len));
	appendStringInfoChar(&text, '}');
	if (!json_parse(side, text.data, text.len, FLOHSYNC_MAX_NESTING + REST_LEVELS_ABOVE_RECORD))
		return;
	a->json = side;
	a->node = JSON_ROOT;
}

/* Finds the values of a record that may be stored. */
void
map_values(Reading *r, uint32 node, bool clean, PageMapped *m)
{
	RestState			 *state = r->state;
	const RestDefinition *d = state->def;

	m->json = r->tree;
	m->record = node;
	m->id_prefix = (Slice){NULL, 0};
	rest_jsonpath_keep(r->tree->text + r->tree->nodes[node].start,
					   r->tree->nodes[node].end - r->tree->nodes[node].start);
	m->gone = map_is_gone(state, r->tree, node, clean);
	m->external_id = map_find(state, &d->external_id, r->tree, node, clean, 0);
	m->display_name = map_find(state, &d->display_name, r->tree, node, clean, 1);
	m->email = map_find(state, &d->email, r->tree, node, clean, 2);
	m->attributes = map_find(state, &d->attributes, r->tree, node, clean, 3);
}

/* Attributes of a tree that will be gone when they are stored: what is left out goes now. */
void
map_leave_out(Reading *r, bool clean, PageMapped *m)
{
	JsonParser *side = r->state->scratch[3];
	PageValue  *a = &m->attributes;
	Slice		text;

	if (a->json == r->json || a->node == 0 || r->state->def->nexclude == 0 || !clean ||
		a->json->nodes[a->node].type != JSON_OBJECT)
		return;
	text = page_without_excluded(r->parser, a->json, a->node);
	if (json_parse(side, text.data, text.len, FLOHSYNC_MAX_NESTING + REST_LEVELS_ABOVE_RECORD))
		*a = (PageValue){side, JSON_ROOT, true};
}

void
map_record(Reading *r, uint32 node)
{
	RestState			 *state = r->state;
	const RestDefinition *d = state->def;
	bool				  clean = page_is_clean(r->parser, r->tree, node);
	PageMapped			  m = {r->tree, node};

	/* What is too large to be stored is not taken apart. */
	if (!page_may_store(r->tree, node))
	{
		m.external_id = m.display_name = m.email = m.attributes = (PageValue){r->tree, 0, false};
		m.external_id = map_find(state, &d->external_id, r->tree, node, false, 0);
		if (d->parent_type && !d->own_ids)
			m.id_prefix = map_prefix(rest_parent(state)->external_id);
		page_mapped_add(r->parser, r->page, &m);
		return;
	}
	map_values(r, node, clean, &m);
	if (d->parent_type && !d->own_ids)
		map_membership(r, rest_parent(state), &m);
	else
		map_leave_out(r, clean, &m);
	page_mapped_add(r->parser, r->page, &m);
}
