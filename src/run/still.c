/*
 * still.c
 *	  Detects upstreams that send the same records forever, with new cursors.
 */
#include "postgres.h"

#include "lib/bloomfilter.h"

#include "base/bytes.h"
#include "run/state.h"

/* Pages with records, in a row, of which every one had come before in the list. */
#define PASS_MAX_KNOWN_PAGES 5
#define PASS_MAX_KNOWN_CHANGES \
	100 /* where a page lists changes, of which one record may have many */
#define PASS_SEEN_IDS 1000000
#define PASS_SEEN_KB  2048

/* pass_forget_ids: the list begins again, or another one. */
void
pass_forget_ids(Run *run)
{
	if (run->seen_ids)
		bloom_free(run->seen_ids);
	run->seen_ids = NULL;
	run->nseen_ids = 0;
}

static bool
pass_id_is_new(Run *run, Slice id)
{
	bool known;

	if (id.data == NULL)
		return true;
	known = !bloom_lacks_element(run->seen_ids, (unsigned char *) id.data, id.len);
	if (!known)
	{
		bloom_add_element(run->seen_ids, (unsigned char *) id.data, id.len);
		run->nseen_ids++;
	}
	return !known;
}

/*
 * pass_stands_still: has the upstream sent nothing new for some pages, whatever
 * its links or cursors say?  What was seen is remembered as far as a filter of
 * fixed size does, which takes a new id for a known one so rarely that it never
 * happens for whole pages in a row.  When it is full, a new one is begun: then
 * known ids count as new once more.
 */
bool
pass_stands_still(Run *run, const UpstreamPage *page)
{
	/* Records that are known are not looked at: the page after next, they are unknown. */
	bool news = page->nknown > 0;

	/* A query of our own comes to its end, however often it gives a record. */
	if (run->source->own_query)
		return false;
	/* The lists of two parents may well have the same records. */
	if (page->list_start)
	{
		pass_forget_ids(run);
		run->known_pages = 0;
		return false;
	}
	if (run->nseen_ids >= PASS_SEEN_IDS)
		pass_forget_ids(run);
	if (run->seen_ids == NULL && page->next_cursor == NULL)
		return false;
	if (run->seen_ids == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(run->context);

		run->seen_ids = bloom_create(PASS_SEEN_IDS, PASS_SEEN_KB, (uint64) run->id);
		MemoryContextSwitchTo(old);
	}
	for (int i = 0; i < page->nrecords; i++)
	{
		bool is_new = pass_id_is_new(run, page->records[i].external_id);

		news |= is_new;
		run->repeated += !is_new;
	}
	for (int i = 0; i < page->ndeleted; i++)
		news |= pass_id_is_new(run, page->deleted[i]);
	for (int i = 0; i < page->nfaults; i++)
		news |= pass_id_is_new(run, page->faults[i].external_id);
	/* Empty pages are counted by themselves. */
	if (news)
		run->known_pages = 0;
	else if (page->nrecords + page->ndeleted + page->nfaults > 0)
		run->known_pages++;
	return run->known_pages >= (page->partial ? PASS_MAX_KNOWN_CHANGES : PASS_MAX_KNOWN_PAGES);
}
