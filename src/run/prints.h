/*
 * prints.h
 *	  Fingerprints of a pass, shared by prints*.c only.
 */
#ifndef FLOHSYNC_RUN_PRINTS_H
#define FLOHSYNC_RUN_PRINTS_H

#include "net/crypto.h"
#include "page/known.h"
#include "run/state.h"

#define PRINTS_GROUP  64  /* pages of one transaction */
#define PRINTS_READ	  128 /* fingerprints read ahead at once; so many cover all lanes (ahead.c) */
#define PRINTS_BEHIND 16  /* that were passed over, and may still come */

typedef struct PagePrint
{
	int64		  id;
	int			  uses; /* who has it: those read ahead, and pages that are not written yet */
	int			  page; /* these two: of the pass that read it */
	int64		  pass;
	bool		  has_list;
	char		 *cursor; /* NULL: the first page */
	char		 *next_cursor;
	bool		  has_digest;
	unsigned char digest[CRYPTO_SHA256_BYTES];
	int64		  bytes;
	int			  records;
	int			  unchanged; /* these three: counters of the page */
	int			  filtered;
	int			  truncated;
	int64		  total_estimate;
	char		 *read_from;
	char		 *read_to;
	char		 *etag; /* of these two at most one */
	char		 *last_modified;
} PagePrint;

/* A page that was taken, and not written yet. */
typedef struct TakenPage
{
	PagePrint  *print;
	int			page;
	TimestampTz fetched_at;
	int64		bytes;
	double		fetch_ms;
	double		apply_ms;
	char	   *etag; /* not NULL: this and the next are not those of the fingerprint */
	char	   *last_modified;
} TakenPage;

typedef struct Prints
{
	pg_uuid_t config;
	int64	  open_pass;
	int64	  pass;			 /* fingerprints up to this one can be used; 0: none */
	int64	  last_complete; /* the last complete full pass; 0: there is none */
	/* read ahead in the order of pages, as far as (last_page, last_pass) */
	PagePrint *ahead[2 * PRINTS_READ];
	int		   nahead;
	int		   last_page;
	int64	   last_pass;
	bool	   no_more;
	bool	   noted;	  /* there were notes of records when it was looked last */
	uint64	   noted_at;  /* so many transactions had ended then; 0: it has not been looked */
	PagePrint *candidate; /* of the page that was asked for last */
	bool	   stands;	  /* before it, the list stands as it did then */
	/* of the page at hand */
	char		 *read_from; /* NULL: no fingerprint is made of it */
	char		 *read_to;
	bool		  hashed;
	bool		  restless; /* it was read in the last complete pass, too */
	double		  ms;		/* so long it was compared */
	unsigned char digest[CRYPTO_SHA256_BYTES];
	TakenPage	  taken[PRINTS_GROUP];
	int			  ntaken;
	TimestampTz	  taken_since;
	bool		  any;		  /* a page was taken */
	bool		  taken_last; /* so was the one before the page at hand */
	/* of prints_known.c */
	Known				*known;
	int					 known_page; /* the last page whose list was loaded */
	int64				 known_pass;
	bytea				*noted_by_others; /* what ledger_union returned; NULL: nothing */
	uint64				 others_ended;	  /* when that was looked up; 0: it was not */
	bytea				*written_before;  /* likewise, by earlier runs of the pass */
	bool				 looked_back;	  /* these were looked for */
	struct written_hash *written;		  /* by this one */
} Prints;

/* run/prints.c */
extern void prints_pass_over(Prints *prints, int i);
extern void prints_end(Prints *prints);

/* run/prints_known.c */
extern bool	 prints_has_list(const Run *run, const UpstreamPage *page);
extern int64 prints_list(const Run *run, const UpstreamPage *page, bytea **changes);

/* run/prints_notes.c */
extern void prints_read_own_notes(Run *run);
extern bool prints_read_notes(Run *run, uint64 ended);
extern bool prints_check(Run *run, const PagePrint *print);
extern bool prints_stand(const Run *run);

/* run/prints_rows.c */
extern bool prints_put_rows(const Run *run);

/* run/prints_store.c */
extern bool	 prints_ahead_suffices(const Prints *prints);
extern void	 prints_read_ahead(Run *run);
extern void	 prints_read_list(Run *run, const PagePrint *print);
extern int64 prints_store_list(const Run *run, bytea *list);
extern void	 prints_free(PagePrint *print);
extern void	 prints_store_taken(Run *run);
extern void	 prints_store(const Run *run, const SourceAnswer *answer, const UpstreamPage *page,
						  const PageEntry *entry);

#endif /* FLOHSYNC_RUN_PRINTS_H */
