/*
 * worker.h
 *	  Starting workers, and what they do.  See worker.c.
 */
#ifndef FLOHSYNC_WORKER_H
#define FLOHSYNC_WORKER_H

extern bool worker_launch(Oid database, Oid role);
extern PGDLLEXPORT void flohsync_worker_main(Datum arg);

#endif							/* FLOHSYNC_WORKER_H */
