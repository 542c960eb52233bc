/*
 * known.c
 *	  Records that come as they came before: the same text, the same record.
 *
 * A page of which a part has changed is read, but most of its records are what
 * they were.  Of each page a list is kept with the digest of each record's text and
 * the number of its stored row.  A record whose digest is in the list of a page nearby is
 * not taken apart, not put into canonical form, and not looked up.
 *
 * Why that is right.  What comes of a record follows from its text and from the
 * settings under which it is read; run/prints.c says when the lists of a page are of
 * use, and the caller says whose stored row may have been written since (doubt).
 * Two texts with the same 128 bits of SHA-256 are the same text.
 *
 * Lists mostly come in the order in which they came.  So the next record of the list is
 * expected: its length says where the text would end, and if the digest is the same,
 * this is the text, with brackets that match, as it was then.  It need not even be
 * parsed (json_parser_expect).  A record that is not the expected one is looked for in
 * the lists of the pages nearby, as records move when others are added or removed.
 *
 * What it costs: SHA-256 of each record, and some 28 bytes of each that has changed, which
 * are written with its page (known_text.c).
 *
 * Invariants:
 *	- A record of a list is met once in a turn, that is on one page.  The same text
 *	  again on that page is read.
 *	- What is damaged of the text of a list makes it an empty one.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "utils/memutils.h"
#endif

#include "common/hashfn.h"

#include "json/canonical.h"
#include "page/known.h"

/* After so many unknown records in a row it is no longer assumed that each has taken the place of one. */
#define KNOWN_MISSES 8

/* So many records may be left out of a list, in a row, without any other being parsed. */
#define KNOWN_LEFT_OUT 2

Known *
known_create(void)
{
	Known *known = palloc0(sizeof(Known));

	known->context = CurrentMemoryContext;
	return known;
}

static void
known_free_list(KnownList *list)
{
	if (list->records)
		pfree(list->records);
	if (list->used)
		pfree(list->used);
	if (list->table)
		pfree(list->table);
	memset(list, 0, sizeof(*list));
}

/* known_clear forgets all lists. */
void
known_clear(Known *known)
{
	for (int i = 0; i < known->nlists; i++)
		known_free_list(&known->lists[i]);
	known->nlists = known->list = known->at = known->misses = 0;
}

uint64
known_id_hash(Slice id)
{
	return hash_bytes_extended((const unsigned char *) id.data, id.len, 0);
}

/* known_add_list adds the list of the next page; false, and an empty one, if it is damaged. */
bool
known_add_list(Known *known, int64 page, const KnownText *text)
{
	KnownList *list;
	bool	   good;

	if (known->nlists == KNOWN_LISTS)
		known_drop_list(known, 0);
	list = &known->lists[known->nlists++];
	memset(list, 0, sizeof(*list));
	list->page = page;
	good = known_decode(text, known->context, &list->records, &list->n);
	list->used = MemoryContextAlloc(known->context, sizeof(uint32) * Max(list->n, 1));
	memset(list->used, 0, sizeof(uint32) * Max(list->n, 1));
	return good;
}

void
known_drop_list(Known *known, int i)
{
	known_free_list(&known->lists[i]);
	known->nlists--;
	memmove(&known->lists[i], &known->lists[i + 1], sizeof(KnownList) * (known->nlists - i));
	if (known->list > i)
		known->list--;
	else if (known->list == i)
		known->at = 0;
}

/* known_begin begins a page; doubt tells of which stored rows nothing is known. */
void
known_begin(Known *known, KnownDoubt doubt, void *arg)
{
	known->turn++;
	known->doubt = doubt;
	known->doubt_arg = arg;
	known->nhits = known->next_hit = 0;
	known->digested = NULL;
	known->off = known->expecting = false;
}

/* known_go_to: the first record of a list is expected next. */
void
known_go_to(Known *known, int list)
{
	known->list = list;
	known->at = 0;
	known->misses = 0;
}

/* known_in_step: does what comes still stand where it is expected? */
bool
known_in_step(const Known *known)
{
	return known->misses < KNOWN_MISSES;
}

static void
known_digest(const char *text, uint32 len, unsigned char *digest)
{
	unsigned char sum[CANONICAL_DIGEST_BYTES];

	canonical_digest(text, len, sum);
	memcpy(digest, sum, KNOWN_DIGEST_BYTES);
}

/* Is this record met, and may it be taken as it was? */
static bool
known_meet(Known *known, int list, int at)
{
	KnownList		  *l = &known->lists[list];
	const KnownRecord *r = &l->records[at];

	known->list = list;
	known->at = at + 1;
	known->misses = 0;
	if (r->num == KNOWN_UNLISTED || l->used[at] == known->turn ||
		(r->num != KNOWN_OUT_OF_SCOPE && known->doubt && known->doubt(known->doubt_arg, r->num)))
		return false;
	l->used[at] = known->turn;
	return true;
}

static void
known_hit(Known *known, const char *text, const KnownRecord *record)
{
	if (known->nhits == known->hits_size)
	{
		known->hits_size = Max(known->hits_size * 2, 1024);
		if (known->hits == NULL)
			known->hits = MemoryContextAllocHuge(known->context,
												 sizeof(KnownHit) * known->hits_size);
		else
			known->hits = repalloc_huge(known->hits, sizeof(KnownHit) * known->hits_size);
	}
	known->hits[known->nhits++] = (KnownHit){text, record};
}

/* Goes on to the next record of the lists; false when there is none. */
static bool
known_next(const Known *known, int *list, int *at)
{
	(*at)++;
	while (*list < known->nlists && *at >= known->lists[*list].n)
	{
		(*list)++;
		*at = 0;
	}
	return *list < known->nlists;
}

/* The record that was expected is not there: mostly another one has taken its place. */
static void
known_miss(Known *known)
{
	int list = known->list;
	int at = known->at;

	if (known->misses++ < KNOWN_MISSES && known_next(known, &list, &at))
	{
		known->list = list;
		known->at = at;
	}
}

/* Does the text of a record stand here? */
static bool
known_stands(Known *known, const KnownRecord *r, const char *text, const char *end)
{
	/* Mostly that already tells. */
	if (r->len < 2 || (size_t) (end - text) <= r->len || text[r->len - 1] != '}' ||
		(text[r->len] != ',' && text[r->len] != ']' && (unsigned char) text[r->len] > ' '))
		return false;
	if (known->digested != text || known->digested_len != r->len)
	{
		known_digest(text, r->len, known->digest);
		known->digested = text;
		known->digested_len = r->len;
	}
	return memcmp(known->digest, r->digest, KNOWN_DIGEST_BYTES) == 0;
}

/*
 * known_expect: does the text of the record that is expected stand here, or of one of the
 * next?  Its length, or 0.  The end is that of all text; what is there is not known to be JSON.
 */
uint32
known_expect(void *arg, const char *text, const char *end)
{
	Known *known = arg;
	int	   list = known->list;
	int	   at = known->at - 1;

	known->expecting = true;
	if (known->off)
		return 0;
	for (int ahead = 0; ahead <= KNOWN_LEFT_OUT && known_next(known, &list, &at); ahead++)
	{
		const KnownRecord *r = &known->lists[list].records[at];

		if (!known_stands(known, r, text, end))
			continue;
		if (!known_meet(known, list, at))
			return 0;
		known_hit(known, text, r);
		return r->len;
	}
	known_miss(known);
	return 0;
}

static uint32
known_slot(const unsigned char *digest)
{
	uint32 slot;

	memcpy(&slot, digest, sizeof(slot));
	return slot;
}

static void
known_make_table(const Known *known, KnownList *list)
{
	uint32 size = 16;

	while (size < (uint32) list->n * 2)
		size *= 2;
	list->mask = size - 1;
	list->table = MemoryContextAlloc(known->context, sizeof(uint32) * size);
	memset(list->table, 0, sizeof(uint32) * size);
	for (int i = 0; i < list->n; i++)
	{
		uint32 slot = known_slot(list->records[i].digest) & list->mask;

		while (list->table[slot] != 0)
			slot = (slot + 1) & list->mask;
		list->table[slot] = i + 1;
	}
}

/* The record of a list with a digest; -1: there is none. */
static int
known_look(const Known *known, KnownList *list, const unsigned char *digest)
{
	uint32 slot;

	if (list->n == 0)
		return -1;
	if (list->table == NULL)
		known_make_table(known, list);
	slot = known_slot(digest) & list->mask;
	for (; list->table[slot] != 0; slot = (slot + 1) & list->mask)
	{
		int i = (int) list->table[slot] - 1;

		if (memcmp(list->records[i].digest, digest, KNOWN_DIGEST_BYTES) == 0)
			return i;
	}
	return -1;
}

/* Where in the text was a record found by known_expect?  Those that nobody asks for are passed over. */
static const KnownRecord *
known_was_hit(Known *known, const char *text)
{
	while (known->next_hit < known->nhits && known->hits[known->next_hit].text < text)
		known->next_hit++;
	return known->next_hit < known->nhits && known->hits[known->next_hit].text == text ?
		known->hits[known->next_hit].record :
		NULL;
}

/*
 * known_find: is this a record that came before?  It is put into *record; if not, its digest
 * and length.  Records are asked for in their order.
 */
bool
known_find(Known *known, const char *text, uint32 len, KnownRecord *record)
{
	const KnownRecord *hit = known_was_hit(known, text);
	int				   expected;

	if (hit && !known->off)
	{
		*record = *hit;
		return true;
	}
	if (known->digested == text && known->digested_len == len)
		memcpy(record->digest, known->digest, KNOWN_DIGEST_BYTES);
	else
		known_digest(text, len, record->digest);
	record->len = len;
	record->num = KNOWN_OUT_OF_SCOPE;
	record->id_hash = 0;
	record->base = 0;
	if (known->off)
		return false;
	/* First where it is expected, then in the pages behind and ahead. */
	expected = Min(known->list, known->nlists - 1);
	for (int k = 0; k < known->nlists; k++)
	{
		int list = k == 0 ? expected : k <= expected ? k - 1 : k;
		int at = known_look(known, &known->lists[list], record->digest);

		if (at < 0)
			continue;
		if (!known_meet(known, list, at))
			return false;
		*record = known->lists[list].records[at];
		return true;
	}
	if (!known->expecting)
		known_miss(known);
	return false;
}
