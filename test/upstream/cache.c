/*
 * cache.c
 *	  The page cache: rendered pages of full listings, so that a benchmark
 *	  does not pay for rendering.  A change of the records empties it.
 */
#include "call.h"
#include "page.h"

/* A page has its place among so many slots behind that of its hash: two pages never share one by chance. */
#define SLOTS  65536
#define PLACES 8

bool commands_page_cache = false;

typedef struct cached_page
{
	const data_type *type;
	page_record		*put_record;
	uint64_t		 variant;
	cursor			 at;
	long			 size;
	bool			 by_position;
	uint64_t		 generation;
	int64_t			 epoch;
	/* what page_select() found */
	size_t		  records;
	size_t		  estimate;
	bool		  more;
	cursor		  next;
	shared_bytes *bytes;
} cached_page;

static cached_page cache[SLOTS];

static bool
cache_has(const cached_page *slot, const page *p, uint64_t variant)
{
	return slot->bytes != NULL && slot->generation == data_generation && slot->type == p->type &&
		slot->put_record == p->put_record && slot->variant == variant &&
		slot->at.offset == p->at.offset && slot->at.page == p->at.page && slot->size == p->size &&
		slot->epoch == cursor_epoch && slot->by_position == p->by_position;
}

/* The slot of a page: the one that has it, else an empty one, else the first. */
static cached_page *
cache_slot(const page *p, uint64_t variant)
{
	uint64_t	 first = mix((uint64_t) p->at.offset ^
							 mix((uint64_t) p->size ^ (uint64_t) (uintptr_t) p->type ^ variant));
	cached_page *empty = NULL;

	for (int i = 0; i < PLACES; i++)
	{
		cached_page *slot = &cache[(first + i) % SLOTS];

		if (cache_has(slot, p, variant))
			return slot;
		if (empty == NULL && (slot->bytes == NULL || slot->generation != data_generation))
			empty = slot;
	}
	return empty ? empty : &cache[first % SLOTS];
}

/*
 * Put the page p into the answer, rendered by write or taken from the cache.
 * Pages that differ in more than p says need another variant.  Afterwards p
 * says whether the listing goes on; how many records it has is returned.
 */
size_t
cache_page(page *p, uint64_t variant, page_writer write, void *closure, answer *a)
{
	cached_page *slot;

	if (!commands_page_cache || p->incremental || p->member_of != 0 || p->part > 0 ||
		p->with_deleted)
	{
		page_select(p);
		write(&a->body, p, closure);
		return p->count;
	}
	slot = cache_slot(p, variant);
	if (!cache_has(slot, p, variant))
	{
		if (slot->bytes != NULL)
			shared_release(slot->bytes);
		page_select(p);
		*slot = (cached_page){.type = p->type,
							  .put_record = p->put_record,
							  .variant = variant,
							  .at = p->at,
							  .size = p->size,
							  .by_position = p->by_position,
							  .generation = data_generation,
							  .epoch = cursor_epoch,
							  .records = p->count,
							  .estimate = p->estimate,
							  .more = p->more,
							  .next = p->next};
		slot->bytes = must_alloc(sizeof(shared_bytes));
		slot->bytes->refs = 1;
		write(&slot->bytes->bytes, p, closure);
	}
	p->estimate = slot->estimate;
	p->more = slot->more;
	p->next = slot->next;
	a->shared = slot->bytes;
	a->shared->refs++;
	return slot->records;
}
