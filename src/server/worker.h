/*
 * worker.h
 *	  Starting workers, and what they do.  See worker.c.
 */
#ifndef FLOHSYNC_WORKER_H
#define FLOHSYNC_WORKER_H

#include "run/queue.h"
#include "shared/shmem.h"

typedef enum WorkerLaunch
{
	LAUNCH_DONE,
	LAUNCH_ALL_BUSY,  /* flohsync.max_workers is reached */
	LAUNCH_NO_PROCESS /* max_worker_processes is */
} WorkerLaunch;

extern WorkerLaunch		 worker_launch(Oid database, Oid role, WorkerKind kind);
extern void				 worker_wake(Oid database);
extern const char *const worker_no_process;
extern const char		*worker_hindrance(void);
extern const char		*worker_obstacle(Oid database, Oid *role);
extern void				 worker_wake_cache(void);
extern void				 worker_cache_now(void);

/* of the workers' own files */
extern void worker_enter(WorkerTicket *ticket, const char *name);
extern bool worker_check_extension(void);
extern void worker_is_hindered(const char *why, bool seen_by_all, const char *detail,
							   const char *hint);
extern bool worker_look(RunCandidate *claimed, bool *more, TimestampTz *next_due, TimestampTz began,
						MemoryContext context);
extern void worker_cache_start(Oid database, Oid role);
extern PGDLLEXPORT void flohsync_worker_main(Datum arg);
extern PGDLLEXPORT void flohsync_invalidator_main(Datum arg);

#endif /* FLOHSYNC_WORKER_H */
