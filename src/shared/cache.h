/*
 * cache.h
 *	  What processes share about the cache.  See shared/cache.c.
 */
#ifndef FLOHSYNC_SHMEM_CACHE_H
#define FLOHSYNC_SHMEM_CACHE_H

/* In the order of metrics(). */
typedef enum CacheCounter
{
	CACHE_HITS,
	CACHE_MISSES,
	CACHE_BYPASSED, /* Redis was not asked, or not believed */
	CACHE_STORED,
	CACHE_REFUSED,	   /* invalidated while it was fetched, so not stored */
	CACHE_WAITED,	   /* for a value that another one was fetching */
	CACHE_POISONED,	   /* the value found is not one of flohsync */
	CACHE_ERRORS,	   /* Redis did not answer, or with an error */
	CACHE_INVALIDATED, /* keys */
	CACHE_CLEARED,	   /* all keys of a type, a connector, or the database */
	CACHE_COUNTERS
} CacheCounter;

typedef struct CacheFigures
{
	uint64 counters[CACHE_COUNTERS];
	bool   open;   /* the breaker */
	uint64 opened; /* how often */
} CacheFigures;

extern Size shmem_cache_size(void);
extern void shmem_cache_startup(struct LWLock *lock);
extern void shmem_cache_forget(Oid database);
extern int	shmem_cache_databases(Oid **databases);
extern void shmem_cache_release(Oid database);

extern void	  shmem_cache_count(CacheCounter counter, uint64 n);
extern bool	  shmem_cache_figures(CacheFigures *figures);
extern void	  shmem_cache_write_begin(void);
extern void	  shmem_cache_write_end(void);
extern uint64 shmem_cache_writes(void);
extern void	  shmem_cache_clean(uint64 writes);
extern bool	  shmem_cache_is_clean(uint64 writes);
extern bool	  shmem_cache_allowed(void);
extern void	  shmem_cache_worked(void);
extern bool	  shmem_cache_failed(void);

#endif /* FLOHSYNC_SHMEM_CACHE_H */
