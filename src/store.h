/*
 * store.h
 *	  What the engine asks of the tables.  See store.c.
 */
#ifndef FLOHSYNC_STORE_H
#define FLOHSYNC_STORE_H

#include "utils/uuid.h"

#include "filter.h"
#include "source.h"

#define STORE_PAYLOAD_BYTES		4096	/* are kept of a record that was set aside */

/* A run as its worker knows it; everything is in the run's memory context. */
typedef struct RunSetup
{
	int64		id;
	char	   *connector_id;	/* text form */
	char	   *connector_name;
	char	   *resource_type;
	char	   *strategy;
	int64		pass_id;
	TimestampTz pass_started_at;
	bool		resumed;		/* the pass goes on from an earlier page */
	int			last_page;		/* pages applied so far */
	char	   *cursor;			/* of the page to come, NULL: the first */
	int64		passed;			/* records in scope so far */
	int64		received;		/* records received so far */
	int64		unidentified;	/* of them, set aside without a usable id */
	int64		total_estimate; /* what the upstream said last, -1: nothing */
	char	   *filter_json;
	Filter		filter;
	char	  **hash_ignore;
	int			nhash_ignore;
	char	   *incomplete;		/* why an earlier page of the pass keeps it from being complete, or NULL */
	bool		unread;			/* something that an earlier page stands for has to be asked for again */
	bool		rehash;			/* see ApplyScope */
	bool		note_changes;	/* post-sync wants to know what the pages change */
	SourceSpec	spec;
} RunSetup;

typedef struct RunCandidate
{
	int64		id;
	char	   *connector_id;
	char	   *resource_type;
	bool		queued;			/* not: a worker took it once */
} RunCandidate;

typedef enum StartOutcome
{
	START_RUN, START_GONE, START_REFUSED
} StartOutcome;

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

typedef struct PageEntry
{
	int			page;
	const char *cursor;
	const char *next_cursor;
	TimestampTz fetched_at;
	int			records;
	int64		bytes;
	double		fetch_ms;
	double		apply_ms;
	int64		total_estimate; /* -1: unknown */
	const Slice *deleted;
	int			ndeleted;
	const char *incomplete;		/* these two as of UpstreamPage */
	bool		unread;
	const char *link;
	PageCounts	counts;
	int64	   *seen;			/* sorted in place */
	int			nseen;
	const pg_uuid_t *changed;	/* added, updated, restored; NULL: nobody wants to know */
	int			nchanged;
} PageEntry;

typedef enum RunGuard
{
	RUN_GO_ON, RUN_CANCELLED, RUN_CONFIG_GONE, RUN_FILTER_CHANGED
} RunGuard;

/* Where the time of a run went, in microseconds. */
typedef struct RunTimings
{
	int64		fetch_us;		/* asking and waiting for the upstream */
	int64		read_us;		/* parsing, canonical form, hash */
	int64		lookup_us;
	int64		write_us;
	int64		ledger_us;
	int64		commit_us;		/* begin, guard and commit of the pages */
	int64		settle_us;		/* stale step, post-sync and purge */
	int64		post_sync_us;	/* of that, post-sync */
} RunTimings;

/* Of settling and of post-sync: whether a safeguard holds the run, and what it says. */
typedef struct SettleResult
{
	bool		held;
	char	   *message;
} SettleResult;

/* These need db_begin, but for the last ones, which manage on the caller's transaction. */
extern RunCandidate *store_open_runs(int *n);
extern bool store_source_spec(const char *connector_id, const char *resource_type, SourceSpec *spec, MemoryContext context);
extern StartOutcome store_start_run(int64 run, bool left, RunSetup *setup, MemoryContext context);
extern TimestampTz store_restart_pass(int64 run, bool forget_link);
extern RunGuard store_guard_run(const RunSetup *setup);
extern void store_add_page(int64 run, const PageEntry *entry);
extern void store_add_faults(int64 run, int page, const RecordFault *faults, int n);
extern void store_add_upsert_faults(Datum connector, Datum type, const RecordFault *faults, int n);
extern char *store_pass_overlap(int64 run, MemoryContext context);
extern bool store_had_pages(int64 run);
extern void store_settle_pass(int64 run, bool complete, SettleResult *result, MemoryContext context);
extern void store_post_sync(int64 run, bool held, SettleResult *result, MemoryContext context);
extern void store_post_sync_failed(int64 run, int sqlerrcode, const char *message);
extern int64 store_purge_run(int64 run, int64 limit);
extern void store_finish_run(int64 run, const char *status, bool complete, const char *reason,
							 const char *error, const char *error_class, TimestampTz watermark,
							 int64 retry_after_ms);
extern void store_set_timings(int64 run, const RunTimings *timings);
extern char *store_run_summary(int64 run, MemoryContext context);
extern int	store_load_seen_cursors(int64 pass, uint64 **hashes, MemoryContext context);
extern void store_enqueue_due(void);
extern TimestampTz store_next_due(void);
extern void store_purge_history(int retention_s);
extern void store_note_changes(Datum connector, Datum resource_type, const pg_uuid_t *ids, int n, const char *change);
extern void store_synced_groups(Datum connector, Datum ids);
extern void store_hold_connector(Datum connector);

/* The five columns of an alias's filter_rules that store_get_filter reads. */
#define STORE_FILTER_COLUMNS(alias) \
	alias ".filter_rules ->> 'groupNamePattern'," \
	" case when " alias ".filter_rules ? 'groupIds' then array(select * from pg_catalog.jsonb_array_elements_text(" alias ".filter_rules -> 'groupIds')) end," \
	" case when " alias ".filter_rules ? 'emailDomains' then array(select * from pg_catalog.jsonb_array_elements_text(" alias ".filter_rules -> 'emailDomains')) end," \
	" (" alias ".filter_rules ->> 'memberOfSyncedGroups')::boolean, (" alias ".filter_rules ->> 'maxRecords')::numeric::bigint"
/* May records have the hash of another rule?  See connector_sync_config.hash_ignore_since. */
#define STORE_REHASH(alias) \
	"(" alias ".hash_ignore_since >= coalesce(" alias ".last_full_pass_at, '-infinity'))"
#define STORE_HASH_IGNORE(alias) \
	"case when " alias ".hash_ignore is not null then array(select * from pg_catalog.jsonb_array_elements_text(" alias ".hash_ignore)) end"
extern void store_get_filter(uint64 row, int column, Filter *filter, MemoryContext context);

/* So much is kept of a record that was set aside, and of a message. */
#define STORE_PAYLOAD_BYTES		4096

extern Datum store_uuid_array(const pg_uuid_t *ids, int n);
extern Datum store_text_array(const Slice *slices, int n);
extern const char *store_sanitize(const char *data, int len, int max, int *outlen);

#endif							/* FLOHSYNC_STORE_H */
