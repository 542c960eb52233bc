/*
 * shim.h
 *	  Stands in for the backend, so that json.c, canonical.c and page.c can be
 *	  built into plain programs: memory contexts are malloc, and an error jumps
 *	  to shim_catch, or ends the program when nothing is set there.
 */
#ifndef FLOHSYNC_SHIM_H
#define FLOHSYNC_SHIM_H

#include "postgres_fe.h"

#include <setjmp.h>

struct MemoryContextData;
typedef struct MemoryContextData *MemoryContext;

#define CurrentMemoryContext					 ((MemoryContext) NULL)
#define TopMemoryContext						 ((MemoryContext) NULL)
#define MemoryContextSwitchTo(context)			 ((void) (context), (MemoryContext) NULL)
#define MemoryContextAlloc(context, size)		 ((void) (context), palloc(size))
#define MemoryContextAllocHuge(context, size)	 ((void) (context), palloc(size))
#define repalloc_huge(pointer, size)			 repalloc(pointer, size)
#define AllocSetContextCreate(parent, name, ...) ((void) (name), (MemoryContext) NULL)

/* Nothing interrupts, and nobody counts; a record may take what it may by default. */
#define CHECK_FOR_INTERRUPTS() ((void) 0)
typedef struct PageMemory
{
	int page;
} PageMemory;
#define memory_begin(memory, root)		 ((void) (memory))
#define memory_room(memory, least, most) ((void) (memory), (void) (least), (size_t) (most))
#define memory_take(memory, more)		 ((void) (memory), (void) (more))
#define memory_expect(memory, more)		 ((void) (memory), (void) (more))
#define memory_record_limit()			 ((size_t) 128 * 1024 * 1024)
#define memory_keep()					 ((size_t) 16 * 1024 * 1024)

#define ERROR								21
#define ERRCODE_INVALID_TEXT_REPRESENTATION 1
#define ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE	2
#define ERRCODE_PROGRAM_LIMIT_EXCEEDED		3
#define ERRCODE_INVALID_PARAMETER_VALUE		4
#define ERRCODE_OUT_OF_MEMORY				5

/* Each program defines it. */
extern jmp_buf *shim_catch;

/* The arguments are not evaluated: what a message says is looked at in the backend's tests. */
#define ereport(level, ...) shim_raise()
#define elog(level, ...)	shim_raise()

static inline _Noreturn void
shim_raise(void)
{
	if (shim_catch != NULL)
		longjmp(*shim_catch, 1);
	fputs("an error was raised\n", stderr);
	abort();
}

#endif /* FLOHSYNC_SHIM_H */
