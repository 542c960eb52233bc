/*
 * as_before.c
 *	  Pages that come as before, byte for byte, and are not read (run/prints.c).
 *
 * What comes of a page follows from its bytes, from its Link headers where these
 * tell of the next page, and from what the pages before it have left: how long the
 * list is said to be, and how long pages are.  All that is one text.
 *
 * Of the page before itself only one thing matters: whether this one is the same.
 * It is left out of that text, or else a page that has changed would have the next
 * one read too, and compared by itself.
 *
 * Which list comes next where there is one for each of some parents depends on
 * these, so such pages are always read.  So are those of a split list: each part has a
 * length of its own, which is checked at its end, and turns that depend on all others.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "rest/rest.h"

char *
rest_reads_from(Source *source, bool answered)
{
	RestState	  *state = source->state;
	RestList	  *list = state->list;
	StringInfoData out;
	char		  *link;

	if (state->def->parent_type || state->def->nsplit > 0 ||
		(answered && (state->nothing || (state->status != 200 && state->status != 304))))
		return NULL;
	initStringInfo(&out);
	appendStringInfo(&out, "%d %d %d %d " INT64_FORMAT " " INT64_FORMAT " %s\n", state->page_size,
					 list->reading, list->behind_short, state->longest, list->total,
					 list->total_pages, list->behind ? list->behind : "");
	for (int i = 0; answered && state->def->pages.type == REST_PAGES_LINK_HEADER &&
		 (link = http_header(rest_client(state), "Link", i)) != NULL;
		 i++)
	{
		/* Some have the key of the request in them, which would be stored in clear. */
		if (source_shows_secret(source, link))
			return NULL;
		appendStringInfo(&out, "%s\n", link);
	}
	return out.data;
}

char *
rest_read_to(Source *source)
{
	const RestState *state = source->state;
	const RestList	*list = state->list;

	if (state->def->parent_type || state->def->nsplit > 0 || state->nothing || list->repeated)
		return NULL;
	return psprintf("%d %d %d " INT64_FORMAT " " INT64_FORMAT " " UINT64_FORMAT " " UINT64_FORMAT
					" %zu %s",
					list->reading, list->behind_short, state->longest, list->total,
					list->total_pages, list->last_body, list->last_ids, list->last_len,
					list->behind ? list->behind : "");
}

bool
rest_read_as_before(Source *source, const char *read_to)
{
	RestState *state = source->state;
	RestList  *list = state->list;
	int		   reading, behind_short, longest;
	int64	   total, total_pages;
	uint64	   body, ids;
	size_t	   len;
	int		   at = 0;

	if (sscanf(read_to,
			   "%d %d %d " INT64_FORMAT " " INT64_FORMAT " " UINT64_FORMAT " " UINT64_FORMAT
			   " %zu %n",
			   &reading, &behind_short, &longest, &total, &total_pages, &body, &ids, &len,
			   &at) < 8 ||
		at == 0)
		return false;
	/* As the page before: that is for reading_repeats() to judge. */
	if (len > 0 && state->at.inner != NULL &&
		((list->last_len == len && list->last_body == body) || (ids != 0 && ids == list->last_ids)))
		return false;
	list->reading = reading;
	list->behind_short = behind_short;
	state->longest = longest;
	list->total = total;
	list->total_pages = total_pages;
	list->last_body = body;
	list->last_ids = ids;
	list->last_len = len;
	list->repeated = false;
	if (list->last_at)
		pfree(list->last_at);
	list->last_at = state->at.inner ? MemoryContextStrdup(source->context, state->at.inner) : NULL;
	list->behind = read_to[at] ? MemoryContextStrdup(source->context, read_to + at) : NULL;
	list->counting = true;
	list->received = list->list_total = -1;
	return true;
}
