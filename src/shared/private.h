/*
 * private.h
 *	  What shmem.c and workers.c share: the state that all processes see.
 */
#ifndef FLOHSYNC_SHARED_PRIVATE_H
#define FLOHSYNC_SHARED_PRIVATE_H

#include <signal.h>

#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "shared/shmem.h"

#define MAX_DATABASES	   1024
#define MAX_LEFT_RUNS	   64
#define CACHE_MAX_DELAY_MS 30000
#define LOOK_AT_ALL_MS	   60000

typedef struct DatabaseSlot
{
	Oid			database; /* InvalidOid: free */
	uint32		wake_seq[WORKER_KINDS];
	TimestampTz next_due[WORKER_KINDS]; /* DT_NOEND: nothing known */
	TimestampTz hold_until;				/* no launch before */
	int			failures;				/* launches in a row that came to nothing */
	TimestampTz looked_at_all;			/* when all configurations were last read */
	TimestampTz cache_hold_until;		/* Redis did not answer: leave it alone until then */
	int			cache_failures;
	bool		listed;
} DatabaseSlot;

typedef struct WorkerSlot
{
	bool		in_use;
	WorkerKind	kind; /* never changes */
	uint32		generation;
	Oid			database;
	pid_t		pid;  /* 0: launched, not yet there */
	int			proc; /* proc number, once it is there */
	TimestampTz launched_at;
	int64		run; /* that it is at; 0: none */
} WorkerSlot;

/* A run whose worker ended by an error, or was told to: it did not crash. */
typedef struct LeftRun
{
	Oid	  database;
	int64 run;
} LeftRun;

typedef struct SharedState
{
	LWLock			 *lock;
	int				  launcher; /* proc number, -1: none */
	int				  nworkers; /* slots: flohsync.max_workers, and those for the cache */
	ConditionVariable run_finished;
	DatabaseSlot	  databases[MAX_DATABASES];
	LeftRun			  left[MAX_LEFT_RUNS]; /* the last ones */
	int				  nleft;
	WorkerSlot		  workers[FLEXIBLE_ARRAY_MEMBER];
} SharedState;

extern SharedState *shmem_state; /* NULL: there is none */

/* These two need the lock. */
extern DatabaseSlot *shmem_find_database(Oid database, bool create);
extern void			 shmem_poke_launcher(void);
extern bool			 shmem_worker_underway(Oid database, WorkerKind kind);

#endif /* FLOHSYNC_SHARED_PRIVATE_H */
