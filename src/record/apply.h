/*
 * apply.h
 *	  Writing a page's records.  See apply.c.
 */
#ifndef FLOHSYNC_APPLY_H
#define FLOHSYNC_APPLY_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "page/filter.h"
#include "page/page.h"

/*
 * What is counted of each page: the only list.  The struct, the ledger's insert
 * (run/pages.c), a run's statistics and the metrics are made from it; SQL reads
 * it as _flohsync.page_counters().  Each has a column of its name in
 * flohsync.sync_run_page.
 * X(name, counts towards maxRecords, in a run's stats, in the metrics, comment of the column)
 */
#define PAGE_COUNTERS(X) \
	X(added, true, true, true, "New records") \
	X(updated, true, true, true, "Changed records") \
	X(unchanged, true, true, true, "Records as stored") \
	X(restored, true, true, true, "Stale records that are back") \
	X(filtered, false, true, true, "Records out of scope") \
	X(errored, false, true, true, "Records set aside (see sync_error)") \
	X(ignored, true, true, true, "Records older than what is stored") \
	X(duplicates, false, true, true, "Records whose id occurred again on the page") \
	X(truncated, false, true, false, "Display names cut to 255 characters") \
	X(unidentified, false, false, false, "Records set aside whose id could not be read")

#define PAGE_COUNTER_MEMBER(name, ...) int name;

typedef struct PageCounts
{
	PAGE_COUNTERS(PAGE_COUNTER_MEMBER)
} PageCounts;

#undef PAGE_COUNTER_MEMBER

/* Records that were added, updated and restored, in this order. */
typedef struct ApplyChanges
{
	pg_uuid_t *ids[3];
	int		   n[3];
} ApplyChanges;

typedef struct ApplyScope
{
	Datum		connector;	   /* uuid */
	Datum		resource_type; /* text */
	TimestampTz observed_at;   /* the records are no newer than that */
	bool		individual; /* records observed one by one (upsert), not by a pass: see apply.c */
	bool
		/*
				 * individual: the caller saw no stored row; one that is there all the same
				 * is left alone, and the outcome undecided
				 */
		expect_absent;
	/* individual: the row of the one record, which the caller has locked; NULL: look it up */
	struct StoredRecord *stored;
	TimestampTz			 event_at; /* when the upstream says it happened, 0: it does not say */
	/* which event has named which key last (webhook/keys.c); NULL: the records are whole */
	Jsonb *event_keys;
	bool rehash; /* stored hashes may be of another rule: what only its rule changed is unchanged */
	Datum		hash_ignore;	 /* rehash: text[], the rule of the records' hashes */
	TimestampTz confirmed_at;	 /* individual: start of the last complete full pass, 0 when none */
	PageParser *parser;			 /* of the records; NULL: their attributes are stored as they are */
	struct PageMemory *memory;	 /* that what is handed to SQL is counted in; NULL: in none */
	Size			   heaviest; /* as of UpstreamPage */
	int64		 *nums; /* of each record, the last call puts its record_no here; NULL: likewise */
	ApplyChanges *changes;		 /* what the last call changed is put here; NULL: not needed */
	bool		  queue_changes; /* as of RecordChanges */
	/* a full pass whose pages have no fingerprints need not note what it writes */
	bool  not_dirty;
	int64 pass; /* as of RecordChanges */
	/* Where the time went, in microseconds. */
	int64 lookup_us;
	int64 write_us;
} ApplyScope;

typedef enum ApplyOutcome
{
	APPLY_UNDECIDED,
	APPLY_ADDED,
	APPLY_UPDATED,
	APPLY_UNCHANGED,
	APPLY_RESTORED,
	APPLY_IGNORED
} ApplyOutcome;

extern void apply_records(ApplyScope *scope, const Record *records, int n, PageCounts *counts,
						  int64 *seen, int *nseen, ApplyOutcome *outcomes);
extern void apply_known_faults(ApplyScope *scope, const RecordFault *faults, int n, int64 *seen,
							   int *nseen);
extern int	apply_filter(const Filter *filter, ApplyScope *scope, PageParser *parser,
						 Record *records, int n);

#endif /* FLOHSYNC_APPLY_H */
