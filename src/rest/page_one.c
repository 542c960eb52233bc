/*
 * page_one.c
 *	  An answer about one record.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "rest/reading.h"

/* A list that the record was to be the first of, and that is empty, says that there is none. */
static bool
one_empty_list(void *arg, uint32 node)
{
	const JsonParser *json = arg;

	return json->nodes[node].type == JSON_ARRAY && json->nodes[node].child == 0;
}

/* Does an answer without the record say that there is none? */
static bool
one_is_none(const RestPath *path, JsonParser *json)
{
	bool array;
	int	 steps = rest_path_list(path, &array);

	return steps < path->nsteps &&
		rest_path_walk(path, steps, json, JSON_ROOT, one_empty_list, json);
}

/* Reads the answer to a request for one record: a page of it, or of none. */
bool
reading_one(Reading *r)
{
	RestState			 *state = r->state;
	const RestDefinition *d = state->def;
	PageMapped			  m;
	PageValue			  record;
	const char			 *problem;

	r->json = page_mapped_begin(r->parser, r->answer->body, r->answer->len,
								REST_LEVELS_ABOVE_RECORD, r->page, &problem);
	if (r->json == NULL)
		return reading_none(r, "upstream's answer cannot be read:", problem);
	if (!page_is_clean(r->parser, r->json, JSON_ROOT))
		return reading_failed(
			r, ERRCLASS_BAD_ANSWER,
			"the record cannot be stored: it is not valid UTF-8, or nested too deeply, or has a string or number that jsonb cannot represent");
	/* The record stays in the tree it is found in while its parts use the others. */
	record = rest_find(state, d->get_record, r->json, JSON_ROOT, rest_parser(state));
	if (record.failed)
		return reading_unknown(r, d->get_record);
	if (record.node == 0 && !one_is_none(d->get_record, r->json))
		return reading_none(r, "the answer has no record at", d->get_record->text);
	if (record.node != 0 && !page_may_store(record.json, record.node))
		return reading_failed(
			r, ERRCLASS_TOO_LARGE,
			"the record is larger than %d bytes, or has so many values that storing it would take more than half of flohsync.page_memory",
			FLOHSYNC_MAX_RECORD_BYTES);
	if (!page_mapped_room(r->parser, r->page, 1, &problem))
		return reading_failed(r, ERRCLASS_TOO_LARGE, "%s", problem);
	r->tree = record.json;
	if (record.node != 0)
		map_values(r, record.node, true, &m);
	if (record.node != 0 && !m.gone)
	{
		/* An error with status 200, perhaps. */
		if (m.external_id.node == 0)
			return reading_none(r, "the answer has no record with an id at",
								d->external_id.paths[0]->text);
		map_leave_out(r, true, &m);
		page_mapped_add(r->parser, r->page, &m);
	}
	page_mapped_end(r->parser, r->page);
	return true;
}
