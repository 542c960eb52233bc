/*
 * events.h
 *	  GET /api/events: what runs do, as it happens.  See events.c.
 */
#ifndef GATEWAY_EVENTS_H
#define GATEWAY_EVENTS_H

struct Request;

extern void events_start(void);
extern void events_run(struct Request *r);
extern void events_forget_tokens(void);
extern void events_stop(void);
extern int	events_clients(void);

#endif /* GATEWAY_EVENTS_H */
