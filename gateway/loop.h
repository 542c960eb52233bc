/*
 * loop.h
 *	  The event loop: file descriptors, timers, and what is to be done soon.
 *	  See loop.c.
 */
#ifndef GATEWAY_LOOP_H
#define GATEWAY_LOOP_H

#include <stdbool.h>
#include <stdint.h>

typedef void (*LoopCall)(void *arg, uint32_t events);
typedef void (*TimerCall)(void *arg);

/* What a file descriptor is watched for; it lives until loop_unwatch. */
typedef struct Watch
{
	int		 fd;
	uint32_t events;
	LoopCall call;
	void	*arg;
} Watch;

typedef struct Timer
{
	struct Timer *next;
	int64_t		  due; /* milliseconds of loop_now */
	int64_t		  every;
	TimerCall	  call;
	void		 *arg;
} Timer;

extern void loop_start(void);
extern void loop_watch(Watch *w, int fd, uint32_t events, LoopCall call, void *arg);
extern void loop_events(Watch *w, uint32_t events);
extern void loop_unwatch(Watch *w);

/* Calls again and again, every so many milliseconds. */
extern void loop_every(Timer *t, int64_t milliseconds, TimerCall call, void *arg);

/* Milliseconds since some time, as of the beginning of this turn. */
extern int64_t loop_now(void);
/* The same, now. */
extern int64_t clock_ms(void);
extern int64_t clock_us(void);

/* One turn: waits at most so long, then calls what is due. */
extern void loop_turn(int64_t most);

#endif /* GATEWAY_LOOP_H */
