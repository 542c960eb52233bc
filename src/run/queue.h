/*
 * queue.h
 *	  What is due, and what is queued.  See run/queue.c.
 */
#ifndef FLOHSYNC_RUN_QUEUE_H
#define FLOHSYNC_RUN_QUEUE_H

#include "datatype/timestamp.h"

typedef struct RunCandidate
{
	int64		id;
	char	   *connector_id;
	char	   *resource_type;
	bool		queued; /* not: a worker took it once */
	TimestampTz requested_at;
} RunCandidate;

extern void				   queue_begin(void);
extern const RunCandidate *queue_next_open_run(void);
extern bool				   queue_is_open(const RunCandidate *run, bool *queued);
extern bool				   queue_more_wait(void);
extern bool				   queue_knows_more(void);
extern int				   queue_enqueue_due(bool all);
extern TimestampTz		   queue_next_due(void);
extern bool				   queue_purge_history(int retention_s);

#endif /* FLOHSYNC_RUN_QUEUE_H */
