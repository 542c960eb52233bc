/*
 * known.h
 *	  Records that come as they came before, known by their text.  See known.c.
 */
#ifndef FLOHSYNC_PAGE_KNOWN_H
#define FLOHSYNC_PAGE_KNOWN_H

#include "base/bytes.h"
#include "base/flohsync.h"

#define KNOWN_DIGEST_BYTES 16
#define KNOWN_LISTS		   3 /* held at a time: of the page behind, the one at hand, the next */
#define KNOWN_MAX_RECORDS  FLOHSYNC_MAX_PAGE_RECORDS

#define KNOWN_OUT_OF_SCOPE 0 /* as num: the filter leaves the record out */
#define KNOWN_UNLISTED	   -1 /* as num: what came of the record does not follow from its text alone */

typedef struct KnownRecord
{
	unsigned char digest[KNOWN_DIGEST_BYTES]; /* the first bytes of SHA-256 of its text */
	uint64		  id_hash;					  /* of its external id */
	int64		  num;						  /* its record_no, or KNOWN_* */
	uint32		  len;						  /* of its text */
	bool		  known;					  /* of a page at hand: it came as before */
	int32		  base_at;					  /* where it is in the list of the next; */
	int64		  base; /* a list that is stored as a whole, and has it; 0: none has */
} KnownRecord;

/* A list as it is stored. */
typedef struct KnownText
{
	int64 base; /* what the whole list is called, not 0 */
	Slice whole;
	Slice changes; /* what is different from that one; no data: nothing */
} KnownText;

/* What one page of the last complete pass had, in its order. */
typedef struct KnownList
{
	int64		 page; /* whose list it is, as the caller numbers them */
	KnownRecord *records;
	uint32		*used;	/* in which turn each was met last */
	uint32		*table; /* of indexes + 1, by digest; NULL until something is looked for */
	uint32		 mask;
	int			 n;
} KnownList;

typedef bool (*KnownDoubt)(void *arg, int64 num);

typedef struct KnownHit
{
	const char		  *text;
	const KnownRecord *record;
} KnownHit;

typedef struct Known
{
	KnownList	  lists[KNOWN_LISTS]; /* in the order of their pages */
	int			  nlists;
	int			  list; /* the record that is expected next: of which list, */
	int			  at;	/* and which one */
	int			  misses;
	uint32		  turn;		 /* counts pages */
	bool		  expecting; /* the page at hand is looked at by known_expect, as it is parsed */
	bool		  off;		 /* for the page at hand, nothing is known */
	KnownDoubt	  doubt;
	void		 *doubt_arg;
	KnownHit	 *hits; /* of the page at hand, in the order of its text */
	int			  nhits;
	int			  hits_size;
	int			  next_hit;
	const char	 *digested; /* a text that was digested, and is not the expected one */
	uint32		  digested_len;
	unsigned char digest[KNOWN_DIGEST_BYTES];
	struct MemoryContextData *context;
} Known;

extern Known *known_create(void);
extern void	  known_clear(Known *known);
extern bool	  known_add_list(Known *known, int64 page, const KnownText *text);
extern void	  known_drop_list(Known *known, int i);
extern void	  known_begin(Known *known, KnownDoubt doubt, void *arg);
extern void	  known_go_to(Known *known, int list);
extern bool	  known_in_step(const Known *known);
extern uint32 known_expect(void *known, const char *text, const char *end);
extern bool	  known_find(Known *known, const char *text, uint32 len, KnownRecord *record);
extern uint64 known_id_hash(Slice id);

/* known_text.c */
extern size_t known_encode(const KnownRecord *records, int n, char *out);
extern size_t known_encode_changes(const KnownRecord *records, int n, char *out, int64 *base);
extern bool	  known_decode(const KnownText *text, struct MemoryContextData *context,
						   KnownRecord **records, int *n);

/* They need at most so many bytes. */
#define KNOWN_ENCODED(n)		 (10 + (size_t) (n) * (KNOWN_DIGEST_BYTES + 8 + 5 + 10))
#define KNOWN_ENCODED_CHANGES(n) (KNOWN_ENCODED(n) / 8 + KNOWN_ENCODED(1) + 60)

#endif /* FLOHSYNC_PAGE_KNOWN_H */
