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

typedef struct PageCounts
{
	int			added;
	int			updated;
	int			unchanged;
	int			restored;
	int			filtered;
	int			errored;
	int			ignored;
	int			duplicates;
	int			truncated;
	int			unidentified;
} PageCounts;

/* Records that were added, updated and restored, in this order. */
typedef struct ApplyChanges
{
	pg_uuid_t  *ids[3];
	int			n[3];
} ApplyChanges;

typedef struct ApplyScope
{
	Datum		connector;		/* uuid */
	Datum		resource_type;	/* text */
	TimestampTz observed_at;	/* the records are no newer than that */
	bool		individual;			/* records observed one by one (upsert), not by a pass: see apply.c */
	bool		expect_absent;	/* individual: the caller saw no stored row; one that is there all the same is left alone, and the outcome undecided */
	TimestampTz event_at;		/* when the upstream says it happened, 0: it does not say */
	Jsonb	   *event_keys;		/* which event has named which key last (webhook/keys.c); NULL: the records are whole */
	bool		rehash;			/* stored hashes may be of another rule: what only its rule changed is unchanged */
	Datum		hash_ignore;	/* rehash: text[], the rule of the records' hashes */
	TimestampTz confirmed_at;	/* individual: start of the last complete full pass, 0 when none */
	PageParser *parser;			/* of the records; NULL: their attributes are stored as they are */
	struct PageMemory *memory;	/* that what is handed to SQL is counted in; NULL: in none */
	Size		heaviest;		/* as of UpstreamPage */
	ApplyChanges *changes;		/* what the last call changed is put here; NULL: nobody wants to know */
	/* Where the time went, in microseconds. */
	int64		lookup_us;
	int64		write_us;
} ApplyScope;

typedef enum ApplyOutcome
{
	APPLY_UNDECIDED, APPLY_ADDED, APPLY_UPDATED, APPLY_UNCHANGED, APPLY_RESTORED, APPLY_IGNORED
} ApplyOutcome;

extern void apply_records(ApplyScope *scope, const Record *records, int n,
						  PageCounts *counts, int64 *seen, int *nseen, ApplyOutcome *outcomes);
extern void apply_known_faults(ApplyScope *scope, const RecordFault *faults, int n, int64 *seen, int *nseen);
extern int	apply_filter(const Filter *filter, ApplyScope *scope, PageParser *parser,
						 Record *records, int n);

#endif							/* FLOHSYNC_APPLY_H */
