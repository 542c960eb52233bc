/*
 * foretell.c
 *	  Cursors that are positions: what the next ones will be.
 *
 * Two cursors in a row that differ in nothing but decimal numbers, which have
 * grown, give a step; while the steps stay the same, so will the next one.  That
 * is a guess, and costs no more than a request in vain when it is wrong: what is
 * asked for in its turn is always the cursor that came.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "lib/stringinfo.h"

#include "source/foretell.h"

#define FORETELL_DIGITS 15 /* longer numbers are no positions */

/* foretell_begin: a list begins, at a cursor; NULL: that is not known. */
void
foretell_begin(Foretell *f, const char *cursor, MemoryContext context)
{
	char *copy = cursor ? MemoryContextStrdup(context, cursor) : NULL;

	if (f->cursor)
		pfree(f->cursor);
	memset(f, 0, sizeof(*f));
	f->cursor = copy;
}

/* The number at p, whose end is noted; -1: none that is a position. */
static int64
foretell_number(const char *p, const char **end)
{
	size_t digits = strspn(p, "0123456789");
	int64  number = 0;

	*end = p + digits;
	if (digits == 0 || digits > FORETELL_DIGITS || (digits > 1 && *p == '0'))
		return -1;
	for (size_t i = 0; i < digits; i++)
		number = number * 10 + (p[i] - '0');
	return number;
}

/* The steps from one cursor to the next; returns how many numbers there are, 0: no such steps. */
static int
foretell_steps(const char *from, const char *to, int64 *steps)
{
	int	 n = 0;
	bool grows = false;

	while (*from != '\0' || *to != '\0')
	{
		bool  digit = *from >= '0' && *from <= '9';
		int64 a, b;

		if (!digit || *to < '0' || *to > '9')
		{
			if (*from++ != *to++)
				return 0;
			continue;
		}
		a = foretell_number(from, &from);
		b = foretell_number(to, &to);
		if (n == FORETELL_NUMBERS || a < 0 || b < a)
			return 0;
		steps[n] = b - a;
		grows |= steps[n++] > 0;
	}
	return grows ? n : 0;
}

/* foretell_seen: the list goes on at a cursor; NULL: it begins, at one that is not known. */
void
foretell_seen(Foretell *f, const char *cursor, MemoryContext context)
{
	int64 steps[FORETELL_NUMBERS];
	int	  n;

	if (cursor == NULL || f->cursor == NULL)
	{
		foretell_begin(f, cursor, context);
		return;
	}
	/* It is asked for again. */
	if (strcmp(cursor, f->cursor) == 0)
		return;
	n = foretell_steps(f->cursor, cursor, steps);
	f->steady = n > 0 &&
		(f->nsteps == 0 || (n == f->nsteps && memcmp(steps, f->steps, sizeof(int64) * n) == 0));
	/* After a step of another kind, two in a row must be alike. */
	f->nsteps = Max(n, f->nsteps > 0 ? 1 : 0);
	memset(f->steps, 0, sizeof(f->steps));
	if (n > 0)
		memcpy(f->steps, steps, sizeof(int64) * n);
	pfree(f->cursor);
	f->cursor = MemoryContextStrdup(context, cursor);
}

/* foretell_next is the cursor that many pages behind the last one, palloc'd; NULL: not known. */
char *
foretell_next(const Foretell *f, int ahead)
{
	StringInfoData out;
	int			   n = 0;

	if (!f->steady)
		return NULL;
	initStringInfo(&out);
	for (const char *p = f->cursor; *p != '\0';)
	{
		if (*p < '0' || *p > '9')
			appendStringInfoChar(&out, *p++);
		else
			appendStringInfo(&out, INT64_FORMAT, foretell_number(p, &p) + ahead * f->steps[n++]);
	}
	return out.data;
}
