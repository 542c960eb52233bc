/*
 * page.h
 *	  One page of an upstream's answer, checked and hashed.  See page.c.
 */
#ifndef FLOHSYNC_PAGE_H
#define FLOHSYNC_PAGE_H

#include "flohsync.h"

/* A byte string; data is NULL for an absent value, and is not NUL-terminated. */
typedef struct Slice
{
	const char *data;
	int			len;
} Slice;

typedef struct Record
{
	Slice		external_id;
	Slice		display_name;	/* decoded, cut to 255 characters */
	Slice		email;
	Slice		attributes;		/* the object's JSON text, safe for jsonb_in; NULL data when absent or null */
	uint32		attributes_node;	/* its node in the parser's tree, 0 when absent */
	uint32		position;		/* place in the answer's list, from 0 */
	char		hash[FLOHSYNC_HASH_HEX];	/* not NUL-terminated */
} Record;

/* A record that was set aside. */
typedef struct RecordFault
{
	Slice		external_id;	/* NULL data when there is no usable one */
	const char *error_class;	/* a static string, e.g. "external_id_missing" */
	const char *message;
	Slice		payload;		/* the record's own bytes, valid UTF-8 or not, uncut */
	uint32		position;
} RecordFault;

typedef struct UpstreamPage
{
	bool		success;		/* payload usable; false: see upstream_error */
	char	   *upstream_error; /* text of a success:false answer, NUL-terminated, at most 1 kB */
	Record	   *records;		/* sorted by external_id bytes, no duplicates */
	int			nrecords;
	RecordFault *faults;
	int			nfaults;
	Slice	   *deleted;		/* payload.deleted, in order */
	int			ndeleted;
	int			received;		/* length of payload.resources */
	int			duplicates;		/* records dropped because the id came again in the page */
	int			truncated;		/* display names that were cut */
	char	   *next_cursor;	/* NUL-terminated; NULL at the end (absent, null or "") */
	int64		total_estimate; /* -1 when absent */
} UpstreamPage;

typedef struct PageParser PageParser;

/*
 * A parser lives in the memory context that is current when it is made, keeps
 * its arena between pages, and is freed with that context.  hash_ignore: dot
 * paths below attributes that are left out of the hash ("lastLogin",
 * "a.b.c"; a leading "attributes." is accepted and dropped).
 */
extern PageParser *page_parser_create(const char *const *hash_ignore, int nhash_ignore);

/*
 * page_parse reads an answer of the command protocol
 * ({"success":true,"payload":{"resources":[...],...}}).  Everything in *page
 * points into body or into the parser and is good until the next call.
 * Returns false, with *problem set to a static or parser-owned text, when the
 * bytes are not such an answer; never raises for bad bytes.
 */
extern bool page_parse(PageParser *parser, const char *body, size_t len,
					   UpstreamPage *page, const char **problem);

/*
 * page_parse_records reads a bare JSON array of records (upsert_resources),
 * or one record (upsert_resource): the same checks, the same hash.
 */
extern bool page_parse_records(PageParser *parser, const char *body, size_t len,
							   UpstreamPage *page, const char **problem);

/*
 * page_group_ids lists what attributes.groups of a record names: text or
 * integer ids, or objects with "id" or "externalId".  Returns their number;
 * at most max are stored.
 */
extern int	page_group_ids(PageParser *parser, const Record *record, Slice *ids, int max);

/* page_compare_ids orders ids as records are sorted: by bytes, the shorter first. */
static inline int
page_compare_ids(const char *a, int alen, const char *b, int blen)
{
	int			c = memcmp(a, b, Min(alen, blen));

	return c != 0 ? c : alen - blen;
}

/* page_find_id is the index of the record with an id among sorted records, -1: there is none. */
static inline int
page_find_id(const Record *records, int n, const char *id, int len)
{
	int			low = 0;
	int			high = n - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		int			c = page_compare_ids(records[middle].external_id.data, records[middle].external_id.len, id, len);

		if (c == 0)
			return middle;
		if (c < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

#endif							/* FLOHSYNC_PAGE_H */
