/*
 * next.c
 *	  Where a list continues after a page: a link, a cursor, an offset, a page number.
 *
 * The result is the next position, or that this was the last page, which only
 * the definition's own sign may indicate; anything else in its place is an
 * error.  By position (offset, page) the only sign is the length of the list
 * reported by the upstream, so any sign that the list has shifted makes the
 * pass incomplete.  And that length is only a claim: when a page that may be
 * followed by another reaches it, the next page is requested once, to be sure.
 */
#include "postgres.h"

#include "json/value.h"
#include "net/crypto_memory.h"
#include "rest/link.h"
#include "rest/reading.h"

#define LOOK_BEHIND_LEAST 10 /* a page of so many may be as long as the upstream makes them */

/*
 * next_link_text: where a key goes into the address, an upstream may send it back in its
 * links; so these are wiped.
 */
char *
next_link_text(Reading *r, char *text)
{
	if (text && r->state->def->auth.query)
		crypto_wipe_with(CurrentMemoryContext, text, strlen(text));
	return text;
}

/*
 * next_text is the text or number that a path finds; NULL: nothing, null or an empty text.
 * Anything else is not the end of a list: *failed.
 */
char *
next_text(Reading *r, const RestPath *path, bool json_text, bool *failed)
{
	PageValue		value = rest_find(r->state, path, r->json, JSON_ROOT, r->state->scratch[0]);
	const JsonNode *node = &value.json->nodes[value.node];
	char		   *text;

	if (value.failed)
		*failed = !reading_unknown(r, path);
	r->sign |= value.found;
	if (value.node == 0)
		return NULL;
	if ((node->type != JSON_STRING && node->type != JSON_NUMBER) ||
		!page_is_clean(r->parser, value.json, value.node))
	{
		*failed = !reading_failed(r, ERRCLASS_BAD_ANSWER,
								  "the value at %s cannot be used to request the next page",
								  path->text);
		return NULL;
	}
	if (node->end - node->start > FLOHSYNC_MAX_CURSOR_BYTES)
	{
		*failed = !reading_failed(
			r, ERRCLASS_TOO_LARGE,
			"the value at %s that requests the next page has %u bytes, more than %d", path->text,
			node->end - node->start, FLOHSYNC_MAX_CURSOR_BYTES);
		return NULL;
	}
	text = json_value_text(value.json, value.node);
	if (*text == '\0')
		return NULL;
	return json_text ? pnstrdup(value.json->text + node->start, node->end - node->start) : text;
}

/* A link to the next page, resolved; *failed when it may not be followed. */
static char *
next_url(Reading *r, const char *reference, bool *failed)
{
	ErrorClass error_class;
	char	  *url;

	if (reference == NULL)
		return NULL;
	url = rest_follow(r->state, reference, &error_class);
	if (url == NULL)
	{
		reading_failed(r, error_class, "%s", r->state->problem.message);
		memset(&r->state->problem, 0, sizeof(RestProblem));
		*failed = true;
	}
	else if (strcmp(url, r->state->url) == 0)
	{
		r->page->loop = "the upstream's link to the next page is that of the page itself";
	}
	return url;
}

static char *
next_link(Reading *r, bool *failed)
{
	char *header;
	bool  malformed = false;

	for (int i = 0;
		 (header = next_link_text(r, http_header(rest_client(r->state), "Link", i))) != NULL; i++)
	{
		char *target = next_link_text(r,
									  rest_link_find(header, r->state->def->pages.rel, &malformed));

		r->sign = true;
		if (target)
			return next_url(r, target, failed);
	}
	if (malformed)
		*failed = !reading_failed(
			r, ERRCLASS_BAD_ANSWER,
			"the answer's Link header cannot be read, so the next page is not known");
	return NULL;
}

static char *
next_cursor(Reading *r, bool *failed)
{
	const RestPagination *p = &r->state->def->pages;
	char				 *cursor = next_text(r, p->path, p->in == REST_IN_BODY, failed);
	PageValue			  more;

	if (p->has_more == NULL || *failed)
		return cursor;
	more = rest_find(r->state, p->has_more, r->json, JSON_ROOT, r->state->scratch[0]);
	if (more.failed)
		*failed = !reading_unknown(r, p->has_more);
	if (more.node == 0)
		return cursor;
	r->sign = true;
	if (json_says_no(more.json, more.node))
		return NULL;
	if (cursor == NULL)
	{
		reading_failed(r, ERRCLASS_BAD_ANSWER,
					   "the answer announces more records but gives no cursor");
		*failed = true;
	}
	return cursor;
}

/*
 * Why an empty page is not the end, if it is none.  A total that is below what has passed is
 * no better.
 */
static char *
next_after_empty(Reading *r, int64 passed, int64 total)
{
	if (total >= 0 && passed != total)
		reading_incomplete(r,
						   "upstream reported " INT64_FORMAT
						   " records but sent none after " INT64_FORMAT,
						   total, passed);
	return NULL;
}

/*
 * Pages that are requested by position are contiguous only in a list that
 * does not change.  Its reported length must not change, and after an interruption
 * it is unknown how far the records have moved.
 */
static void
next_by_position(Reading *r, int64 total, int64 total_pages)
{
	RestState *state = r->state;

	if (state->at.inner == NULL)
	{
		state->list->total = state->list->total_pages = -1;
		state->list->reading = true;
	}
	else if (!state->list->reading)
	{
		r->page->unread = true;
		reading_incomplete(
			r,
			"pages are requested by position, and the pass was interrupted: records may have moved meanwhile");
	}
	if (total >= 0 && state->list->total >= 0 && total != state->list->total)
		reading_incomplete(r, "upstream reported " INT64_FORMAT " records, then " INT64_FORMAT,
						   state->list->total, total);
	if (total_pages >= 0 && state->list->total_pages >= 0 &&
		total_pages != state->list->total_pages)
		reading_incomplete(r, "upstream reported " INT64_FORMAT " pages, then " INT64_FORMAT,
						   state->list->total_pages, total_pages);
	state->list->total = Max(state->list->total, total);
	state->list->total_pages = Max(state->list->total_pages, total_pages);
}

/* A position's number; safe to add to, even if the stored cursor was modified. */
static int64
next_number(const char *text)
{
	return Max(Min(strtoll(text, NULL, 10), PG_INT64_MAX / 2), PG_INT64_MIN / 2);
}

/*
 * The list is as long as the upstream says.  A page as long as was asked for may
 * all the same be followed by another, and so may one as long as the longest
 * before; and a first page may be all that was counted.
 */
static char *
next_behind(Reading *r, char *next)
{
	RestState			 *state = r->state;
	const RestDefinition *d = state->def;
	bool				  first = state->at.inner == NULL && d->parent_type == NULL &&
		!state->source->spec.incremental;
	bool full;

	/* Fewer may be all that the upstream ever sends at a time. */
	if (d->size_param)
		full = r->n >= state->page_size || (r->n > 0 && first) ||
			(r->n >= LOOK_BEHIND_LEAST && r->n >= state->longest && state->longest > 0);
	else
		full = r->n > 0 && state->at.inner == NULL && d->parent_type == NULL &&
			d->pages.stop == REST_STOP_TOTAL;
	if (!full || state->source->spec.probe)
		return NULL;
	state->list->behind = MemoryContextStrdup(state->source->context, next);
	state->list->behind_short = d->size_param && r->n < state->page_size;
	r->page->may_end = true;
	return next;
}

static char *
next_offset(Reading *r, int64 total)
{
	RestState			 *state = r->state;
	const RestPagination *p = &state->def->pages;
	int64				  offset = state->at.inner ? next_number(state->at.inner) : p->base;
	int64				  step = p->step_page_size ? state->page_size : r->n;
	int64				  passed = offset - p->base + step;
	bool				  by_total = p->stop == REST_STOP_TOTAL;
	char				 *next = psprintf(INT64_FORMAT, offset + step);

	next_by_position(r, total, -1);
	if (r->n == 0)
	{
		/*
		 * What was on such a page may have been filtered out, where the position does not
		 * depend on it.
		 */
		if (by_total && p->step_page_size && passed < state->list->total)
			return next;
		/* Requesting the same offset again would not make progress. */
		return next_after_empty(r, offset - p->base,
								by_total && !p->step_page_size ? state->list->total : -1);
	}
	if (!by_total || total < 0 || passed < state->list->total)
		return next;
	/* More records than the total: so this is not the end. */
	if (p->step_page_size ? offset - p->base >= state->list->total : passed > state->list->total)
	{
		reading_incomplete(r, "upstream reported " INT64_FORMAT " records but sent more",
						   state->list->total);
		return next;
	}
	return next_behind(r, next);
}

static char *
next_page(Reading *r, int64 total, bool *failed)
{
	RestState			 *state = r->state;
	const RestPagination *p = &state->def->pages;
	const char			 *inner = state->at.inner;
	const char			 *colon = inner ? strchr(inner, ':') : NULL;
	int64				  page = inner ? next_number(inner) : p->base;
	int64				  passed = (colon ? next_number(colon + 1) : 0) + r->n;
	int64 pages = p->stop == REST_STOP_TOTAL_PAGES ? reading_int64(r, p->total_pages, failed) : -1;
	char *next = psprintf(INT64_FORMAT ":" INT64_FORMAT, page + 1, passed);
	int64 done = page - p->base + 1;

	next_by_position(r, total, pages);
	if (p->stop == REST_STOP_TOTAL_PAGES && r->n == 0 && done < state->list->total_pages)
		reading_incomplete(r,
						   "upstream reported " INT64_FORMAT
						   " pages but sent no records on page " INT64_FORMAT,
						   state->list->total_pages, done);
	if (pages == 0 && r->n > 0)
		reading_incomplete(r, "upstream reported zero pages but sent one with records");
	if (p->stop == REST_STOP_TOTAL_PAGES && pages >= 0 && done < state->list->total_pages)
		return next;
	if (p->stop == REST_STOP_TOTAL && r->n == 0)
	{
		if (state->def->size_param &&
			(double) done * state->page_size < (double) state->list->total)
			return next;
		return next_after_empty(r, passed, state->list->total);
	}
	if (r->n == 0)
		return NULL;
	if (p->stop == REST_STOP_TOTAL_PAGES && pages > 0 && done > state->list->total_pages)
		reading_incomplete(r, "upstream reported " INT64_FORMAT " pages but sent more",
						   state->list->total_pages);
	else if (p->stop == REST_STOP_TOTAL_PAGES && pages > 0)
		return next_behind(r, next);
	if (p->stop == REST_STOP_TOTAL && total >= 0 && passed > state->list->total)
		reading_incomplete(r, "upstream reported " INT64_FORMAT " records but sent more",
						   state->list->total);
	else if (p->stop == REST_STOP_TOTAL && total >= 0 && passed == state->list->total)
		return next_behind(r, next);
	return next;
}

/* next_position is where the list continues; NULL: it ends here, or *failed. */
char *
next_position(Reading *r, int64 total, bool *failed)
{
	const RestPagination *p = &r->state->def->pages;

	switch (p->type)
	{
		case REST_PAGES_LINK_HEADER:
			return next_link(r, failed);
		case REST_PAGES_NEXT_URL:
			return next_url(r, next_link_text(r, next_text(r, p->path, false, failed)), failed);
		case REST_PAGES_CURSOR:
			return next_cursor(r, failed);
		case REST_PAGES_OFFSET:
			return next_offset(r, total);
		case REST_PAGES_PAGE:
			return next_page(r, total, failed);
		default:
			return NULL;
	}
}
