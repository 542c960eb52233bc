/*
 * http_group.c
 *	  Clients whose requests go on together: waiting for any of them moves all.
 *
 * A request may be sent before its turn.  Its answer then stays in the buffer of
 * its client until the turn comes (http_turn).  What such answers take is bounded
 * for the group as a whole, by half of flohsync.page_memory, and beside it: so a
 * page in its turn has all the memory that it has without them.  An answer that
 * does not fit ends as a failure (http_early_status), and is asked for again when
 * it is its turn.
 *
 * Mostly one socket is waited for, again and again.  Then what waits for it is kept
 * (wait_channel), as long as libcurl has not closed the socket; which it says only of those
 * that we opened.  To make it anew each time takes 8 us, as long as all else of an answer
 * without a body.  And where the last answer came at once, from the same machine or the next
 * one, the next one is looked for without falling asleep, for as long as that would take:
 * it costs no more processor time, and a third less time.
 *
 * The rules of http.c hold here as well.
 */
#include "postgres.h"

#include "base/compat.h"

#include <unistd.h>

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "net/http.h"
#include "net/http_private.h"

/* So soon an answer may come that to fall asleep and to be woken would take as long. */
#define GROUP_NEAR_US 100

static int
group_on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	HttpGroup *group = arg;
	int		   i;

	for (i = 0; i < group->nsockets && group->sockets[i].fd != fd; i++)
		;
	if (what == CURL_POLL_REMOVE)
	{
		if (i < group->nsockets)
			group->sockets[i] = group->sockets[--group->nsockets];
		return 0;
	}
	if (i == group->nsockets)
	{
		if (i == WAIT_MAX_SOCKETS)
		{
			group->too_many_sockets = true;
			return -1;
		}
		group->nsockets++;
	}
	group->sockets[i].fd = fd;
	group->sockets[i].what = what;
	return 0;
}

static int
group_on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	HttpGroup *group = arg;

	group->deadline = timeout_ms < 0 ?
		0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	return 0;
}

/* http_group_opened: a socket was opened (or could not be); it is called from a callback. */
curl_socket_t
http_group_opened(HttpGroup *group, curl_socket_t fd)
{
	if (fd != CURL_SOCKET_BAD && group->nown < WAIT_MAX_SOCKETS)
		group->own[group->nown++] = fd;
	return fd;
}

/* http_group_on_close closes a socket for libcurl. */
int
http_group_on_close(void *arg, curl_socket_t fd)
{
	HttpGroup *group = arg;

	for (int i = 0; i < group->nown; i++)
	{
		if (group->own[i] == fd)
		{
			group->own[i] = group->own[--group->nown];
			break;
		}
	}
	if (group->line_fd == fd)
		group->line_fd = CURL_SOCKET_BAD;
	return close(fd);
}

/* http_group_create makes a group without clients; NULL: there is no memory.  Call it entered. */
HttpGroup *
http_group_create(void)
{
	HttpGroup *group = calloc(1, sizeof(HttpGroup));

	if (group == NULL)
		return NULL;
	group->multi = curl_multi_init();
	if (group->multi == NULL)
	{
		free(group);
		return NULL;
	}
	group->line_fd = CURL_SOCKET_BAD;
	curl_multi_setopt(group->multi, CURLMOPT_SOCKETFUNCTION, group_on_socket);
	curl_multi_setopt(group->multi, CURLMOPT_SOCKETDATA, group);
	curl_multi_setopt(group->multi, CURLMOPT_TIMERFUNCTION, group_on_timer);
	curl_multi_setopt(group->multi, CURLMOPT_TIMERDATA, group);
	return group;
}

/* http_group_leave: a client is gone, and with the last one the group. */
void
http_group_leave(HttpGroup *group)
{
	if (group == NULL || --group->nclients > 0)
		return;
	http_enter();
	curl_multi_cleanup(group->multi);
	http_leave();
	if (group->line)
		wait_channel_close(group->line);
	free(group);
}

/* Notes which requests have ended. */
static void
group_note_ended(HttpGroup *group)
{
	CURLMsg *message;
	int		 left;

	while ((message = curl_multi_info_read(group->multi, &left)) != NULL)
	{
		HttpClient *client = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &client);
		client->result = message->data.result;
		client->ended = true;
		client->ended_at = GetCurrentTimestamp();
	}
}

void
http_group_act(HttpGroup *group, curl_socket_t fd, int what)
{
	int running;

	http_enter();
	curl_multi_socket_action(group->multi, fd, what, &running);
	group_note_ended(group);
	http_leave();
}

/* Is one socket waited for, of which we hear when it is closed, and that in one direction? */
static bool
group_waits_for_one(const HttpGroup *group)
{
	int what = group->sockets[0].what;

	if (group->nsockets != 1 || (what != CURL_POLL_IN && what != CURL_POLL_OUT))
		return false;
	for (int i = 0; i < group->nown; i++)
		if (group->own[i] == group->sockets[0].fd)
			return true;
	return false;
}

static int64
group_waited_us(const instr_time *since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *since);
	return INSTR_TIME_GET_MICROSEC(now);
}

static void
group_wait_for_one(HttpGroup *group, long timeout_ms)
{
	curl_socket_t fd = group->sockets[0].fd;
	bool		  write = group->sockets[0].what == CURL_POLL_OUT;
	instr_time	  since;
	bool		  ready;

	if (group->line && group->line_fd != fd)
	{
		WaitChannel *old = group->line;

		group->line = NULL;
		wait_channel_close(old);
	}
	if (group->line == NULL)
	{
		group->line = wait_channel_open(fd);
		group->line_fd = fd;
	}
	INSTR_TIME_SET_CURRENT(since);
	do
		ready = wait_channel(group->line, write, group->is_near ? 0 : timeout_ms, WAIT_HTTP);
	while (!ready && group->is_near && timeout_ms > 0 && group_waited_us(&since) < GROUP_NEAR_US);
	if (!ready && group->is_near)
		ready = wait_channel(group->line, write, timeout_ms, WAIT_HTTP);
	group->is_near = ready && group_waited_us(&since) < GROUP_NEAR_US;
	if (ready)
		http_group_act(group, fd, write ? CURL_CSELECT_OUT : CURL_CSELECT_IN);
}

static void
group_wait_for_all(HttpGroup *group, long timeout_ms)
{
	WaitSocket sockets[WAIT_MAX_SOCKETS];
	int		   n = group->nsockets;
	int		   ready;

	for (int i = 0; i < n; i++)
	{
		sockets[i].fd = group->sockets[i].fd;
		sockets[i].read = (group->sockets[i].what & CURL_POLL_IN) != 0;
		sockets[i].write = (group->sockets[i].what & CURL_POLL_OUT) != 0;
	}
	ready = wait_sockets(sockets, n, timeout_ms, WAIT_HTTP);
	for (int i = 0; i < n && ready > 0; i++)
	{
		/* An earlier action may have closed the socket. */
		for (int k = 0; k < group->nsockets; k++)
		{
			if (group->sockets[k].fd == sockets[i].fd &&
				(sockets[i].can_read || sockets[i].can_write))
			{
				http_group_act(group, sockets[i].fd,
							   (sockets[i].can_read ? CURL_CSELECT_IN : 0) |
								   (sockets[i].can_write ? CURL_CSELECT_OUT : 0));
				break;
			}
		}
	}
}

/* http_group_wait waits until something happens, at most so long, and has libcurl act on it. */
void
http_group_wait(HttpGroup *group, long timeout_ms)
{
	if (group->too_many_sockets)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many concurrent connections for one upstream")));
	if (group->deadline != 0)
		timeout_ms = Min(timeout_ms,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), group->deadline));
	timeout_ms = Max(timeout_ms, 0);
	CHECK_FOR_INTERRUPTS();
	if (group_waits_for_one(group))
		group_wait_for_one(group, timeout_ms);
	else
		group_wait_for_all(group, timeout_ms);
	if (group->deadline != 0 && group->deadline <= GetCurrentTimestamp())
	{
		group->deadline = 0;
		http_group_act(group, CURL_SOCKET_TIMEOUT, 0);
	}
}

/*
 * Requests before their turn
 */

/* http_await waits for an answer, at most so long, and says whether it is there. */
bool
http_await(HttpClient *client, long timeout_ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	while (!client->ended)
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			return false;
		http_group_wait(client->group, left);
	}
	return true;
}

/* http_has_ended: is there an answer, or none to come? */
bool
http_has_ended(const HttpClient *client)
{
	return client->underway && client->ended;
}

/*
 * http_turn: the turn of the request has come, and what came before it is not
 * needed any more.  Its answer now counts like any page.
 */
void
http_turn(HttpClient *client)
{
	http_ahead_end(client->group, &client->buffers[client->current]);
	http_trim_buffer(client, &client->buffers[1 - client->current]);
	client->waited_for = true;
}

/* http_tidy: no answer that http_finish gave is needed any more; large buffers are given back. */
void
http_tidy(HttpClient *client)
{
	for (int i = 0; i < lengthof(client->buffers); i++)
		if (!client->underway || i != client->current)
			http_trim_buffer(client, &client->buffers[i]);
}

/* http_ahead_grow: may a buffer grow before its turn?  It is called from a callback. */
bool
http_ahead_grow(HttpGroup *group, size_t extra)
{
	if (extra > group->ahead_limit || group->ahead_bytes > group->ahead_limit - extra)
		return false;
	group->ahead_bytes += extra;
	return true;
}

/* http_ahead_begin: a buffer is counted by the group from now on. */
void
http_ahead_begin(HttpGroup *group, HttpBuffer *b)
{
	group->ahead_limit = (size_t) flohsync_page_memory * 1024 / 2;
	if (b->ahead)
		return;
	memory_outside(-(int64) b->size);
	group->ahead_bytes += b->size;
	b->ahead = true;
}

/* http_ahead_end: a buffer counts as that of a page. */
void
http_ahead_end(HttpGroup *group, HttpBuffer *b)
{
	if (!b->ahead)
		return;
	memory_outside((int64) b->size);
	group->ahead_bytes -= b->size;
	b->ahead = false;
}
