/*
 * db_lock.h
 *	  The locks of the extension: what each keeps apart, and in which order they
 *	  may be taken.  See db_lock.c; sql/40_run.sql has the rows between them.
 */
#ifndef FLOHSYNC_DB_LOCK_H
#define FLOHSYNC_DB_LOCK_H

/*
 * A class is the objsubid that pg_locks shows, as a smallint.  SQL functions of
 * PostgreSQL take 1 and 2 and no other (lockfuncs.c), so only the extension can hold
 * one of these, and keys of different classes never meet.
 *
 * A transaction takes them from the top down, before the rows that it needs.
 */
typedef enum DbLock
{
	/*
	 * Queueing due runs: one worker at a time, so that runs are queued in that order.  Never
	 * waited for.
	 */
	DB_LOCK_SCHEDULE = 0x710B,

	/*
	 * The runs of a configuration: exclusive to execute one or to decide
	 * about a held one.  Session-level in a worker; it is released with the process,
	 * so it, and no column, proves that a run is alive.  Never waited for.
	 */
	DB_LOCK_RUN = 0x710C,

	/* The cache; its keys are below. */
	DB_LOCK_CACHE = 0x710D,

	/* A connector: shared to write anything that belongs to it, exclusive to drop it. */
	DB_LOCK_CONNECTOR = 0x710E,

	/* Queueing a run of a configuration by hand: exclusive until the row is committed. */
	DB_LOCK_QUEUE = 0x710F,

	/* Webhooks with several events: exclusive to store those of one. */
	DB_LOCK_EVENTS = 0x7113,

	/*
	 * The matches of a configuration: exclusive to change many of them
	 * (post-sync, match_users, bulk_resolve_matches), shared to change one.
	 */
	DB_LOCK_MATCHING = 0x7110,

	/*
	 * Changes of users: shared while they are being processed; exclusive, and never waited
	 * for, to remove any.
	 */
	DB_LOCK_USER_CHANGES = 0x7111,

	/*
	 * E-mail addresses of users to be created: exclusive, in a few buckets, locked in the
	 * order of their numbers.
	 */
	DB_LOCK_ADDRESS = 0x7112,
} DbLock;

/* Those that SQL takes, and what they are called there: X(id, name). */
#define DB_LOCKS_OF_SQL(X) \
	X(CONNECTOR, "connector") \
	X(QUEUE, "queue") \
	X(EVENTS, "events") \
	X(MATCHING, "matching") \
	X(USER_CHANGES, "user changes") \
	X(ADDRESS, "address")

/* Keys of DB_LOCK_CACHE. */
#define CACHE_LOCK_STATE \
	0 /* which Redis is used: shared to rely on it; exclusive, never waited for, to change it (outbox.c) */
#define CACHE_LOCK_AT_WORK 1 /* held by the session that delivers invalidations (worker_cache.c) */
#define CACHE_LOCK_NEXT	   2 /* and by the one that waits for its place */

extern uint64 db_lock_key(const char *text);
extern bool	  db_lock_by_name(const char *name, DbLock *lock);
extern void	  db_lock_wait(DbLock lock, uint64 key, bool shared);
extern bool	  db_lock_try(DbLock lock, uint64 key, bool shared);
extern bool	  db_lock_try_session(DbLock lock, uint64 key);
extern void	  db_unlock_session(DbLock lock, uint64 key);

extern uint64 db_run_lock_key(const char *connector, const char *resource_type);
extern bool	  db_lock_run(const char *connector, const char *resource_type, bool session);
extern void	  db_unlock_run(const char *connector, const char *resource_type);
extern bool	  db_keep_run(const char *connector, const char *resource_type);

#endif /* FLOHSYNC_DB_LOCK_H */
