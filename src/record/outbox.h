/*
 * outbox.h
 *	  What the tables say about the cache, and invalidations.  See outbox.c.
 */
#ifndef FLOHSYNC_OUTBOX_H
#define FLOHSYNC_OUTBOX_H

#include "utils/uuid.h"

/* What counts for a key at one instant. */
typedef struct OutboxView
{
	uint64 server;	/* identity of the Redis that the cache is in; 0: there is no cache */
	uint64 epoch;	/* values of another one are void */
	bool   pending; /* an invalidation is not delivered yet */
} OutboxView;

extern bool outbox_find_connector(const char *connector, int len, pg_uuid_t *id);
extern void outbox_look(const pg_uuid_t *connector, Datum type, Datum external_id,
						OutboxView *view);
extern bool outbox_known_connector(Datum name, Datum type, uint64 writes, pg_uuid_t *connector);
extern bool outbox_view_memoized(Datum name, const pg_uuid_t *connector, Datum type,
								 OutboxView *view);
extern void outbox_view_and_memoize(Datum name, uint64 writes, const pg_uuid_t *connector,
									Datum type, Datum external_id, OutboxView *view);
extern bool outbox_waiting(void);

extern void outbox_touch(void);
extern bool outbox_begin(void);
extern bool outbox_blocks_activation(void);
extern void outbox_add(Datum connector, Datum type, Datum ids);
extern void outbox_add_all(Datum connector, Datum type);

/* of the invalidator; these need db_begin */
typedef struct OutboxBatch
{
	int			 n;
	Datum		 connectors; /* uuid[]; the same rows, for outbox_done */
	Datum		 types;		 /* text[] */
	Datum		 ids;		 /* text[] */
	Datum		 seqs;		 /* int8[] */
	const char **keys;		 /* in Redis; one may be there twice */
	size_t		*key_len;
} OutboxBatch;

extern int64  outbox_settle(void);
extern void	  outbox_batch(OutboxBatch *batch, int limit, MemoryContext context);
extern void	  outbox_done(const OutboxBatch *batch);
extern int64  outbox_bound(int64 max);
extern uint64 outbox_server(void);
extern bool	  outbox_activate(uint64 server);
extern void	  outbox_deactivate(void);

/* Set by who starts workers: has the invalidator look after commit. */
extern void (*outbox_wake)(void);

#endif /* FLOHSYNC_OUTBOX_H */
