/*
 * page.c
 *	  Turns an answer into a page: records selected and mapped.
 *
 * The answer is parsed once.  Plain paths are walked on that tree; results of
 * PostgreSQL's jsonpath come back as a tree of their own (scratch), which
 * lives until the next record.
 *
 * Only what the definition says ends a list.  Anything else that looks like an
 * end (a missing list, the same page again) is an error, never "empty".
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "json/value.h"
#include "page/known.h"
#include "rest/reading.h"

/* reading_failed notes what is wrong with the answer; false. */
bool
reading_failed(Reading *r, ErrorClass error_class, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	source_vfail(r->state->source, r->answer, error_class, format, args);
	va_end(args);
	return false;
}

/*
 * reading_none: the answer is not the requested one, so the message also shows its
 * beginning; false.
 */
bool
reading_none(Reading *r, const char *problem, const char *path)
{
	reading_failed(r, ERRCLASS_BAD_ANSWER, "%s%s%s", problem, path ? " " : "", path ? path : "");
	source_show(r->state->source, r->answer);
	return false;
}

/*
 * reading_unknown: a path could not be evaluated; then nothing it might have found counts as
 * not there.
 */
bool
reading_unknown(Reading *r, const RestPath *path)
{
	return reading_failed(
		r, ERRCLASS_BAD_ANSWER,
		"the answer has values that PostgreSQL cannot read, so %s cannot be found", path->text);
}

/* reading_incomplete: the pass is not complete; the first reason stays. */
void
reading_incomplete(Reading *r, const char *format, ...)
{
	char	reason[512];
	va_list args;

	if (r->page->incomplete)
		return;
	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	r->page->incomplete = pstrdup(reason);
}

static void
reading_add(Reading *r, uint32 node)
{
	if (r->n == r->room)
	{
		memory_take(r->state->source->memory, sizeof(uint32) * (r->room + 256));
		r->room = r->room * 2 + 256;
		r->nodes = r->nodes ?
			repalloc_huge(r->nodes, sizeof(uint32) * r->room) :
			MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * r->room);
	}
	r->nodes[r->n++] = node;
}

/* An item of the path before "[*]" is a list of records; without it, an item is a record. */
static bool
reading_item(void *arg, uint32 node)
{
	Reading		   *r = arg;
	const JsonNode *nodes = r->tree->nodes;

	if (!r->state->def->elements)
		reading_add(r, node);
	else if (nodes[node].type == JSON_ARRAY)
	{
		r->list_found = true;
		for (uint32 i = nodes[node].child; i != 0; i = nodes[i].next)
			reading_add(r, i);
	}
	else if (nodes[node].type != JSON_NULL)
		r->bad_list = true;
	return false;
}

/* reading_int64 is a whole number that a path finds, also in a text; -1: none, or *failed. */
int64
reading_int64(Reading *r, const RestPath *path, bool *failed)
{
	PageValue value = {0};
	char	 *text = NULL;
	char	 *end;
	double	  number;

	if (path)
		value = rest_find(r->state, path, r->json, JSON_ROOT, r->state->scratch[0]);
	if (value.failed)
		*failed = !reading_unknown(r, path);
	if (value.node != 0 &&
		value.json->nodes[value.node].end - value.json->nodes[value.node].start <= NUMBER_MAX_BYTES)
		text = json_value_text(value.json, value.node);
	if (text == NULL || text[0] < '0' || text[0] > '9')
		return -1;
	number = strtod(text, &end);
	return *end == '\0' && number < 1e15 ? (int64) number : -1;
}

/* Where a path takes its records from there must be a list, or at least something. */
static bool
reading_list(void *arg, uint32 node)
{
	Reading		   *r = arg;
	const JsonNode *nodes = r->json->nodes;

	/*
	 * An object may be a map of records, or, where none is found in it, an error in place of
	 * a list.
	 */
	if (nodes[node].type == JSON_ARRAY ||
		(!r->array && nodes[node].type == JSON_OBJECT && (r->n > 0 || nodes[node].child == 0)))
		r->list_found = true;
	else if (nodes[node].type != JSON_NULL)
		r->bad_list = true;
	return false;
}

/* What the answer says of its failure, and no more of it: there may be records beside. */
static void
reading_show_error(Reading *r)
{
	PageValue		value = rest_find(r->state, r->state->def->error, r->json, JSON_ROOT,
									  r->state->scratch[0]);
	const JsonNode *node = &value.json->nodes[value.node];
	const char	   *text = value.json->text + node->start;

	if (value.node != 0)
		source_fail(r->state->source, r->answer, ERRCLASS_UPSTREAM, "%s: %s", r->answer->message,
					source_told(r->state->source, text, node->end - node->start,
								FLOHSYNC_MAX_ERROR_BYTES));
}

/*
 * An object whose members are no records: an error in place of a map of them, as
 * {"code": 401, "message": "…"}, of which keyvalue() would make two.
 */
static bool
reading_is_no_map(const Reading *r)
{
	static const char	  map[] = ".keyvalue()";
	const RestDefinition *d = r->state->def;
	size_t				  len = strlen(d->records->text);

	if (r->n == 0 || len < sizeof(map) ||
		strcmp(d->records->text + len - (sizeof(map) - 1), map) != 0 || !map_looks_inside(d))
		return false;
	for (uint32 i = 0; i < r->n; i++)
	{
		uint32 value = json_member(r->tree, r->nodes[i], "value", 5);

		if (value != 0 && r->tree->nodes[value].type == JSON_OBJECT)
			return false;
	}
	return true;
}

/* Finds the records of an answer. */
static bool
reading_select(Reading *r, int64 total)
{
	const RestDefinition *d = r->state->def;

	r->tree = r->json;
	if (d->error && !d->error->native && (r->json->nodes[JSON_ROOT].flags & JSON_F_BAD))
		return reading_unknown(r, d->error);
	if (d->error && rest_says_yes(r->state, d->error, r->json, JSON_ROOT, r->state->scratch[0]))
	{
		reading_failed(r, ERRCLASS_UPSTREAM, "the answer says that it failed, at %s",
					   d->error->text);
		reading_show_error(r);
		r->answer->retryable = true;
		return false;
	}
	if (d->records->native)
		rest_path_walk(d->records, d->records->nsteps, r->json, JSON_ROOT, reading_item, r);
	else
	{
		if (r->json->nodes[JSON_ROOT].flags & JSON_F_BAD)
			return reading_failed(
				r, ERRCLASS_BAD_ANSWER,
				"the answer contains values that PostgreSQL cannot read, so its records cannot be found");
		r->tree = rest_parser(r->state);
		if (!rest_jsonpath_query(r->state, d->records, r->json, JSON_ROOT, r->tree))
			return reading_unknown(r, d->records);
		for (uint32 i = r->tree->nodes[JSON_ROOT].child; i != 0; i = r->tree->nodes[i].next)
			reading_item(r, i);
	}
	if (!d->elements)
	{
		int steps = rest_path_list(d->records, &r->array);

		/* Of what is not understood at all, only what it finds tells that it is there. */
		if (d->records->native || steps > 0 || r->array)
			rest_path_walk(d->records, steps, r->json, JSON_ROOT, reading_list, r);
		else
			r->list_found = r->n > 0;
	}
	if (r->bad_list || reading_is_no_map(r))
		return reading_none(r, "expected an array of records at", d->records->text);
	/*
	 * A total of 0 tells of an empty list; once there were records, it is no better than an
	 * error.
	 */
	if (!r->list_found && r->behind &&
		(r->state->list->behind_short || (total >= 0 && total == r->state->list->total)))
		return true; /* some leave it out where it would be empty */
	if (!r->list_found && (total != 0 || r->state->at.inner != NULL) && !d->missing_is_empty)
		return reading_none(r, "the answer has no list of records at", d->records->text);
	return true;
}

/* Of all the ids on a page; 0 when there are none. */
static uint64
reading_ids(const UpstreamPage *page)
{
	uint64 hash = 0;

	for (int i = 0; i < page->nrecords; i++)
		hash += known_id_hash(page->records[i].external_id);
	for (int i = 0; page->nknown > 0 && i < page->received; i++)
		if (page->came[i].known)
			hash += page->came[i].id_hash;
	for (int i = 0; i < page->ndeleted; i++)
		hash += known_id_hash(page->deleted[i]) * 3;
	return hash;
}

/*
 * With the very bytes of the page before, an upstream goes in circles; also with
 * the same records, where all that tells pages apart is a number that we count.
 */
static bool
reading_repeats(Reading *r)
{
	RestState *state = r->state;
	bool	   by_position = state->def->pages.type == REST_PAGES_OFFSET ||
		state->def->pages.type == REST_PAGES_PAGE;
	uint64 hash = hash_bytes_extended((const unsigned char *) r->answer->body, (int) r->answer->len,
									  0);
	uint64 ids = by_position ? reading_ids(r->page) : 0;
	bool   repeats = r->repeats = r->n > 0 &&
		((state->list->last_len == r->answer->len && state->list->last_body == hash) ||
		 (ids != 0 && ids == state->list->last_ids)) &&
		state->at.inner != NULL &&
		(state->list->last_at == NULL || strcmp(state->list->last_at, state->at.inner) != 0);

	state->list->repeated = repeats;
	state->list->last_body = hash;
	state->list->last_ids = ids;
	state->list->last_len = r->n > 0 ? r->answer->len : 0;
	if (state->list->last_at)
		pfree(state->list->last_at);
	state->list->last_at = state->at.inner ?
		MemoryContextStrdup(state->source->context, state->at.inner) :
		NULL;
	return repeats;
}

/* The link with which the next incremental pass begins; it also ends the list. */
static bool
reading_delta(Reading *r, char **next)
{
	RestState *state = r->state;
	bool	   failed = false;
	char	  *link;

	if (state->def->delta == NULL || !state->source->spec.incremental)
		return true;
	r->page->partial = state->def->delta_partial;
	/* The walk from the start brings all records, and all of them. */
	r->page->new_records_full = state->kept_link == NULL;
	link = next_link_text(r, next_text(r, state->def->delta, false, &failed));
	if (link)
	{
		ErrorClass error_class;

		/* It may well be the one that was asked for: nothing has changed. */
		r->page->keep_link = rest_follow(state, link, &error_class);
		if (r->page->keep_link == NULL)
			failed = !reading_failed(r, error_class, "%s", state->problem.message);
		memset(&state->problem, 0, sizeof(RestProblem));
		*next = NULL;
	}
	else if (*next == NULL && !failed)
	{
		r->page->unread = true;
		r->page->incomplete = "the list of changes ended without a link for the next run";
	}
	return !failed;
}

/* rest_position_text is the engine's cursor for a position, in the current context. */
char *
rest_position_text(const RestState *state, const char *parent, const char *inner)
{
	StringInfoData out;

	if (state->def->nsplit > 0)
		return rest_split_text(state, inner);
	if (state->def->parent_type == NULL)
		return inner ? pstrdup(inner) : NULL;
	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	escape_json(&out, parent);
	appendStringInfoChar(&out, ',');
	if (inner)
		escape_json(&out, inner);
	else
		appendStringInfoString(&out, "null");
	if (state->at.nfailed > 0)
	{
		appendStringInfo(&out, ",%s,%s,%d", state->at.left_out ? "true" : "false",
						 state->at.only_missing ? "true" : "false", state->at.nfailed);
		for (int i = 0; i < REST_FAILED_NAMES && state->at.failed[i]; i++)
		{
			appendStringInfoChar(&out, ',');
			escape_json(&out, state->at.failed[i]);
		}
		appendStringInfoChar(&out, ']');
	}
	else if (state->at.only_missing)
		appendStringInfoString(&out, state->at.left_out ? ",true,true]" : ",false,true]");
	else
		appendStringInfoString(&out, state->at.left_out ? ",true]" : "]");
	return out.data;
}

/*
 * The list of a parent, or a part of a split one, has come to its end: was it as long as it
 * should be?  Any other list is judged as a whole (pass.c).
 */
static void
reading_list_ends(Reading *r)
{
	RestState *state = r->state;

	if (state->def->total_is_estimate || state->list->received < 0 || state->list->list_total < 0 ||
		state->list->received == state->list->list_total || (state->nothing && !state->ended))
		return;
	reading_incomplete(r,
					   "upstream reported " INT64_FORMAT
					   " records for one of the %s but sent " INT64_FORMAT,
					   state->list->list_total, state->def->nsplit > 0 ? "parts" : "parents",
					   state->list->received);
}

/* Goes on to the next parent's list when one has come to its end, or to the next part. */
static char *
reading_next_parent(Reading *r, char *next)
{
	RestState		 *state = r->state;
	const RestParent *parent = rest_parent(state);

	if (state->def->parent_type == NULL && state->def->nsplit == 0)
		return next;
	if (next == NULL)
		reading_list_ends(r);
	if (state->def->nsplit > 0)
	{
		next = rest_split_text(state, next);
		if (next == NULL && state->ncut > 0 && !state->went_on)
			reading_incomplete(r, "%s", REST_CUT_TEXT);
		return next;
	}
	if (next == NULL && parent != NULL && rest_parent_next(state))
		parent = rest_parent(state);
	else if (next == NULL)
		parent = NULL;
	if (parent)
		return rest_position_text(state, parent->external_id, next);
	r->page->unread |= state->at.left_out || state->at.nfailed > 0 ||
		(state->at.only_missing && state->missing);
	if (state->at.nfailed > 0)
		r->page->incomplete = rest_failed_text(state);
	else if (state->ncut >= (state->def->parent_type ? REST_CUT_PARENTS : 1) && !state->went_on)
		reading_incomplete(r, "%s", REST_CUT_TEXT);
	if (state->at.left_out && r->page->incomplete == NULL)
		r->page->incomplete =
			"some parent records lack values that the definition uses, and were skipped";
	else if (state->at.only_missing && state->missing && r->page->incomplete == NULL)
		r->page->incomplete = "the upstream has no list for any of the parent records (404)";
	return NULL;
}

/* An answer without a list: there was nothing to ask for, or nothing that there has to be. */
static bool
reading_nothing(Reading *r)
{
	RestState  *state = r->state;
	const char *problem;

	if (page_mapped_begin(r->parser, "[]", 2, 1, r->page, &problem) == NULL ||
		!page_mapped_room(r->parser, r->page, 0, &problem))
		return reading_failed(r, ERRCLASS_BAD_ANSWER, "%s", problem);
	page_mapped_end(r->parser, r->page);
	r->page->list_start = true;
	if (state->unsure)
		reading_incomplete(r, "%s", state->unsure);
	if (state->def->delta && state->source->spec.incremental)
	{
		r->page->unread = true;
		reading_incomplete(r, "the list of changes ended without a link for the next run");
	}
	state->list->behind = NULL;
	if (state->at.inner == NULL)
	{
		state->list->received = 0;
		state->list->list_total = -1;
	}
	r->page->next_cursor = reading_next_parent(r, NULL);
	return true;
}

/* Counts the records of the list at hand; what an earlier run has read of it is not known. */
static void
reading_count(Reading *r, int64 total)
{
	RestState *state = r->state;

	if (state->at.inner == NULL)
	{
		state->list->received = 0;
		state->list->list_total = -1;
	}
	else if (!state->list->counting)
		state->list->received = -1;
	state->list->counting = true;
	if (state->list->received >= 0)
		state->list->received += r->n - r->page->duplicates;
	state->list->list_total = Max(state->list->list_total, total);
}

/*
 * A first page with as many records as requested, and no indication of
 * another: perhaps the definition looks for the next page in the wrong place.
 */
static bool
reading_is_cut(Reading *r, const char *next, int64 total)
{
	RestState			 *state = r->state;
	const RestDefinition *d = state->def;

	state->went_on |= next != NULL;
	return next == NULL && !r->sign && state->at.inner == NULL &&
		d->pages.type <= REST_PAGES_CURSOR && d->size_param != NULL && r->n >= state->page_size &&
		total != r->n && r->page->keep_link == NULL &&
		/* With a link of changes, the size is not asked for. */
		!(d->delta && state->source->spec.incremental);
}

/* Nothing of a page counts. */
static void
reading_empty(UpstreamPage *page)
{
	page->nrecords = page->nfaults = page->ndeleted = page->received = page->duplicates =
		page->truncated = page->gone = page->nknown = page->nknown_out = 0;
	page->incomplete = NULL;
}

/*
 * Reads an answer with a list.
 *
 * Longer than a screen: what a page may be, in the order in which it can be told.
 */
static bool
reading_page(Reading *r)
{
	RestState			 *state = r->state;
	const RestDefinition *d = state->def;
	PageParser			 *parser = r->parser;
	UpstreamPage		 *page = r->page;
	SourceAnswer		 *answer = r->answer;
	const char			 *problem = NULL;
	bool				  failed = false;
	int64				  total;
	char				 *next;

	r->behind = state->list->behind && state->at.inner &&
		strcmp(state->list->behind, state->at.inner) == 0;
	r->json = page_mapped_begin(parser, answer->body, answer->len, REST_LEVELS_ABOVE_RECORD, page,
								&problem);
	if (r->json == NULL)
	{
		/* Cut, perhaps; the next attempt may bring all of it. */
		if (page->too_large)
			return reading_failed(r, ERRCLASS_TOO_LARGE, "upstream's answer cannot be read: %s",
								  problem);
		reading_none(r, "upstream's answer cannot be read:", problem);
		answer->retryable = true;
		return false;
	}
	if (r->json->nodes[JSON_ROOT].type != JSON_OBJECT &&
		r->json->nodes[JSON_ROOT].type != JSON_ARRAY)
		return reading_none(r, "the answer is neither a JSON object nor an array", NULL);
	total = reading_int64(r, d->pages.total ? d->pages.total : d->total, &failed);
	if (d->parent_type == NULL && d->nsplit == 0)
		page->total_estimate = d->total && d->pages.total ? reading_int64(r, d->total, &failed) :
															total;
	if (d->total_is_estimate)
		total = -1;
	if (failed || !reading_select(r, total))
		return false;
	if (state->status == 206)
		reading_incomplete(r, "upstream answered with status 206: the content is partial");
	state->list->behind = NULL;
	if (!page_mapped_room(parser, page, r->n, &problem))
		return reading_failed(r, ERRCLASS_TOO_LARGE, "%s", problem);
	next = next_position(r, total, &failed);
	if (failed || !reading_delta(r, &next))
		return false;
	if (page->loop && d->parent_type && rest_leave_parent(state, 0, ERRCLASS_PAGINATION_LOOP))
		page->loop = next = NULL;
	/* It would be stored in clear. */
	if ((next && source_shows_secret(state->source, next)) ||
		(page->keep_link && source_shows_secret(state->source, page->keep_link)))
		return reading_failed(r, ERRCLASS_BAD_ANSWER,
							  "the next-page cursor contains a secret of the connector");
	do
	{
		for (uint32 i = 0; i < r->n; i++)
			if (!page_mapped_knows(parser, page, r->tree, r->nodes[i]))
				map_record(r, r->nodes[i]);
	} while (page_mapped_again(parser, page));
	rest_jsonpath_keep(NULL, 0);
	page_mapped_end(parser, page);
	if (reading_repeats(r) && r->behind)
	{
		/* The upstream ignores the position, so the page with all records was the only one. */
		reading_empty(page);
		page->may_end = false;
		r->n = 0;
		next = state->list->behind = NULL;
	}
	else if (page->loop == NULL && r->repeats && d->parent_type &&
			 rest_leave_parent(state, 0, ERRCLASS_PAGINATION_LOOP))
	{
		reading_empty(page);
		r->n = 0;
		next = NULL;
	}
	else if (page->loop == NULL && r->repeats)
		page->loop = "the upstream sent the same page twice in a row";
	reading_count(r, total);
	state->longest = Max(state->longest, r->n);
	if (reading_is_cut(r, next, total))
	{
		state->ncut++;
		/* Of the lists of many parents, one or two may well have just as many. */
		if (d->parent_type == NULL && d->nsplit == 0)
			page->cut = REST_CUT_TEXT;
	}
	page->list_start = (d->parent_type != NULL || d->nsplit > 0) && state->at.inner == NULL;
	state->at.only_missing = false;
	page->next_cursor = reading_next_parent(r, next);
	return true;
}

/* rest_read reads a page; false with the answer's class set. */
bool
rest_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	RestState *state = source->state;
	Reading	   r = {state, parser, page, answer};
	bool	   good;

	page_exclude(parser, state->def->exclude, state->def->nexclude);
	rest_jsonpath_keep(NULL, 0);
	/* What a large record has left behind is room that this page may need. */
	for (int i = 0; i < lengthof(state->scratch); i++)
		json_parser_trim(state->scratch[i],
						 memory_keep() / lengthof(state->scratch) / sizeof(JsonNode));
	good = answer->one ? reading_one(&r) : state->nothing ? reading_nothing(&r) : reading_page(&r);
	rest_jsonpath_keep(NULL, 0);
	return good;
}
