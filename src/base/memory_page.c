/*
 * memory_page.c
 *	  Limits the memory that one page of an upstream takes: an answer that is
 *	  small on the wire and huge once parsed fails with an error of its own.
 *
 * The sizes of PostgreSQL's memory contexts are used, so nothing is counted
 * twice, or leaked after an error: measured is the sum below a root (in a worker,
 * all its memory), minus the initial size, plus the buffers of answers, which
 * libcurl's callbacks malloc.  It is measured before something grows in large
 * steps (a tree, an arena, a buffer, an array that is passed to SQL), never per
 * value.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/guc.h"
#include "base/memory_page.h"

/* Buffers of answers, of this process. */
static Size memory_malloced = 0;

void
memory_outside(int64 change)
{
	memory_malloced += change;
}

static Size
memory_limit(void)
{
	return (Size) flohsync_page_memory * 1024;
}

/*
 * Of a whole process, what PostgreSQL caches is left out: it is not the page's, and its
 * contexts, one for each plan that is kept, are most of all there are.
 */
static Size
memory_measure(const PageMemory *memory)
{
	Size sum = memory_malloced;

	if (memory->root != TopMemoryContext)
		return sum + MemoryContextMemAllocated(memory->root, true);
	for (MemoryContext child = TopMemoryContext->firstchild; child; child = child->nextchild)
		if (child != CacheMemoryContext)
			sum += MemoryContextMemAllocated(child, true);
	return sum + MemoryContextMemAllocated(TopMemoryContext, false);
}

/* memory_begin: what there is now in the root, and outside, does not count. */
void
memory_begin(PageMemory *memory, MemoryContext root)
{
	memset(memory, 0, sizeof(*memory));
	memory->root = root;
	memory->base = memory_measure(memory);
}

/* memory_page begins with the next page of a pass. */
void
memory_page(PageMemory *memory, int page)
{
	memory->page = page;
	memory->trusted = 0;
}

/* memory_left is how much more may be taken. */
Size
memory_left(PageMemory *memory)
{
	Size measured = memory_measure(memory);
	Size used = measured > memory->base ? measured - memory->base : 0;

	return used < memory_limit() ? memory_limit() - used : 0;
}

/* memory_hint is the HINT of the error. */
const char *
memory_hint(void)
{
	return "Ask for fewer records at a time (flohsync.page_size, or the page size of the connector's definition), or raise flohsync.page_memory.";
}

void
memory_exceeded(PageMemory *memory)
{
	memory->exceeded = true;
	if (memory->page > 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("page %d takes more than flohsync.page_memory (%d kB)", memory->page,
						flohsync_page_memory),
				 errhint("%s", memory_hint())));
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("reading the records takes more than flohsync.page_memory (%d kB)",
					flohsync_page_memory),
			 errhint("%s", memory_hint())));
}

/*
 * memory_room is how many bytes, between the least and the most that are of use,
 * may be taken; raises when that is less than the least.
 */
Size
memory_room(PageMemory *memory, Size least, Size most)
{
	Size left;

	if (memory == NULL)
		return most;
	if (most <= memory->trusted)
	{
		memory->trusted -= most;
		return most;
	}
	left = memory_left(memory);
	if (left < least)
		memory_exceeded(memory);
	/* A caller with more than the minimum leaves something to others. */
	most = Min(most, Max(least, left / 2));
	/* Other allocations meanwhile are found at the next measurement. */
	memory->trusted = (left - most) / 4;
	return most;
}

/*
 * memory_take: so much is about to be allocated; raises when that is too much.  Without a
 * memory nothing is counted.
 */
void
memory_take(PageMemory *memory, Size more)
{
	(void) memory_room(memory, more, more);
}

/* memory_expect does the same for what others will allocate, and free again. */
void
memory_expect(PageMemory *memory, Size more)
{
	if (memory != NULL && more > memory->trusted && more > memory_left(memory))
		memory_exceeded(memory);
}

/* memory_keep is the maximum size of a buffer that is reused for the next page. */
Size
memory_keep(void)
{
	return memory_limit() / 16;
}

/*
 * memory_record_limit is how much a single record may take where PostgreSQL makes
 * a value of it: beside it there are the page, its tree and its arrays.
 */
Size
memory_record_limit(void)
{
	return memory_limit() / 2;
}
