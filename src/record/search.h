/*
 * search.h
 *	  Searches in the records of a connector, and in their matches.
 */
#ifndef FLOHSYNC_SEARCH_H
#define FLOHSYNC_SEARCH_H

#include "utils/uuid.h"

/* Up to this number of hits a total is exact. */
#define SEARCH_EXACT 10000

#define SEARCH_ON_STACK 1024

/* Texts are folded so many bytes at a time. */
#define SEARCH_BLOCK 16

/* Between the texts of one record. */
#define SEARCH_SEPARATOR '\n'

/* Marks of a text of so many bytes, at most. */
#define SEARCH_MARKS(len) (2 * (len) + 1)

typedef struct SearchText
{
	const char *data;
	size_t		len;
	char	   *allocated; /* to be freed, or NULL */
	char		buffer[SEARCH_ON_STACK + SEARCH_BLOCK];
} SearchText;

/* search_text.c */
extern void search_fold(const char *text, size_t len, SearchText *folded);
extern void search_free(SearchText *folded);
extern bool search_in_any(const text *const *values, int n, const text *needle);

/* By what rows are found that have it. */
typedef enum NeedleKind
{
	NEEDLE_NONE,
	NEEDLE_TRIGRAMS, /* if it has any */
	NEEDLE_MARKS,	 /* trigrams, if it has any, or all of its marks */
	/* Trigrams that it is part of, or its mark. */
	NEEDLE_LETTER,
	NEEDLE_LETTERS,
	NEEDLE_LETTER_SIGN,
	NEEDLE_SIGN_LETTER
} NeedleKind;

typedef struct SearchNeedle
{
	NeedleKind kind;
	int		   length;	  /* in characters */
	char	   letter[2]; /* of ASCII, if it has no more than two and none is marked */
	int32	  *marks;
	int		   nmarks;
} SearchNeedle;

/* search_marks.c */
extern int	search_marks(const char *text, size_t len, int32 *marks);
extern void search_needle(const text *folded, SearchNeedle *needle);

typedef enum SearchStale
{
	SEARCH_ANY,
	SEARCH_STALE,
	SEARCH_LIVE
} SearchStale;

/* Which page of which list. */
typedef struct SearchAsk
{
	bool		matches;  /* of records, else records themselves */
	Oid			trigrams; /* the indexes of enable_search(), InvalidOid if they are missing */
	Oid			marks;
	pg_uuid_t  *connector;
	text	  **types; /* in the order of their bytes */
	int			ntypes;
	text	   *status; /* of matches; NULL: any */
	SearchStale stale;
	text	   *needle;	  /* folded */
	text	   *after_id; /* NULL: from the beginning */
	text	   *after_type;
	int64		before; /* hits before the page; -1: not known, as some are before after_id */
	int			limit;
	int64		scope; /* how many rows the list has without a search */
	int64		base;  /* of matches, those of stale and of other records */
	int64		total; /* as it was told before; -1: not known */
	bool		total_is_estimate;
} SearchAsk;

typedef struct SearchKey
{
	text *external_id;
	int	  type; /* its place in types */
} SearchKey;

typedef struct SearchAnswer
{
	SearchKey *keys;
	int		   n;
	int64	   total;
	bool	   estimated;
} SearchAnswer;

/* search_page.c */
extern void search_page(const SearchAsk *ask, SearchAnswer *answer);

#endif /* FLOHSYNC_SEARCH_H */
