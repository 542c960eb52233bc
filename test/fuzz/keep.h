/*
 * keep.h
 *	  For fuzz targets: checks, and memory that goes with the input.
 *
 * What is allocated goes with its memory context, which there is none of here:
 * between keep_begin and keep_end everything that is allocated is noted, and
 * freed at the end.  The linker puts these functions in front of palloc and the
 * others (run), for a target that includes this file.
 */
#ifndef FLOHSYNC_KEEP_H
#define FLOHSYNC_KEEP_H

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "check failed: %s\n", #condition); \
			abort(); \
		} \
	} while (0)

extern void *__real_palloc(Size size);
extern void *__real_palloc0(Size size);
extern void *__real_repalloc(void *pointer, Size size);
extern void	 __real_pfree(void *pointer);
extern void *__wrap_palloc(Size size);
extern void *__wrap_palloc_extended(Size size, int flags);
extern char *__wrap_pstrdup(const char *text);
extern void *__wrap_palloc0(Size size);
extern void *__wrap_repalloc(void *pointer, Size size);
extern void	 __wrap_pfree(void *pointer);

static void *kept[65536];
static int	 nkept = -1; /* -1: nothing is noted */

static void *
keep(void *pointer)
{
	if (nkept >= 0)
	{
		CHECK(nkept < (int) lengthof(kept));
		kept[nkept++] = pointer;
	}
	return pointer;
}

static void
forget(void *pointer)
{
	for (int i = nkept - 1; i >= 0; i--)
		if (kept[i] == pointer)
		{
			kept[i] = kept[--nkept];
			return;
		}
}

void *
__wrap_palloc(Size size)
{
	return keep(__real_palloc(size));
}

void *
__wrap_palloc0(Size size)
{
	return keep(__real_palloc0(size));
}

void *
__wrap_palloc_extended(Size size, int flags)
{
	return keep(__real_palloc(size));
}

char *
__wrap_pstrdup(const char *text)
{
	size_t size = strlen(text) + 1;

	return memcpy(keep(__real_palloc(size)), text, size);
}

void *
__wrap_repalloc(void *pointer, Size size)
{
	forget(pointer);
	return keep(__real_repalloc(pointer, size));
}

void
__wrap_pfree(void *pointer)
{
	forget(pointer);
	__real_pfree(pointer);
}

static inline void
keep_begin(void)
{
	nkept = 0;
}

static inline void
keep_end(void)
{
	while (nkept > 0)
		__real_pfree(kept[--nkept]);
	nkept = -1;
}

#endif /* FLOHSYNC_KEEP_H */
