/*
 * hindrance.c
 *	  Why workers cannot work in a database: set by the launcher or by the
 *	  last worker that tried, cleared by the first one that can work.
 *
 * It makes the server log report each reason once, however often workers try;
 * and shows users the reasons that cannot be seen in the current catalogs.
 */
#include "postgres.h"

#include "base/compat.h"

#include "mb/pg_wchar.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "shared/hindrance.h"

#define HINDERED_DATABASES 256

typedef struct Hindrance
{
	Oid			database; /* InvalidOid: free */
	bool		seen_by_all;
	TimestampTz at;
	char		why[SHMEM_HINDRANCE_BYTES];
} Hindrance;

typedef struct Hindrances
{
	LWLock	 *lock;
	Hindrance of[HINDERED_DATABASES];
} Hindrances;

static Hindrances *shared = NULL;
static Hindrance   alone; /* of this process, where there is no shared memory */

Size
shmem_hindrance_size(void)
{
	return MAXALIGN(sizeof(Hindrances));
}

/* shmem_hindrance_startup is called with AddinShmemInitLock held. */
void
shmem_hindrance_startup(LWLock *lock)
{
	bool found;

	shared = ShmemInitStruct("flohsync hindrances", shmem_hindrance_size(), &found);
	if (found)
		return;
	memset(shared, 0, shmem_hindrance_size());
	shared->lock = lock;
}

/* The entry of a database, or a free one (of so many none is: the first), or NULL. */
static Hindrance *
find(Oid database, bool make)
{
	Hindrance *unused = NULL;

	if (shared == NULL)
		return alone.database == database || make ? &alone : NULL;
	for (int i = 0; i < HINDERED_DATABASES; i++)
	{
		if (shared->of[i].database == database)
			return &shared->of[i];
		if (unused == NULL && !OidIsValid(shared->of[i].database))
			unused = &shared->of[i];
	}
	return make ? unused ? unused : &shared->of[0] : NULL;
}

/*
 * shmem_hindrance_note notes why nothing can be done, and tells whether that is
 * news.  seen_by_all: it is in the catalogs, or so, and shmem_hindrance does not
 * tell it.
 */
bool
shmem_hindrance_note(Oid database, const char *why, bool seen_by_all)
{
	char	   text[SHMEM_HINDRANCE_BYTES] = "";
	Hindrance *h;
	bool	   news;

	memcpy(text, why, pg_mbcliplen(why, strlen(why), sizeof(text) - 1));
	if (shared)
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	h = find(database, true);
	news = h->database != database || strcmp(h->why, text) != 0;
	h->database = database;
	h->seen_by_all = seen_by_all;
	h->at = GetCurrentTimestamp();
	memcpy(h->why, text, sizeof(text));
	if (shared)
		LWLockRelease(shared->lock);
	return news;
}

/*
 * shmem_hindrance_forget is for a worker that began to look at some time, and met nothing
 * that hinders it.
 */
void
shmem_hindrance_forget(Oid database, TimestampTz began)
{
	Hindrance *h;

	if (shared)
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	h = find(database, false);
	if (h != NULL && h->at < began)
		h->database = InvalidOid;
	if (shared)
		LWLockRelease(shared->lock);
}

/* shmem_hindrance is what was noted that others cannot see for themselves, or NULL. */
char *
shmem_hindrance(Oid database)
{
	char	   why[SHMEM_HINDRANCE_BYTES] = "";
	Hindrance *h;

	if (shared == NULL)
		return NULL;
	LWLockAcquire(shared->lock, LW_SHARED);
	h = find(database, false);
	if (h != NULL && !h->seen_by_all)
		memcpy(why, h->why, sizeof(why));
	LWLockRelease(shared->lock);
	return why[0] ? pstrdup(why) : NULL;
}
