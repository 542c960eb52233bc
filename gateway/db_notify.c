/*
 * db_notify.c
 *	  What the database notifies of: one connection listens, for all who wait.
 *
 * What is notified while there is no such connection is lost.  So whoever relies on
 * it is told when there is one again, and asks meanwhile (db_listening).
 */
#include "db_notify.h"

#include <sys/epoll.h>

#include "db_connect.h"
#include "loop.h"

#define CONNECT_AGAIN_MS 1000

static PGconn	  *listener;
static Watch	   listener_watch;
static bool		   listener_asked;
static int64_t	   listener_failed_at;
static DbNotified  on_notified;
static DbListening on_listening;

static void
listener_lost(void)
{
	if (listener != NULL)
	{
		loop_unwatch(&listener_watch);
		PQfinish(listener);
		listener = NULL;
	}
	listener_failed_at = loop_now();
}

static void
listener_event(void *arg, uint32_t events)
{
	PGnotify *n;

	(void) arg;
	(void) events;
	if (PQconsumeInput(listener) != 1)
	{
		listener_lost();
		return;
	}
	while ((n = PQnotifies(listener)) != NULL)
	{
		on_notified(n->relname, n->extra);
		PQfreemem(n);
	}
	if (PQstatus(listener) != CONNECTION_OK)
		listener_lost();
}

void
notify_start(DbNotified notified, DbListening listening)
{
	on_notified = notified;
	on_listening = listening;
	listener_failed_at = loop_now() - CONNECT_AGAIN_MS;
}

void
notify_connected(PGconn *conn)
{
	listener_asked = false;
	listener = conn;
	if (listener == NULL)
	{
		listener_failed_at = loop_now();
		return;
	}
	loop_watch(&listener_watch, PQsocket(listener), EPOLLIN, listener_event, NULL);
	on_listening();
	/* What came while the connection was made has been read already. */
	listener_event(NULL, 0);
}

void
notify_look_after(void)
{
	if (listener == NULL && !listener_asked && loop_now() - listener_failed_at >= CONNECT_AGAIN_MS)
	{
		listener_asked = true;
		connect_ask(CONNECT_LISTEN, NULL);
	}
}

void
notify_stop(void)
{
	listener_lost();
}

bool
db_listening(void)
{
	return listener != NULL;
}
