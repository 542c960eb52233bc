/*
 * db_lock.c
 *	  The only place that takes the extension's own locks: advisory locks of
 *	  the lock manager, in classes that no SQL function of PostgreSQL can
 *	  name.  db_lock.h lists them.
 *
 * With keys of pg_advisory_lock() any role that can connect could block all
 * other sessions indefinitely.
 *
 * A transaction-level lock is released at the end of the transaction.  A
 * session-level lock is released when the process exits, or when foreign code
 * that runs in it calls pg_advisory_unlock_all(), which releases all classes: so
 * a worker checks its lock in each of its transactions (db_keep_run).
 */
#include "postgres.h"

#include "base/compat.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"

#include "base/db_lock.h"

static void
db_lock_tag(LOCKTAG *tag, DbLock lock, uint64 key)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, lock);
}

uint64
db_lock_key(const char *text)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text), 0);
}

#define LOCK_NAME(id, name) {name, DB_LOCK_##id},

/* db_lock_by_name finds those that SQL may ask for by name. */
bool
db_lock_by_name(const char *name, DbLock *lock)
{
	static const struct
	{
		const char *name;
		DbLock		lock;
	} names[] = {DB_LOCKS_OF_SQL(LOCK_NAME)};

	for (size_t i = 0; i < lengthof(names); i++)
		if (strcmp(names[i].name, name) == 0)
		{
			*lock = names[i].lock;
			return true;
		}
	return false;
}

/* db_lock_wait takes a lock until the end of the transaction. */
void
db_lock_wait(DbLock lock, uint64 key, bool shared)
{
	LOCKTAG tag;

	db_lock_tag(&tag, lock, key);
	(void) LockAcquire(&tag, shared ? ShareLock : ExclusiveLock, false, false);
}

/* db_lock_try does not wait: false when the lock is not available. */
bool
db_lock_try(DbLock lock, uint64 key, bool shared)
{
	LOCKTAG tag;

	db_lock_tag(&tag, lock, key);
	return LockAcquire(&tag, shared ? ShareLock : ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* db_lock_try_session: the same, exclusively and until db_unlock_session. */
bool
db_lock_try_session(DbLock lock, uint64 key)
{
	LOCKTAG tag;

	db_lock_tag(&tag, lock, key);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
db_unlock_session(DbLock lock, uint64 key)
{
	LOCKTAG tag;

	db_lock_tag(&tag, lock, key);
	LockRelease(&tag, ExclusiveLock, true);
}

/*
 * The lock of a run
 */

uint64
db_run_lock_key(const char *connector, const char *resource_type)
{
	return hash_bytes_extended((const unsigned char *) connector, strlen(connector),
							   hash_bytes_extended((const unsigned char *) resource_type,
												   strlen(resource_type), 0));
}

/* db_lock_run: false when another process has the lock; does not wait. */
bool
db_lock_run(const char *connector, const char *resource_type, bool session)
{
	uint64 key = db_run_lock_key(connector, resource_type);

	return session ? db_lock_try_session(DB_LOCK_RUN, key) : db_lock_try(DB_LOCK_RUN, key, false);
}

void
db_unlock_run(const char *connector, const char *resource_type)
{
	db_unlock_session(DB_LOCK_RUN, db_run_lock_key(connector, resource_type));
}

/*
 * db_keep_run makes sure that the session still has the lock of its run, and
 * takes it again if it was lost.  False when another process has it now.
 */
bool
db_keep_run(const char *connector, const char *resource_type)
{
	LOCKTAG tag;

	db_lock_tag(&tag, DB_LOCK_RUN, db_run_lock_key(connector, resource_type));
	switch (LockAcquire(&tag, ExclusiveLock, true, true))
	{
		case LOCKACQUIRE_NOT_AVAIL:
			return false;
		case LOCKACQUIRE_OK:
			return true;
		default:
			/* It was held, and is now held twice. */
			LockRelease(&tag, ExclusiveLock, true);
			return true;
	}
}
