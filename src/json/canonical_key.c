/*
 * canonical_key.c
 *	  Strings in order, and an arena for small ones.
 *
 * The sort is n log n whatever an upstream sends, and stable, so that of equal
 * keys the last one can be told.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "utils/memutils.h"

#include "base/memory_page.h"
#endif

#include "json/canonical.h"

#define CHUNK_SIZE (64 * 1024)

typedef struct CanonicalChunk
{
	struct CanonicalChunk *next;
	size_t				   size;
	size_t				   used;
	char				   data[FLEXIBLE_ARRAY_MEMBER];
} CanonicalChunk;

char *
canonical_arena_alloc(CanonicalArena *arena, size_t size)
{
	CanonicalChunk *chunk = arena->chunks;

	if (chunk == NULL || chunk->size - chunk->used < size)
	{
		size_t room = Max(size, CHUNK_SIZE);

		memory_take(arena->memory, offsetof(CanonicalChunk, data) + room);
		chunk = MemoryContextAllocHuge(arena->context, offsetof(CanonicalChunk, data) + room);
		chunk->next = arena->chunks;
		chunk->size = room;
		chunk->used = 0;
		arena->chunks = chunk;
	}
	chunk->used += size;
	return chunk->data + chunk->used - size;
}

void
canonical_arena_reset(CanonicalArena *arena)
{
	CanonicalChunk *chunk = arena->chunks;

	if (chunk == NULL)
		return;
	while (chunk->next != NULL || chunk->size > CHUNK_SIZE)
	{
		CanonicalChunk *next = chunk->next;

		pfree(chunk);
		chunk = next;
		arena->chunks = chunk;
		if (chunk == NULL)
			return;
	}
	chunk->used = 0;
}

int
canonical_key_compare_tails(const CanonicalKey *a, const CanonicalKey *b)
{
	uint32 len = Min(a->len, b->len);

	if (len > 8 && !a->utf16 && !b->utf16)
	{
		int order = memcmp(a->data + 8, b->data + 8, len - 8);

		if (order != 0)
			return order;
	}
	else
	{
		for (uint32 i = 8; i < len; i++)
		{
			unsigned char x = a->data[i];
			unsigned char y = b->data[i];

			if (x != y)
				return canonical_utf16_rank(x) < canonical_utf16_rank(y) ? -1 : 1;
		}
	}
	return a->len < b->len ? -1 : a->len > b->len;
}

void
canonical_key_sort(CanonicalKey *keys, CanonicalKey *scratch, uint32 n)
{
	const uint32  run = 12;
	CanonicalKey *from = keys;
	CanonicalKey *to = scratch;

	for (uint32 start = 0; start < n; start += run)
	{
		uint32 end = Min(n, start + run);

		for (uint32 i = start + 1; i < end; i++)
		{
			CanonicalKey key = keys[i];
			uint32		 j = i;

			for (; j > start && canonical_key_compare(&keys[j - 1], &key) > 0; j--)
				keys[j] = keys[j - 1];
			keys[j] = key;
		}
	}
	for (uint32 width = run; width < n; width *= 2)
	{
		CanonicalKey *swap = from;

		for (uint32 start = 0; start < n; start += 2 * width)
		{
			uint32 middle = Min(n, start + width);
			uint32 end = Min(n, start + 2 * width);
			uint32 a = start;
			uint32 b = middle;

			for (uint32 i = start; i < end; i++)
			{
				if (a < middle && (b >= end || canonical_key_compare(&from[a], &from[b]) <= 0))
					to[i] = from[a++];
				else
					to[i] = from[b++];
			}
		}
		from = to;
		to = swap;
	}
	if (from != keys)
		memcpy(keys, from, n * sizeof(CanonicalKey));
}
