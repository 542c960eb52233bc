/*
 * foretell.h
 *	  Cursors that can be foretold.  See foretell.c.
 */
#ifndef FLOHSYNC_SOURCE_FORETELL_H
#define FLOHSYNC_SOURCE_FORETELL_H

#define FORETELL_NUMBERS 6

/* What is known of the cursors of a list; all zero: nothing. */
typedef struct Foretell
{
	char *cursor; /* the last one; NULL: none */
	int	  nsteps; /* numbers in it; 0: no step is known */
	int64 steps[FORETELL_NUMBERS];
	bool  steady; /* the last step was like the one before */
} Foretell;

extern void	 foretell_begin(Foretell *f, const char *cursor, MemoryContext context);
extern void	 foretell_seen(Foretell *f, const char *cursor, MemoryContext context);
extern char *foretell_next(const Foretell *f, int ahead);

#endif /* FLOHSYNC_SOURCE_FORETELL_H */
