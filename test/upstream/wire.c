/*
 * wire.c
 *	  Faults in how an answer is sent: connections cut or reset, answers that
 *	  hang, drip or never end.
 *
 * libmicrohttpd sends no such thing, so the connection is suspended and a
 * thread writes to its socket; when it is done, libmicrohttpd closes it.  The
 * same suspending serves requests that wait for something.
 */
#include "data.h"
#include "faults.h"
#include "journal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLICE_MS 10 /* how soon a release, or a client that has gone, is noticed */
#define NO_STOP	 SIZE_MAX
#define FILLER	 16384

/* What to send, and how. */
typedef struct plan
{
	int		  fd;
	unsigned  released; /* releases when it was made */
	bool	  gone;		/* the client is no longer there */
	buf		  head;		/* status line and headers */
	buf		  body;		/* framed as it is to be sent */
	bool	  deliver;	/* only a delay: libmicrohttpd sends the answer */
	bool	  delay;
	long long delay_ms; /* before anything is sent; below 0: until released */
	size_t	  stop_at;	/* send so many bytes of the body, and end */
	size_t	  hang_at;	/* stop there for a while, and go on */
	long long hang_ms;
	long	  rate;		   /* bytes per second, 0: as fast as it goes */
	bool	  no_head;	   /* send no status line */
	long long head_filler; /* bytes of headers without an end, below 0: for ever */
	bool	  one_header;  /* ... as one */
	long long body_filler; /* the same after the body */
	bool	  chunked;
	bool	  reset; /* end with RST */
} plan;

typedef struct hold
{
	call *call;
	bool (*work)(void *closure);
	void *closure;
} hold;

static atomic_uint releases = 0;

/* Let go whatever is being held. */
void
wire_release(void)
{
	atomic_fetch_add(&releases, 1);
}

static void *
hold_main(void *arg)
{
	hold h = *(hold *) arg;

	free(arg);
	h.call->stage = h.work(h.closure) ? CALL_DELIVER : CALL_CLOSE;
	MHD_resume_connection(h.call->connection);
	return NULL;
}

/*
 * Suspend the connection while work runs in a thread.  When that returns true
 * the call's answer is sent, when false the connection is closed.
 */
enum MHD_Result
wire_hold_for(call *c, bool (*work)(void *closure), void *closure)
{
	hold		  *h = must_alloc(sizeof(hold));
	pthread_attr_t attributes;
	pthread_t	   thread;
	int			   failed;

	*h = (hold){.call = c, .work = work, .closure = closure};
	MHD_suspend_connection(c->connection);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256 * 1024);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	failed = pthread_create(&thread, &attributes, hold_main, h);
	pthread_attr_destroy(&attributes);
	if (failed)
		abort();
	return MHD_YES;
}

static bool
is_released(const plan *p)
{
	return atomic_load(&releases) != p->released;
}

/* Do nothing for a while, or until a release; notices a client that goes. */
static void
rest(plan *p, long long ms)
{
	struct pollfd f = {.fd = p->fd, .events = POLLRDHUP};
	long long	  left = ms;

	while (!p->gone && !is_released(p) && (ms < 0 || left > 0))
	{
		int slice = ms >= 0 && left < SLICE_MS ? (int) left : SLICE_MS;

		if (poll(&f, 1, slice) > 0 && f.revents != 0)
			p->gone = true;
		left -= slice;
	}
}

/* The same for what counts as hanging. */
static void
hang(plan *p, long long ms)
{
	journal_hanging(1);
	rest(p, ms);
	journal_hanging(-1);
}

static void
send_now(plan *p, const char *data, size_t n)
{
	while (n > 0 && !p->gone)
	{
		ssize_t sent = send(p->fd, data, n, MSG_NOSIGNAL);

		if (sent >= 0)
		{
			data += sent;
			n -= (size_t) sent;
		}
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			struct pollfd f = {.fd = p->fd, .events = POLLOUT};

			if (poll(&f, 1, 1000) > 0 && (f.revents & (POLLERR | POLLHUP)))
				p->gone = true;
		}
		else if (errno != EINTR)
			p->gone = true;
	}
}

/* Send at the plan's rate; a release ends the patience. */
static void
send_bytes(plan *p, const char *data, size_t n)
{
	while (n > 0 && !p->gone)
	{
		size_t piece = n;

		if (p->rate > 0 && !is_released(p))
		{
			piece = p->rate >= 20 ? (size_t) p->rate / 20 : 1;
			if (piece > n)
				piece = n;
		}
		send_now(p, data, piece);
		data += piece;
		n -= piece;
		if (n > 0 && p->rate > 0)
			rest(p, (long long) piece * 1000 / p->rate);
	}
}

static void
send_head_filler(plan *p)
{
	buf		  lines = {0};
	long long left = p->head_filler;

	if (p->one_header)
		send_now(p, "X-Flood: ", 9);
	while (lines.n < FILLER)
	{
		if (p->one_header)
			buf_lit(&lines, "flood flood flood flood ");
		else
			buf_lit(&lines, "X-Flood: no client should want to keep all of these headers\r\n");
	}
	while (!p->gone && left != 0 && !is_released(p))
	{
		send_now(p, lines.p, lines.n);
		if (left > 0)
			left = left > (long long) lines.n ? left - (long long) lines.n : 0;
	}
	if (p->one_header)
		send_now(p, "\r\n", 2);
	buf_free(&lines);
}

static void
send_body_filler(plan *p)
{
	buf		  piece = {0};
	long long left = p->body_filler;

	if (p->chunked)
		buf_printf(&piece, "%x\r\n", FILLER);
	buf_fill(&piece, ' ', FILLER);
	if (p->chunked)
		buf_lit(&piece, "\r\n");
	while (!p->gone && left != 0 && !is_released(p))
	{
		send_now(p, piece.p, piece.n);
		if (left > 0)
			left = left > FILLER ? left - FILLER : 0;
	}
	buf_free(&piece);
}

/* End the connection so that the client sees ECONNRESET, after what was sent has arrived. */
static void
send_reset(plan *p)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int				unsent = 0;

	for (int i = 0; i < 200 && ioctl(p->fd, SIOCOUTQ, &unsent) == 0 && unsent > 0; i++)
		rest(p, SLICE_MS);
	connect(p->fd, &none, sizeof(none));
}

static bool
run_plan(void *closure)
{
	plan  *p = closure;
	bool   deliver = p->deliver;
	size_t end;

	if (p->delay)
		hang(p, p->delay_ms);
	if (!deliver)
	{
		end = p->stop_at < p->body.n ? p->stop_at : p->body.n;
		if (!p->no_head)
		{
			send_bytes(p, p->head.p, p->head.n);
			if (p->head_filler != 0)
				send_head_filler(p);
			send_bytes(p, "\r\n", 2);
		}
		if (p->hang_at < end)
		{
			send_bytes(p, p->body.p, p->hang_at);
			if (!p->gone)
				hang(p, p->hang_ms);
			send_bytes(p, p->body.p + p->hang_at, end - p->hang_at);
		}
		else
			send_bytes(p, p->body.p, end);
		if (p->body_filler != 0)
			send_body_filler(p);
		if (p->reset)
			send_reset(p);
	}
	close(p->fd);
	buf_free(&p->head);
	buf_free(&p->body);
	free(p);
	return deliver;
}

static void
make_chunks(buf *out, const buf *body, size_t size)
{
	for (size_t at = 0; at < body->n; at += size)
	{
		size_t n = body->n - at < size ? body->n - at : size;

		buf_printf(out, "%zx\r\n", n);
		buf_put(out, body->p + at, n);
		buf_lit(out, "\r\n");
	}
}

/* Take over a fault; true if the answer cannot be left to libmicrohttpd. */
static bool
add_to_plan(plan *p, const fault *f, const buf *body, size_t *chunk)
{
	const char *kind = f->kind->name;
	long long	bytes = fault_int(f, "bytes", (long long) body->n / 2);
	size_t		part = bytes > 0 ? (size_t) bytes : 0;

	if (strcmp(kind, "hang") == 0)
	{
		p->delay = true;
		p->delay_ms = fault_int(f, "ms", -1);
		if (fault_int(f, "upto", 0) > 0)
		{
			static uint64_t chance = 0;

			chance = mix(chance + data_seed);
			p->delay_ms = (long long) (chance % (uint64_t) fault_int(f, "upto", 0));
		}
		return false;
	}
	if (strcmp(kind, "no_answer") == 0)
	{
		p->no_head = true;
		p->stop_at = 0;
	}
	else if (strcmp(kind, "reset") == 0)
	{
		p->reset = true;
		p->no_head = bytes < 0;
		p->stop_at = part;
	}
	else if (strcmp(kind, "short_body") == 0)
		p->stop_at = part;
	else if (strcmp(kind, "chunk_cut") == 0)
	{
		p->chunked = true;
		p->stop_at = part;
	}
	else if (strcmp(kind, "chunked") == 0)
	{
		p->chunked = true;
		*chunk = (size_t) fault_int(f, "size", 1000);
	}
	else if (strcmp(kind, "hang_body") == 0)
	{
		p->hang_at = part;
		p->hang_ms = fault_int(f, "ms", -1);
	}
	else if (strcmp(kind, "drip") == 0)
		p->rate = (long) fault_int(f, "rate", 1);
	else if (strcmp(kind, "endless_body") == 0)
	{
		p->body_filler = fault_int(f, "bytes", -1);
		p->chunked = fault_int(f, "length", 0) == 0;
	}
	else if (strcmp(kind, "header_flood") == 0)
	{
		p->head_filler = fault_int(f, "bytes", -1);
		p->one_header = fault_int(f, "one", 0) != 0;
	}
	else if (strcmp(kind, "raw") == 0)
	{
		p->no_head = true;
		p->chunked = false;
		p->body.n = 0;
		buf_put(&p->body, f->body.p ? f->body.p : "", f->body.n);
	}
	return true;
}

/* Headers that say how long the body is, and the body in that form. */
static void
frame(plan *p, const answer *a, size_t chunk)
{
	answer_head(&p->head, a);
	buf_lit(&p->head, "Connection: close\r\n");
	if (p->chunked)
	{
		buf_lit(&p->head, "Transfer-Encoding: chunked\r\n");
		if (a->body.n > 0)
			make_chunks(&p->body, &a->body, chunk > 0 ? chunk : a->body.n);
		if (p->body_filler == 0)
			buf_lit(&p->body, "0\r\n\r\n");
		return;
	}
	buf_printf(&p->head, "Content-Length: %llu\r\n",
			   p->body_filler != 0 ? 1ULL << 40 : (unsigned long long) a->body.n);
	buf_put(&p->body, a->body.p ? a->body.p : "", a->body.n);
}

/* Send the call's answer as the faults have it. */
enum MHD_Result
wire_send(const struck *s, call *c)
{
	plan   made = {.stop_at = NO_STOP, .hang_at = NO_STOP};
	plan  *p;
	bool   wire = false;
	bool   mine = false;
	size_t chunk = 0;

	for (int i = 0; i < s->n; i++)
		if (s->fault[i]->kind->stage == STRIKE_WIRE)
		{
			wire = true;
			mine |= add_to_plan(&made, s->fault[i], &c->answer.body, &chunk);
		}
	if (!wire)
		return answer_send(c);

	made.deliver = !mine;
	made.released = atomic_load(&releases);
	made.fd = dup(
		MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
	if (made.fd < 0)
		return MHD_NO;
	if (mine && made.body.p == NULL && !(made.no_head && made.stop_at == 0))
		frame(&made, &c->answer, chunk);
	p = must_alloc(sizeof(plan));
	*p = made;
	return wire_hold_for(c, run_plan, p);
}
