/*
 * state.h
 *	  A run on its way, shared by run.c and pass*.c only.
 */
#ifndef FLOHSYNC_RUN_STATE_H
#define FLOHSYNC_RUN_STATE_H

#include "portability/instr_time.h"

#include "base/memory_page.h"
#include "page/page.h"
#include "record/apply.h"
#include "run/pages.h"
#include "run/store.h"
#include "source/source.h"

typedef struct Run
{
	int64		  id;
	bool		  left; /* the worker that was at it before ended by an error: that was no crash */
	MemoryContext context;		/* of the whole run */
	MemoryContext page_context; /* reset for each page */
	RunSetup	  setup;
	PageMemory	  memory; /* of the page being worked on: all that this process takes */
	Source		 *source;
	PageParser	 *parser;
	PageParser	 *merger; /* of merged records (record/merge.c); NULL until there are any */
	ApplyScope	  scope;
	RunTimings	  timings;
	int			  page;			/* being worked on, from 1 */
	bool		  first_answer; /* no page of this run has come yet */
	bool		  restarted;	/* the pass was restarted during the run */
	bool		  some_read;	/* not all pages of the pass came as they came before */
	char		 *early;		/* cursor of a page that was asked for before its turn, or NULL */
	int			  empty_pages;	/* in a row */
	int			  known_pages;	/* in a row, with nothing but what had come before */
	int64		  repeated;		/* records that had come before in the list, as far as is known */
	int			  nseen_ids;
	struct bloom_filter *
		/* of the list at hand (run/still.c); NULL until a page says that there is another */
						 seen_ids;
	int					 nfull;	  /* records requested individually (run/refetch.c) */
	struct cursors_hash *cursors; /* hashes of those that the pass has been through (pass.c) */
	struct Prints		*prints;  /* fingerprints of pages (run/prints.c); NULL: there are none */
	int64 *written; /* record_no of what the page at hand has written; NULL: not needed */
	int	   nwritten;
	int64  skew_s; /* how far the upstream's clock is behind ours */
	/* how it ended */
	const char *status; /* NULL while it goes on */
	ErrorClass	error_class;
	char	   *error;
	int64		retry_after_ms; /* what the upstream asked to wait, 0: nothing */
	bool		complete;
	char	   *reason; /* why not complete */
	bool		unread; /* something has to be requested again: the watermark stays */
} Run;

extern void run_fail(Run *run, ErrorClass error_class, const char *format, ...)
	pg_attribute_printf(3, 4);
extern void	 run_incomplete(Run *run, const char *format, ...) pg_attribute_printf(2, 3);
extern void	 run_unread(Run *run, const char *reason);
extern void	 run_begin(Run *run, const char *activity);
extern int64 run_microseconds(instr_time *since);

extern void	 pass_know_cursors(Run *run, const uint64 *hashes, int n);
extern int	 pass_max_pages(const Run *run);
extern void	 pass_forget_early(Run *run);
extern bool	 pass_knows_cursor(const Run *run, const char *cursor);
extern void	 pass_walk(Run *run);
extern int64 pass_retry_delay(const Run *run, const SourceAnswer *answer, int attempt);

extern void pass_forget_ids(Run *run);
extern bool pass_stands_still(Run *run, const UpstreamPage *page);

extern bool pass_has_filter(const Filter *filter);
extern void pass_refetch(Run *run, UpstreamPage *page);
extern void pass_out_of_scope(Run *run, const UpstreamPage *part, const Record *kept, int nkept,
							  PageEntry *entry);

/* run/pass_apply.c */
extern void pass_capped(Run *run);
extern bool pass_everything(const Run *run);
extern bool pass_begin_page(Run *run);
extern bool pass_apply_once(Run *run, const SourceAnswer *answer, const UpstreamPage *page,
							PageEntry *entry);

/* run/prints.c */
extern void		   prints_begin(Run *run);
extern void		   prints_look(Run *run, const char *cursor);
extern const char *prints_foresee(void *arg, const char *cursor);
extern bool		   prints_await(Run *run);
extern const char *prints_likely_next(Run *run, const SourceAnswer *answer);
extern bool		   prints_equal(Run *run, const SourceAnswer *answer);
extern void		   prints_was_read(Run *run);
extern void		   prints_take(Run *run, const SourceAnswer *answer);
extern bool		   prints_were_taken(const Run *run);
extern bool		   prints_flush(Run *run);
extern bool		   prints_flush_old(Run *run);
extern void		   prints_drop(Run *run);
extern void		   prints_note(Run *run, const SourceAnswer *answer, const UpstreamPage *page,
							   const PageEntry *entry);
extern const char *prints_next_cursor(const Run *run);

/* run/prints_known.c */
extern void prints_know(Run *run);
extern void prints_wrote(Run *run, const int64 *nums, int n);

/* run/run_error.c */
extern void run_handle_error(Run *run);

#endif /* FLOHSYNC_RUN_STATE_H */
