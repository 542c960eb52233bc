/*
 * shmem.h
 *	  Wake-ups of processes.  See shmem.c.
 */
#ifndef FLOHSYNC_SHMEM_H
#define FLOHSYNC_SHMEM_H

#include "datatype/timestamp.h"

typedef enum WorkerKind
{
	WORKER_RUNS,
	WORKER_CACHE,
	WORKER_KINDS
} WorkerKind;

/* What a worker is started with; fits into bgw_extra. */
typedef struct WorkerTicket
{
	Oid		   database;
	Oid		   role;
	int		   slot; /* -1: there is no shared memory */
	uint32	   generation;
	WorkerKind kind;
} WorkerTicket;

extern void shmem_init(void);
extern bool shmem_available(void);

/* of the launcher */
extern void shmem_launcher_attach(void);
extern int	shmem_sync_databases(const Oid *databases, int n);
extern void shmem_all_due(void);
extern bool shmem_next_database(WorkerKind kind, TimestampTz now, Oid *database,
								TimestampTz *wake_at);
extern void shmem_launch_failed(Oid database, WorkerKind kind);

/* of whoever launches */
extern int	shmem_reserve_worker(Oid database, WorkerKind kind, uint32 *generation);
extern void shmem_release_worker(int slot, uint32 generation);

/* of a worker */
extern bool	  shmem_worker_attach(const WorkerTicket *ticket);
extern uint32 shmem_wake_seq(Oid database, WorkerKind kind);
extern void	  shmem_publish_due(Oid database, uint32 seq, TimestampTz next_due);
extern bool	  shmem_look_at_all(Oid database);
extern bool	  shmem_worker_done(const WorkerTicket *ticket, uint32 seq, TimestampTz next_due);

extern bool shmem_cache_pause(const WorkerTicket *ticket);

/* of everyone */
extern void		   shmem_cache_resume(Oid database);
extern void		   shmem_wake_database(Oid database, WorkerKind kind);
extern bool		   shmem_note_run(int64 run);
extern bool		   shmem_others_wait(Oid database);
extern TimestampTz shmem_clear_database(Oid database);
extern void		   shmem_cleared_database(Oid database, TimestampTz held);
extern void		   shmem_run_finished(void);
extern void		   shmem_wait_run_finished(long timeout_ms);

#endif /* FLOHSYNC_SHMEM_H */
