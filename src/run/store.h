/*
 * store.h
 *	  What the engine asks of the tables.  See store.c.
 */
#ifndef FLOHSYNC_STORE_H
#define FLOHSYNC_STORE_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "page/filter.h"
#include "source/source.h"

/* A run as its worker knows it; everything is in the run's memory context. */
typedef struct RunSetup
{
	int64		id;
	char	   *connector_id; /* text form */
	char	   *connector_name;
	char	   *resource_type;
	char	   *strategy;
	int64		pass_id;
	TimestampTz pass_started_at;
	bool		resumed;		/* the pass resumes after an earlier page */
	int			last_page;		/* pages applied so far */
	char	   *cursor;			/* of the page to come, NULL: the first */
	int64		passed;			/* records in scope so far */
	int64		received;		/* records received so far */
	int64		unidentified;	/* of them, set aside without a usable id */
	int64		total_estimate; /* what the upstream said last, -1: nothing */
	char	   *filter_json;	/* NULL: there are none; and the next as well */
	Jsonb	   *filter_rules;	/* the same */
	Filter		filter;
	char	  **hash_ignore;
	int			nhash_ignore;
	char *incomplete;	/* why an earlier page of the pass keeps it from being complete, or NULL */
	bool  unread;		/* something on an earlier page has to be requested again */
	bool  rehash;		/* see ApplyScope */
	bool  note_changes; /* post-sync wants to know what the pages change */
	SourceSpec spec;
} RunSetup;

typedef enum StartOutcome
{
	START_RUN,
	START_GONE,
	START_REFUSED
} StartOutcome;

typedef enum RunGuard
{
	RUN_GO_ON,
	RUN_CANCELLED,
	RUN_CONFIG_GONE,
	RUN_FILTER_CHANGED
} RunGuard;

/* Where the time of a run went, in microseconds. */
typedef struct RunTimings
{
	int64 fetch_us; /* asking and waiting for the upstream */
	int64 read_us;	/* parsing, canonical form, hash */
	int64 lookup_us;
	int64 write_us;
	int64 ledger_us;
	int64 commit_us;	/* begin, guard and commit of the pages */
	int64 settle_us;	/* stale step, post-sync and purge */
	int64 post_sync_us; /* of that, post-sync */
} RunTimings;

/* Of settling and of post-sync: whether a safeguard holds the run, and its message. */
typedef struct SettleResult
{
	bool  held;
	char *message;
} SettleResult;

/* These need db_begin, but for the last ones, which manage on the caller's transaction. */
extern StartOutcome store_start_run(int64 run, bool left, RunSetup *setup, MemoryContext context);
extern TimestampTz	store_restart_pass(int64 run, bool forget_link);
extern bool			store_settle_as_before(int64 run);
extern void			store_settle_pass(int64 run, bool complete, SettleResult *result,
									  MemoryContext context);
extern void	 store_post_sync(int64 run, bool held, SettleResult *result, MemoryContext context);
extern void	 store_post_sync_failed(int64 run, int sqlerrcode, const char *message);
extern int64 store_purge_run(int64 run, int64 limit);
extern void	 store_analyze_grown(void);
extern void	 store_finish_run(int64 run, const char *status, bool complete, const char *reason,
							  const char *error, ErrorClass error_class, TimestampTz watermark,
							  int64 retry_after_ms);
extern void	 store_set_timings(int64 run, const RunTimings *timings);
extern char *store_run_summary(int64 run, MemoryContext context);

/* run/guard.c */
extern RunGuard guard_run(const RunSetup *s);

#endif /* FLOHSYNC_STORE_H */
