/*
 * came.c
 *	  Which records of a page came as before: known.c tells, and here that becomes part
 *	  of the page.
 *
 * Of each record of the page, in its order, came has the digest and what is known of it,
 * whether it was known or has been read.  From it the list of the page is made that the
 * next pass goes by, so what came of the records that were read has to be put into it.
 *
 * Of a page with a record twice, the later one counts.  That cannot be told of one
 * that is known, as it was not read.  So such a page is read again, with nothing known.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "page/known.h"
#include "page/page.h"
#include "page/private.h"

void
page_know(PageParser *parser, Known *known)
{
	parser->known = known;
}

/* page_knows_begin: a page is read; of one of the command protocol, known records are not even parsed. */
void
page_knows_begin(PageParser *parser, uint32 depth)
{
	json_parser_expect(parser->json, depth, parser->known && depth > 0 ? known_expect : NULL,
					   parser->known);
}

/* page_knows_much: are many of the records likely to be known? */
bool
page_knows_much(const PageParser *parser)
{
	return parser->known && !parser->known->off && parser->known->nlists > 0;
}

/* page_knows_room makes room for what is known of so many records. */
void
page_knows_room(PageParser *parser, UpstreamPage *page, size_t records)
{
	if (parser->known == NULL)
		return;
	parser->came = page_reserve(parser, parser->came, &parser->came_size, records,
								sizeof(KnownRecord));
	page->came = parser->came;
}

/* page_knows: is this a record that came before?  Then it is counted, and that is all. */
bool
page_knows(PageParser *parser, UpstreamPage *page, const JsonParser *json, uint32 index)
{
	const JsonNode *node = &json->nodes[index];
	KnownRecord	   *came;

	if (page->came == NULL)
		return false;
	came = &parser->came[page->received];
	came->known = known_find(parser->known, json->text + node->start, node->end - node->start,
							 came);
	if (!came->known)
		return false;
	page->received++;
	page->nknown++;
	page->nknown_out += came->num == KNOWN_OUT_OF_SCOPE;
	return true;
}

/* page_came: a record was read. */
void
page_came(const UpstreamPage *page, const Record *record, bool truncated)
{
	KnownRecord *came;

	if (page->came == NULL)
		return;
	came = &page->came[record->position];
	came->id_hash = known_id_hash(record->external_id);
	/* That a name was cut is counted each time. */
	came->num = truncated ? KNOWN_UNLISTED : KNOWN_OUT_OF_SCOPE;
}

/* Is the hash of an id in a table of them?  0 stands for none; put there, if wanted. */
static bool
came_in_table(uint64 *table, uint32 mask, uint64 hash, bool put)
{
	uint32 slot = (uint32) hash & mask;

	hash = hash ? hash : 1;
	for (; table[slot] != 0; slot = (slot + 1) & mask)
		if (table[slot] == hash)
			return true;
	if (put)
		table[slot] = hash;
	return false;
}

/*
 * page_knows_wrongly: may a record that is known have come on the page in another form, or
 * deleted, as well?  Then the page has to be read again, and nothing is known of it.
 */
bool
page_knows_wrongly(PageParser *parser, const UpstreamPage *page)
{
	uint32	others = (uint32) page->nrecords + (uint32) page->ndeleted;
	uint32	size = 16;
	uint64 *table;
	bool	wrongly = false;

	if (page->nknown == 0 || others == 0)
		return false;
	while (size < others * 2)
		size *= 2;
	table = palloc_extended(sizeof(uint64) * size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < page->nrecords; i++)
		(void) came_in_table(table, size - 1, parser->came[parser->records[i].position].id_hash,
							 true);
	for (int i = 0; i < page->ndeleted; i++)
		(void) came_in_table(table, size - 1, known_id_hash(parser->deleted[i]), true);
	for (int i = 0; i < page->received && !wrongly; i++)
		wrongly = parser->came[i].known &&
			came_in_table(table, size - 1, parser->came[i].id_hash, false);
	pfree(table);
	if (wrongly)
		parser->known->off = true;
	return wrongly;
}
