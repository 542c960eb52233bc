/*
 * cache.c
 *	  State of the cache shared by processes: counters, the circuit breaker,
 *	  and whether the outbox is known to be empty.
 *
 * The latter saves readers a look into tables.  A writer is counted as in flight,
 * counts a write, writes, commits, and is in flight no more.  A reader that reads
 * the number of writes, then sees no writer in flight, and then, with a new
 * snapshot, that the outbox is empty, knows it empty as of that number; and as
 * long as the number is the same and no writer is in flight, it still is.  (A
 * prepared transaction ends in another process, so none of this is used where
 * there can be any.)
 *
 * The breaker of a database prevents sessions from waiting for a Redis that does
 * not answer.
 *
 *	  closed --3 failures in a row--> open --its time is up--> one probe
 *	    ^                              ^                         |
 *	    +------- it worked -----------(-------------------------+
 *	                                   +---- it failed: twice as long
 *
 * Open for 1 s, then 2, 4, ... 30 s, each time varied by up to a quarter, so
 * that sessions do not retry simultaneously.  A probe without a result is given
 * up after PROBE_MS.
 *
 * Without shared memory all of this is local to the process, and so it is when
 * all slots are in use.  Then writers are counted in a slot that belongs to no
 * database, which readers of all databases check: when their database gets a
 * slot later on, they do not treat the outbox as empty while such writers write.
 *
 * A slot is freed when its database is dropped, which has no connections any
 * more.  The launcher does that.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "shared/cache.h"

#define BREAKER_FAILURES 3
#define BREAKER_FIRST_MS 1000
#define BREAKER_LAST_MS	 30000
#define PROBE_MS		 1000

typedef struct CacheSlot
{
	pg_atomic_uint32 database; /* InvalidOid: free */
	pg_atomic_uint64 counters[CACHE_COUNTERS];
	pg_atomic_uint64 writes;
	pg_atomic_uint64 clean_at; /* number of writes as of which the outbox is empty */
	pg_atomic_uint32 in_flight;
	pg_atomic_uint32 failures;	 /* in a row */
	slock_t			 mutex;		 /* for the rest */
	TimestampTz		 open_until; /* 0: closed */
	TimestampTz		 probe_until;
	int				 level;
	uint64			 opened;
} CacheSlot;

typedef struct CacheShared
{
	LWLock			*lock; /* to take or free a slot */
	int				 nslots;
	pg_atomic_uint32 freed;	 /* how many slots were freed so far */
	CacheSlot		 common; /* of those who have none: writes and in_flight alone */
	CacheSlot		 slots[FLEXIBLE_ARRAY_MEMBER];
} CacheShared;

static CacheShared *shared = NULL;
static CacheSlot	own;
static CacheSlot   *mine = NULL;
static uint32		freed_seen;		/* when there was no slot for us */
static CacheSlot   *writing = NULL; /* where we are in flight */

Size
shmem_cache_size(void)
{
	return add_size(offsetof(CacheShared, slots),
					mul_size(flohsync_cache_databases, sizeof(CacheSlot)));
}

static void
cache_slot_init(CacheSlot *slot)
{
	memset(slot, 0, sizeof(*slot));
	pg_atomic_init_u32(&slot->database, InvalidOid);
	pg_atomic_init_u32(&slot->failures, 0);
	pg_atomic_init_u64(&slot->writes, 1);
	pg_atomic_init_u64(&slot->clean_at, 0);
	pg_atomic_init_u32(&slot->in_flight, 0);
	for (int i = 0; i < CACHE_COUNTERS; i++)
		pg_atomic_init_u64(&slot->counters[i], 0);
	SpinLockInit(&slot->mutex);
}

/* Called with the lock for such things held. */
void
shmem_cache_startup(LWLock *lock)
{
	bool found;

	shared = ShmemInitStruct("flohsync cache", shmem_cache_size(), &found);
	if (found)
		return;
	shared->lock = lock;
	shared->nslots = flohsync_cache_databases;
	pg_atomic_init_u32(&shared->freed, 0);
	cache_slot_init(&shared->common);
	for (int i = 0; i < shared->nslots; i++)
		cache_slot_init(&shared->slots[i]);
}

/* The slot of our database, taken if need be; NULL when there is none for it. */
static CacheSlot *
cache_slot_take(void)
{
	CacheSlot *unused = NULL;
	CacheSlot *found = NULL;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	freed_seen = pg_atomic_read_u32(&shared->freed);
	for (int i = 0; i < shared->nslots && found == NULL; i++)
	{
		CacheSlot *slot = &shared->slots[i];
		Oid		   database = pg_atomic_read_u32(&slot->database);

		if (database == MyDatabaseId)
			found = slot;
		else if (database == InvalidOid && unused == NULL)
			unused = slot;
	}
	if (found == NULL && unused != NULL)
	{
		found = unused;
		pg_atomic_write_u32(&found->database, MyDatabaseId);
	}
	LWLockRelease(shared->lock);
	return found;
}

/* The slot of our database; when all are taken, one of our own. */
static CacheSlot *
cache_slot(void)
{
	if (mine != NULL &&
		(mine != &own || shared == NULL || pg_atomic_read_u32(&shared->freed) == freed_seen))
		return mine;
	if (mine == NULL)
		cache_slot_init(&own);
	mine = shared != NULL ? cache_slot_take() : NULL;
	if (mine == NULL)
		mine = &own;
	return mine;
}

/*
 * shmem_cache_databases lists, in an array of the current memory context, the
 * databases that have a slot.
 */
int
shmem_cache_databases(Oid **databases)
{
	int n = 0;

	*databases = palloc(sizeof(Oid) * Max(shared ? shared->nslots : 0, 1));
	for (int i = 0; shared != NULL && i < shared->nslots; i++)
		if (((*databases)[n] = pg_atomic_read_u32(&shared->slots[i].database)) != InvalidOid)
			n++;
	return n;
}

/* shmem_cache_release frees the slot of a database that is not there any more. */
void
shmem_cache_release(Oid database)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nslots; i++)
	{
		CacheSlot *slot = &shared->slots[i];

		if (pg_atomic_read_u32(&slot->database) != database)
			continue;
		cache_slot_init(slot);
		pg_atomic_fetch_add_u32(&shared->freed, 1);
	}
	LWLockRelease(shared->lock);
}

/* shmem_cache_forget sets back what is known of a database that may be about to be dropped. */
void
shmem_cache_forget(Oid database)
{
	for (int i = 0; shared != NULL && i < shared->nslots; i++)
	{
		CacheSlot *slot = &shared->slots[i];

		if (pg_atomic_read_u32(&slot->database) != database)
			continue;
		for (int c = 0; c < CACHE_COUNTERS; c++)
			pg_atomic_write_u64(&slot->counters[c], 0);
		SpinLockAcquire(&slot->mutex);
		slot->open_until = slot->probe_until = 0;
		slot->level = 0;
		slot->opened = 0;
		SpinLockRelease(&slot->mutex);
		pg_atomic_write_u32(&slot->failures, 0);
	}
}

/*
 * shmem_cache_write_begin counts a writer, which calls shmem_cache_write_end at the end of
 * its transaction.
 */
void
shmem_cache_write_begin(void)
{
	writing = cache_slot();
	if (writing == &own && shared != NULL)
		writing = &shared->common;
	pg_atomic_fetch_add_u32(&writing->in_flight, 1);
	pg_atomic_fetch_add_u64(&writing->writes, 1);
}

void
shmem_cache_write_end(void)
{
	pg_atomic_fetch_sub_u32(&writing->in_flight, 1);
}

/*
 * shmem_cache_writes is to be called before taking a snapshot; 0: a writer is in flight, or
 * that is unknown.
 */
uint64
shmem_cache_writes(void)
{
	CacheSlot *slot = cache_slot();
	uint64	   writes;

	if (slot == &own || max_prepared_xacts > 0)
		return 0;
	/* Neither ever goes down, so no two states have the same sum. */
	writes = pg_atomic_read_u64(&slot->writes) + pg_atomic_read_u64(&shared->common.writes);
	pg_memory_barrier();
	return pg_atomic_read_u32(&slot->in_flight) == 0 &&
			pg_atomic_read_u32(&shared->common.in_flight) == 0 ?
		writes :
		0;
}

/* shmem_cache_clean says that the outbox is empty as of that many writes. */
void
shmem_cache_clean(uint64 writes)
{
	if (writes != 0)
		pg_atomic_write_u64(&cache_slot()->clean_at, writes);
}

/* shmem_cache_is_clean: is it still? */
bool
shmem_cache_is_clean(uint64 writes)
{
	return writes != 0 && pg_atomic_read_u64(&cache_slot()->clean_at) == writes;
}

void
shmem_cache_count(CacheCounter counter, uint64 n)
{
	pg_atomic_fetch_add_u64(&cache_slot()->counters[counter], n);
}

/*
 * shmem_cache_figures: false when there is no shared memory, and the figures are of this
 * process alone.
 */
bool
shmem_cache_figures(CacheFigures *figures)
{
	CacheSlot *slot = cache_slot();

	for (int i = 0; i < CACHE_COUNTERS; i++)
		figures->counters[i] = pg_atomic_read_u64(&slot->counters[i]);
	SpinLockAcquire(&slot->mutex);
	figures->open = slot->open_until != 0;
	figures->opened = slot->opened;
	SpinLockRelease(&slot->mutex);
	return slot != &own;
}

/* shmem_cache_allowed: may Redis be asked?  If so, the result must be reported afterwards. */
bool
shmem_cache_allowed(void)
{
	CacheSlot  *slot = cache_slot();
	TimestampTz now;
	bool		allowed = true;

	if (pg_atomic_read_u32(&slot->failures) < BREAKER_FAILURES)
		return true;
	now = GetCurrentTimestamp();
	SpinLockAcquire(&slot->mutex);
	/* No wait is that long: the clock was set back. */
	if (slot->open_until > TimestampTzPlusMilliseconds(now, 2 * BREAKER_LAST_MS))
		slot->open_until = now;
	if (slot->probe_until > TimestampTzPlusMilliseconds(now, 2 * PROBE_MS))
		slot->probe_until = now;
	if (slot->open_until != 0)
	{
		allowed = now >= slot->open_until && now >= slot->probe_until;
		if (allowed)
			slot->probe_until = TimestampTzPlusMilliseconds(now, PROBE_MS);
	}
	SpinLockRelease(&slot->mutex);
	return allowed;
}

void
shmem_cache_worked(void)
{
	CacheSlot *slot = cache_slot();

	if (pg_atomic_read_u32(&slot->failures) == 0)
		return;
	SpinLockAcquire(&slot->mutex);
	pg_atomic_write_u32(&slot->failures, 0);
	slot->open_until = slot->probe_until = 0;
	slot->level = 0;
	SpinLockRelease(&slot->mutex);
}

/* shmem_cache_failed: true when that has opened the breaker. */
bool
shmem_cache_failed(void)
{
	CacheSlot  *slot = cache_slot();
	TimestampTz now = GetCurrentTimestamp();
	bool		opened = false;

	if (pg_atomic_add_fetch_u32(&slot->failures, 1) < BREAKER_FAILURES)
		return false;
	SpinLockAcquire(&slot->mutex);
	/* Failures of requests from before it opened are ignored. */
	if (slot->open_until == 0 || now >= slot->open_until)
	{
		int ms = Min(BREAKER_LAST_MS, BREAKER_FIRST_MS << Min(slot->level, 5));

		opened = slot->open_until == 0;
		if (opened)
			slot->opened++;
		slot->level++;
		ms += (int) (now % (ms / 2)) - ms / 4;
		slot->open_until = TimestampTzPlusMilliseconds(now, ms);
		slot->probe_until = 0;
	}
	SpinLockRelease(&slot->mutex);
	return opened;
}
