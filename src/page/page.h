/*
 * page.h
 *	  One page of an upstream's answer, checked and hashed.  See page.c.
 */
#ifndef FLOHSYNC_PAGE_H
#define FLOHSYNC_PAGE_H

#include "base/bytes.h"
#include "base/error_class.h"
#include "base/flohsync.h"
#include "json/canonical.h"
#include "json/json.h"

struct PageMemory;
struct Known;
struct KnownRecord;

typedef struct Record
{
	Slice external_id;
	Slice display_name; /* decoded, cut to 255 characters */
	Slice email;
	Slice attributes; /* the object's JSON text, safe for jsonb_in; NULL data when absent or null */
	uint32 attributes_node;			/* its node in the parser's tree, 0 when absent */
	uint32 position;				/* place in the answer's list, from 0 */
	uint8  partial;					/* RECORD_KEEPS_*: what a partial record says nothing of */
	char   hash[FLOHSYNC_HASH_HEX]; /* not NUL-terminated */
} Record;

#define RECORD_KEEPS_NAME  0x01
#define RECORD_KEEPS_EMAIL 0x02
#define RECORD_UNDONE	   0x80 /* while a page is read: it was deleted after that */

/* A record that was set aside. */
typedef struct RecordFault
{
	Slice		external_id; /* NULL data when there is no usable one */
	ErrorClass	error_class;
	const char *message;
	Slice		payload; /* the record's own bytes, valid UTF-8 or not, uncut */
	uint32		position;
} RecordFault;

typedef struct UpstreamPage
{
	bool		 success;	/* payload usable; false: see upstream_error */
	bool		 too_large; /* the problem is a limit that was passed: asking again does not help */
	char		*upstream_error; /* text of a success:false answer, NUL-terminated, at most 1 kB */
	bool		 unexplained;	 /* that text is generated: the answer gives no reason */
	Record		*records;		 /* sorted by external_id bytes, no duplicates */
	int			 nrecords;
	RecordFault *faults;
	int			 nfaults;
	Slice		*deleted; /* payload.deleted, in order */
	int			 ndeleted;
	int			 received; /* length of payload.resources */
	struct KnownRecord
		*came;		 /* of each that was received, in order (page/came.c); NULL: not wanted */
	int	 nknown;	 /* so many came as before, and are neither records nor faults */
	int	 nknown_out; /* of these, so many are out of scope */
	int	 duplicates; /* records dropped because the id came again in the page */
	int	 truncated;	 /* display names that were cut */
	size_t
		  heaviest; /* so much PostgreSQL takes to make jsonb of the heaviest attributes, at most */
	char *next_cursor;	  /* NUL-terminated; NULL at the end (absent, null or "") */
	int64 total_estimate; /* -1 when absent */
	/* of kind rest */
	bool	partial;		  /* records hold only what has changed, and an id may come twice */
	bool	new_records_full; /* partial, but records that are not known yet are whole */
	Record *full; /* of a partial page: records that were requested individually (run/refetch.c) */
	int		nfull;
	int		unknown;	/* of a merged page: records that were set aside because they are not */
	int		gone;		/* records of which the upstream says that they have been deleted */
	bool	list_start; /* one of many lists begins here */
	bool
		/*
				 * the list ends here according to the upstream: the next page is only
				 * requested to be sure
				 */
				may_end;
	const char *cut;		/* why there may be another page though nothing tells of it, or NULL */
	const char *loop;		/* why the upstream is going in circles, or NULL */
	const char *incomplete; /* why the pass is not complete from here on, or NULL */
	bool		unread;		/* because something was not read and must be requested again */
	const char *keep_link;	/* where the next incremental pass begins, or NULL */
} UpstreamPage;

typedef struct PageParser PageParser;

/*
 * A parser lives below the memory context that is current when it is made, keeps
 * its arena between pages, and is freed with that context.  hash_ignore: dot
 * paths below attributes that are left out of the hash ("lastLogin",
 * "a.b.c"; a leading "attributes." is accepted and dropped).  What it takes is
 * counted in memory; NULL: by itself.
 */
extern PageParser *page_parser_create(const char *const *hash_ignore, int nhash_ignore,
									  struct PageMemory *memory);

/*
 * page_ignored makes of such paths what canonical_append_node() leaves out; in the current
 * memory context.
 */
extern CanonicalPath *page_ignored(const char *const *paths, int n, int *nignored);

/*
 * page_parse reads an answer of the command protocol
 * ({"success":true,"payload":{"resources":[...],...}}).  Everything in *page
 * points into body or into the parser and is good until the next call.
 * Returns false, with *problem set to a static or parser-owned text, when the
 * bytes are not such an answer; never raises for bad bytes.
 */
extern bool page_parse(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
					   const char **problem);

/*
 * page_parse_one reads an answer about one record, which is payload.resource,
 * null when there is none, or stands alone in payload.resources.
 */
extern bool page_parse_one(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
						   const char **problem);

/* page_parse_list reads a bare JSON array of the records of a page; page_make_empty: of none. */
extern bool page_parse_list(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
							const char **problem);
extern void page_make_empty(PageParser *parser, UpstreamPage *page);

/*
 * page_parse_records reads a bare JSON array of records (upsert_resources),
 * or one record (upsert_resource): the same checks, the same hash.
 */
extern bool page_parse_records(PageParser *parser, const char *body, size_t len, UpstreamPage *page,
							   const char **problem);

/*
 * page_fault sets one more record of a page aside, which came in another way; payload is
 * what there is of it.
 */
extern void page_fault(PageParser *parser, UpstreamPage *page, Slice external_id,
					   ErrorClass error_class, Slice payload);

/*
 * page_know: from now on, records that came before need not be read (page/known.h).  NULL:
 * all are read.
 */
extern void page_know(PageParser *parser, struct Known *known);

/* page_settle gives back what only the reading needed: what a page says stays. */
extern void page_settle(PageParser *parser);

/* page_memory is where a parser is counted. */
extern struct PageMemory *page_memory(const PageParser *parser);

/*
 * page_group_ids goes through what attributes.groups of a record names: text or
 * integer ids, or objects with "id" or "externalId".  The visitor ends it by true;
 * then so does page_group_ids.
 */
typedef bool (*PageGroupVisitor)(void *arg, Slice id);

extern bool page_group_ids(PageParser *parser, const Record *record, PageGroupVisitor visitor,
						   void *arg);

/*
 * A page whose records are not those of the command protocol is read by the module
 * that knows where they are: page_mapped_begin parses (NULL: not JSON; levels are
 * those around a record), page_mapped_room makes room for at most so many
 * records, page_mapped_add checks and hashes one, page_mapped_end sorts them.  A record
 * that page_mapped_knows is not added; if page_mapped_again, all have to be added anew.
 */
typedef struct PageValue
{
	JsonParser *json;	/* the tree of the page, or one that lives until the next call */
	uint32		node;	/* 0: nothing */
	bool		found;	/* there was something, and be it null */
	bool		failed; /* it is not known: the path could not be evaluated */
} PageValue;

typedef struct PageMapped
{
	const JsonParser *json;
	uint32			  record; /* as it came */
	PageValue		  external_id;
	PageValue		  display_name;
	PageValue		  email;
	PageValue		  attributes;
	Slice			  id_prefix; /* put before the id; NULL data: nothing */
	bool			  gone;		 /* the upstream says that it has been deleted */
} PageMapped;

/* page_exclude sets, once, what is left out of attributes before hashing and storing. */
extern void		   page_exclude(PageParser *parser, const CanonicalPath *paths, int n);
extern JsonParser *page_mapped_begin(PageParser *parser, const char *body, size_t len, int levels,
									 UpstreamPage *page, const char **problem);
extern bool		   page_mapped_knows(PageParser *parser, UpstreamPage *page, const JsonParser *json,
									 uint32 record);
extern bool		   page_mapped_again(PageParser *parser, UpstreamPage *page);
extern bool		   page_mapped_room(PageParser *parser, UpstreamPage *page, uint32 records,
									const char **problem);
extern void		   page_mapped_add(PageParser *parser, UpstreamPage *page, const PageMapped *found);
extern void		   page_mapped_end(PageParser *parser, UpstreamPage *page);

/* page_may_store: is a value no larger than a record may be?  Taking others apart is of no use. */
extern bool page_may_store(const JsonParser *json, uint32 node);

/* page_is_clean: may a value be given to others as text? */
extern bool page_is_clean(const PageParser *parser, const JsonParser *json, uint32 node);

/*
 * page_value_text is the text of a scalar that is clean, else NULL data; good until the next
 * page.
 */
extern Slice page_value_text(PageParser *parser, const JsonParser *json, uint32 node);

/* An object without what page_exclude named; and what is stored as a record's attributes. */
extern Slice page_without_excluded(PageParser *parser, const JsonParser *json, uint32 node);
extern Slice page_stored_attributes(PageParser *parser, const Record *record);

/* The tree in which a node is the same; NULL: there is none, or it holds more. */
extern const JsonParser *page_stored_tree(const PageParser *parser, const Record *record,
										  uint32 *node);

/* page_compare_ids orders ids as records are sorted: by bytes, the shorter first. */
static inline int
page_compare_ids(const char *a, int alen, const char *b, int blen)
{
	int c = memcmp(a, b, Min(alen, blen));

	return c != 0 ? c : alen - blen;
}

/* page_find_id is the index of the record with an id among sorted records, -1: there is none. */
static inline int
page_find_id(const Record *records, int n, const char *id, int len)
{
	int low = 0;
	int high = n - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;
		int c = page_compare_ids(records[middle].external_id.data, records[middle].external_id.len,
								 id, len);

		if (c == 0)
			return middle;
		if (c < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

#endif /* FLOHSYNC_PAGE_H */
