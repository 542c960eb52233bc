/*
 * invalidator.h
 *	  Delivers invalidations to Redis.  See invalidator.c.
 */
#ifndef FLOHSYNC_INVALIDATOR_H
#define FLOHSYNC_INVALIDATOR_H

typedef enum InvalidatorOutcome
{
	INVALIDATOR_DONE,	  /* nothing is left */
	INVALIDATOR_NO_REDIS, /* Redis did not do it: later */
	INVALIDATOR_MUST_WAIT /* a transaction that is open must end first */
} InvalidatorOutcome;

extern InvalidatorOutcome invalidator_drain(void);
extern InvalidatorOutcome invalidator_keep_small(void);

#endif /* FLOHSYNC_INVALIDATOR_H */
