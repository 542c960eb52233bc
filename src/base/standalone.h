/*
 * standalone.h
 *	  Stands in for the backend where a file is built into a plain program
 *	  (FLOHSYNC_STANDALONE): unit tests, fuzzers, programs beside the server.
 *
 * Memory contexts are malloc.  When memory runs out libpgcommon ends the program.
 * What would raise an error jumps to standalone_catch, or ends the program when
 * nothing is set there: a program that must go on uses only what reports faults by
 * its result, as json_parse does, and gives its parser room before.
 */
#ifndef FLOHSYNC_STANDALONE_H
#define FLOHSYNC_STANDALONE_H

#include "postgres_fe.h"

#include <setjmp.h>

struct MemoryContextData;
typedef struct MemoryContextData *MemoryContext;

#define CurrentMemoryContext					 ((MemoryContext) NULL)
#define TopMemoryContext						 ((MemoryContext) NULL)
#define MemoryContextSwitchTo(context)			 ((void) (context), (MemoryContext) NULL)
#define MemoryContextAlloc(context, size)		 ((void) (context), palloc(size))
#define MemoryContextAllocHuge(context, size)	 ((void) (context), palloc(size))
#define MemoryContextStrdup(context, text)		 ((void) (context), pstrdup(text))
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
extern jmp_buf *standalone_catch;

/* The arguments are not evaluated: what a message says is looked at in the backend's tests. */
#define ereport(level, ...) standalone_raise()
#define elog(level, ...)	standalone_raise()

static inline _Noreturn void
standalone_raise(void)
{
	if (standalone_catch != NULL)
		longjmp(*standalone_catch, 1);
	fputs("an error was raised\n", stderr);
	abort();
}

#endif /* FLOHSYNC_STANDALONE_H */
