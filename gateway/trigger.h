/*
 * trigger.h
 *	  Triggers that wait for the end of their run.  See trigger.c.
 */
#ifndef GATEWAY_TRIGGER_H
#define GATEWAY_TRIGGER_H

struct Request;

extern void trigger_start(void);
extern void trigger_run(struct Request *r);
/* The database said that a run is over, or that something may have been missed. */
extern void trigger_notified(long long run);
extern void trigger_look_at_all(void);
/* Nobody waits any longer. */
extern void trigger_stop(void);
extern int	triggers_waiting(void);

#endif /* GATEWAY_TRIGGER_H */
