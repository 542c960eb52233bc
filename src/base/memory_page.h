/*
 * memory_page.h
 *	  The accounting of what one page of an upstream takes.  See memory_page.c.
 */
#ifndef FLOHSYNC_MEMORY_PAGE_H
#define FLOHSYNC_MEMORY_PAGE_H

#include "base/compat.h"

/* Lives as long as what is counted by it. */
typedef struct PageMemory
{
	MemoryContext root;		/* what counts is allocated in here or below, or outside */
	Size		  base;		/* what there was before */
	Size		  trusted;	/* so much more may be taken before it is measured again */
	int			  page;		/* of a pass, from 1; 0: an answer for something else */
	bool		  exceeded; /* the error was raised */
} PageMemory;

extern void memory_begin(PageMemory *memory, MemoryContext root);
extern void memory_page(PageMemory *memory, int page);
extern Size memory_left(PageMemory *memory);
extern Size memory_room(PageMemory *memory, Size least, Size most);
extern void memory_take(PageMemory *memory, Size more);
extern void memory_expect(PageMemory *memory, Size more);
FLOHSYNC_NORETURN(extern void memory_exceeded(PageMemory *memory));
extern Size		   memory_record_limit(void);
extern Size		   memory_keep(void);
extern const char *memory_hint(void);

/* Bytes that malloc gave, or that were freed: they are in no context. */
extern void memory_outside(int64 change);

#endif /* FLOHSYNC_MEMORY_PAGE_H */
