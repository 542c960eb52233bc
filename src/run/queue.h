/*
 * queue.h
 *	  What is due, and what is queued.  See run/queue.c.
 */
#ifndef FLOHSYNC_RUN_QUEUE_H
#define FLOHSYNC_RUN_QUEUE_H

#include "datatype/timestamp.h"

typedef struct RunCandidate
{
	int64 id;
	char *connector_id;
	char *resource_type;
	bool  queued; /* not: a worker took it once */
} RunCandidate;

extern RunCandidate *queue_open_runs(int *n);
extern void			 queue_enqueue_due(void);
extern TimestampTz	 queue_next_due(void);
extern void			 queue_purge_history(int retention_s);

#endif /* FLOHSYNC_RUN_QUEUE_H */
