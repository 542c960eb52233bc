/*
 * hindrance.h
 *	  Why workers can do nothing in a database.  See shared/hindrance.c.
 */
#ifndef FLOHSYNC_SHMEM_HINDRANCE_H
#define FLOHSYNC_SHMEM_HINDRANCE_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

#define SHMEM_HINDRANCE_BYTES 240

extern Size	 shmem_hindrance_size(void);
extern void	 shmem_hindrance_startup(LWLock *lock);
extern bool	 shmem_hindrance_note(Oid database, const char *why, bool seen_by_all);
extern void	 shmem_hindrance_forget(Oid database, TimestampTz began);
extern char *shmem_hindrance(Oid database);

#endif /* FLOHSYNC_SHMEM_HINDRANCE_H */
