/*
 * worker.h
 *	  Starting workers, and what they do.  See worker.c.
 */
#ifndef FLOHSYNC_WORKER_H
#define FLOHSYNC_WORKER_H

typedef enum WorkerLaunch
{
	LAUNCH_DONE,
	LAUNCH_ALL_BUSY,			/* flohsync.max_workers is reached */
	LAUNCH_NO_PROCESS			/* max_worker_processes is */
} WorkerLaunch;

extern WorkerLaunch worker_launch(Oid database, Oid role);
extern void worker_wake(Oid database);
extern PGDLLEXPORT void flohsync_worker_main(Datum arg);

#endif							/* FLOHSYNC_WORKER_H */
