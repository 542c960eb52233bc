/*
 * journal.h
 *	  What the server has been asked, for tests to look at and wait for.
 *	  See journal.c.
 */
#ifndef UPSTREAM_JOURNAL_H
#define UPSTREAM_JOURNAL_H

#include "call.h"

/* What a test waits for; 0 and "" are met at once. */
typedef struct journal_goal
{
	long requests; /* commands received (of the type, if one is given) */
	long hanging;  /* answers that are being held */
	long fired;	   /* faults that have struck */
	long open;	   /* connections; -1: until there are none */
	char type[64];
} journal_goal;

extern void *journal_connection_opened(void);
extern void	 journal_connection_closed(void *mark);
extern void	 journal_request(call *c, const char *command, const char *type, long page);
extern void	 journal_completed(call *c);
extern void	 journal_outcome(unsigned status, size_t records, size_t bytes, const char *faults);
extern void	 journal_fired(void);
extern void	 journal_hanging(int by);
extern void	 journal_clear(void);
extern bool	 journal_wait(const journal_goal *goal, long timeout_ms);
extern void	 journal_counts(buf *b);
extern void	 journal_put(buf *b, long last);

#endif
