/*
 * loop.c
 *	  The event loop: file descriptors, timers, and what is to be done soon.
 *
 * Everything of the program but making connections (db_connect.c) happens in its
 * one thread, so nothing of it needs a lock, and nothing of it may wait.
 */
#include "loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "log.h"

#define EVENTS 64

static int				  epoll_fd = -1;
static Timer			 *timers;
static int64_t			  now;
static struct epoll_event events[EVENTS];
static int				  event;
static int				  nevents;

int64_t
clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t
clock_ms(void)
{
	return clock_us() / 1000;
}

int64_t
loop_now(void)
{
	return now;
}

void
loop_start(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
	{
		log_message(LOG_ERROR, "could not create an event loop: %s", strerror(errno));
		exit(1);
	}
	now = clock_ms();
}

static void
loop_control(int op, Watch *w)
{
	struct epoll_event e = {.events = w->events, .data.ptr = w};

	if (epoll_ctl(epoll_fd, op, w->fd, &e) != 0)
		log_message(LOG_ERROR, "could not watch a file descriptor: %s", strerror(errno));
}

void
loop_watch(Watch *w, int fd, uint32_t wanted, LoopCall call, void *arg)
{
	*w = (Watch){fd, wanted, call, arg};
	loop_control(EPOLL_CTL_ADD, w);
}

void
loop_events(Watch *w, uint32_t wanted)
{
	if (w->events == wanted)
		return;
	w->events = wanted;
	loop_control(EPOLL_CTL_MOD, w);
}

void
loop_unwatch(Watch *w)
{
	if (w->call == NULL)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	/* It may be among what is to be called in this turn. */
	for (int i = event; i < nevents; i++)
	{
		if (events[i].data.ptr == w)
			events[i].data.ptr = NULL;
	}
	w->call = NULL;
}

void
loop_every(Timer *t, int64_t milliseconds, TimerCall call, void *arg)
{
	*t = (Timer){timers, clock_ms() + milliseconds, milliseconds, call, arg};
	timers = t;
}

void
loop_turn(int64_t most)
{
	now = clock_ms();
	for (Timer *t = timers; t != NULL; t = t->next)
	{
		if (t->due - now < most)
			most = t->due > now ? t->due - now : 0;
	}
	nevents = epoll_wait(epoll_fd, events, EVENTS, (int) most);
	now = clock_ms();
	for (event = 0; event < nevents; event++)
	{
		Watch *w = events[event].data.ptr;

		if (w != NULL && w->call != NULL)
			w->call(w->arg, events[event].events);
	}
	event = nevents = 0;
	for (Timer *t = timers; t != NULL; t = t->next)
	{
		if (t->due <= now)
		{
			t->due = now + t->every;
			t->call(t->arg);
		}
	}
}
