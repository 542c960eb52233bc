/*
 * wait.c
 *	  The only place that waits.
 *
 * Every wait ends on the latch and on the death of the postmaster, and
 * answers interrupts: cancel, termination, statement timeout, and the barriers
 * with which DROP DATABASE makes every process of the cluster take part
 * (a process that sat in poll() without them would hang an unrelated DROP).
 */
#include "postgres.h"

#include "base/compat.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/wait.h"

static uint32
wait_event(WaitReason reason)
{
	static uint32			 events[6];
	static const char *const names[6] = {"FlohsyncHttp",	 "FlohsyncRetry", "FlohsyncRun",
										 "FlohsyncLauncher", "FlohsyncRedis", "FlohsyncIdle"};

	if (events[reason] == 0)
		events[reason] = compat_wait_event(names[reason]);
	return events[reason];
}

static void
wait_answer_interrupts(void)
{
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	/* In a regular backend the main loop does this between commands. */
	if (MyBgworkerEntry != NULL && ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * wait_sockets returns how many of the sockets are ready; 0 after the timeout
 * (-1: none), or when the latch was set.
 */
int
wait_sockets(WaitSocket *sockets, int n, long timeout_ms, WaitReason reason)
{
	WaitEventSet *set;
	WaitEvent	  found[WAIT_MAX_SOCKETS + 2];
	int			  place[WAIT_MAX_SOCKETS];
	int			  nfound;
	int			  ready = 0;

	Assert(n <= WAIT_MAX_SOCKETS);
	CHECK_FOR_INTERRUPTS();

	/* There is no way to take an event out of a set, so it is rebuilt. */
	set = compat_create_wait_event_set(n + 2);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < n; i++)
	{
		uint32 want = (sockets[i].read ? WL_SOCKET_READABLE : 0) |
			(sockets[i].write ? WL_SOCKET_WRITEABLE : 0);

		sockets[i].can_read = sockets[i].can_write = false;
		place[i] = want == 0 ? -1 : AddWaitEventToSet(set, want, sockets[i].fd, NULL, NULL);
	}
	nfound = WaitEventSetWait(set, timeout_ms, found, n + 2, wait_event(reason));
	for (int f = 0; f < nfound; f++)
	{
		for (int i = 0; i < n; i++)
		{
			if (place[i] >= 0 && found[f].pos == place[i])
			{
				sockets[i].can_read = (found[f].events & WL_SOCKET_READABLE) != 0;
				sockets[i].can_write = (found[f].events & WL_SOCKET_WRITEABLE) != 0;
				ready++;
			}
		}
	}
	FreeWaitEventSet(set);
	wait_answer_interrupts();
	return ready;
}

struct WaitChannel
{
	WaitEventSet *set;
	int			  place;
	uint32		  events; /* that the set waits for now */
};

/*
 * wait_channel_open makes what waits for one socket again and again, without
 * building a set for each time.  It lives until wait_channel_close.
 */
WaitChannel *
wait_channel_open(pgsocket fd)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	WaitChannel	 *line = palloc(sizeof(WaitChannel));

	line->set = compat_create_wait_event_set(3);
	line->events = WL_SOCKET_READABLE;
	AddWaitEventToSet(line->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(line->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	line->place = AddWaitEventToSet(line->set, line->events, fd, NULL, NULL);
	MemoryContextSwitchTo(old);
	return line;
}

/* Close it before the socket. */
void
wait_channel_close(WaitChannel *line)
{
	FreeWaitEventSet(line->set);
	pfree(line);
}

/*
 * wait_channel returns whether the socket is ready for reading (or writing); false
 * after the timeout, or when the latch was set.
 */
bool
wait_channel(WaitChannel *line, bool write, long timeout_ms, WaitReason reason)
{
	uint32	  want = write ? WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE;
	WaitEvent found[3];
	int		  nfound;
	bool	  ready = false;
	bool	  latch = false;

	if (want != line->events)
		ModifyWaitEvent(line->set, line->place, want, NULL);
	line->events = want;
	nfound = WaitEventSetWait(line->set, timeout_ms, found, 3, wait_event(reason));
	for (int i = 0; i < nfound; i++)
	{
		ready |= found[i].pos == line->place;
		latch |= (found[i].events & WL_LATCH_SET) != 0;
	}
	if (latch)
		wait_answer_interrupts();
	return ready;
}

/* wait_latch returns after the timeout (-1: none) or when the latch was set. */
void
wait_latch(long timeout_ms, WaitReason reason)
{
	CHECK_FOR_INTERRUPTS();
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout_ms >= 0 ? WL_TIMEOUT : 0),
					 timeout_ms, wait_event(reason));
	wait_answer_interrupts();
}

/* wait_ms waits for all of the time, whatever sets the latch meanwhile. */
void
wait_ms(long timeout_ms, WaitReason reason)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	for (;;)
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		wait_latch(left, reason);
	}
}
