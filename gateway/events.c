/*
 * events.c
 *	  GET /api/events: what runs do, as it happens (server-sent events).
 *
 * While there are clients, the database is asked once a second, for all of them,
 * what runs are going on and which have ended.
 *
 * - event run: progress of a run, when it has changed; at most once a second.
 * - event run-end: a run has ended.  Its id is when it ended, with the number of the
 *	 run, and Last-Event-ID is answered with all that ended later, from the database, so
 *	 that another server behind the same load balancer can go on.
 * - event match-stats: behind a run-end of a configuration that matches users.
 *
 * A stream ends within a second when its token has expired or was revoked, and when keys or
 * settings were read again: the client comes back, and its token is looked at.
 *
 * Runs can end in another order than their transactions are committed.  So a run-end is
 * told a moment late (SETTLE_US), in the order of ids, and each time a while before
 * is looked at, too (in the statement), for those that took longer.
 */
#include "events.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "config.h"
#include "json_text.h"
#include "log.h"
#include "loop.h"
#include "request.h"
#include "server.h"

#define POLL_MS			 1000
#define BEAT_MS			 15000
#define SETTLE_US		 300000
#define CLIENT_LIMIT	 (1024 * 1024) /* bytes that a client has not taken */
#define RECENT			 1024
#define PROGRESS		 256
#define AT_ONCE			 1000
#define STATEMENT_EVENTS 121
#define STATEMENT_MISSED 122

/* When a run ended, in microseconds since 1970, and its number. */
typedef struct EndId
{
	long long at;
	long long run;
} EndId;

/* A run-end that was told, with what follows it. */
typedef struct Ended
{
	EndId id;
	char *text;
} Ended;

typedef struct Client
{
	struct Client		  *next;
	struct MHD_Connection *connection;
	Conn				  *conn;
	Buf					   out;
	size_t				   sent;
	bool				   suspended;
	bool				   ending;
	bool				   catching_up;
	EndId				   after;
	long long			   from; /* number of the first recent run-end that it has not seen */
	char				   after_text[40];
	const char			  *values[2];
	DbTask				   task;
	bool				   asking;
	bool				   gone;
	Identity			  *who;
} Client;

static Client	*clients;
static int		 count;
static Timer	 poll_timer;
static Timer	 beat_timer;
static DbTask	 task;
static bool		 polling;
static bool		 stopping;
static char		 watermark[64];
static Ended	 recent[RECENT];
static long long told; /* run-ends, ever */
static struct
{
	long long run;
	char	 *text;
	bool	  seen;
} progress[PROGRESS];

static const char *poll_values[1];

static const DbStatement events_statement = {
	"SELECT flohsync_api.events(since => coalesce($1::timestamptz, pg_catalog.now()) - interval '10 seconds')::text, "
	"(extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8",
	STATEMENT_EVENTS, 1};
static const DbStatement missed_statement = {
	"SELECT flohsync_api.events(since => 'epoch'::timestamptz + $1::int8 * interval '1 microsecond' - "
	"interval '1 microsecond', max => $2::int4)::text",
	STATEMENT_MISSED, 2};

static int
compare(EndId a, EndId b)
{
	if (a.at != b.at)
		return a.at < b.at ? -1 : 1;
	return a.run < b.run ? -1 : a.run > b.run;
}

/* "1790000000000000-42" */
static bool
read_id(const char *text, EndId *id)
{
	char *end;

	if (text == NULL || strlen(text) > 38 || strspn(text, "0123456789-") != strlen(text) ||
		text[0] == '-')
		return false;
	id->at = strtoll(text, &end, 10);
	if (*end != '-' || end[1] == '\0' || end[1] == '-')
		return false;
	id->run = strtoll(end + 1, &end, 10);
	return *end == '\0' && id->at > 0;
}

static void
client_free(Client *c)
{
	identity_drop(c->who);
	buf_free(&c->out);
	free(c);
}

static void
client_wake(Client *c)
{
	if (!c->suspended)
		return;
	c->suspended = false;
	MHD_resume_connection(c->connection);
}

static void
client_end(Client *c)
{
	c->ending = true;
	client_wake(c);
}

static void
client_add(Client *c, const char *text)
{
	if (c->gone || c->ending)
		return;
	if (c->out.n - c->sent > CLIENT_LIMIT)
	{
		/* It comes back, with the id of the last event that it got. */
		c->ending = true;
		c->out.n = c->sent = 0;
		shutdown(c->conn->fd, SHUT_RDWR);
		client_wake(c);
		return;
	}
	buf_text(&c->out, text);
	client_wake(c);
}

static ssize_t
client_read(void *arg, uint64_t position, char *to, size_t most)
{
	Client *c = arg;
	size_t	n = c->out.n - c->sent;

	(void) position;
	if (n == 0 && c->ending)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (n == 0)
	{
		c->suspended = true;
		MHD_suspend_connection(c->connection);
		return 0;
	}
	if (n > most)
		n = most;
	memcpy(to, c->out.p + c->sent, n);
	c->sent += n;
	if (c->sent == c->out.n)
	{
		if (c->out.size > 65536)
			buf_free(&c->out);
		c->out.n = c->sent = 0;
	}
	return (ssize_t) n;
}

static void
client_gone(void *arg)
{
	Client *c = arg;

	for (Client **p = &clients; *p != NULL; p = &(*p)->next)
	{
		if (*p == c)
		{
			*p = c->next;
			break;
		}
	}
	count--;
	c->gone = true;
	if (!c->asking)
		client_free(c);
}

static char *
event_text(const char *name, const char *id, const char *data, size_t n)
{
	Buf b = {0};

	if (id != NULL)
		buf_printf(&b, "id: %s\n", id);
	buf_printf(&b, "event: %s\ndata: ", name);
	buf_add(&b, data, n);
	buf_text(&b, "\n\n");
	return buf_take(&b);
}

/* A run-end and the match-stats behind it, from one of "ended". */
static char *
ended_text(const JsonParser *json, uint32_t node, EndId *id)
{
	char	*id_text = json_text_member(json, node, "id");
	uint32_t run = json_member(json, node, "run", 3);
	uint32_t stats = json_member(json, node, "matchStats", 10);
	Buf		 b = {0};

	if (!read_id(id_text, id) || run == 0)
	{
		free(id_text);
		return NULL;
	}
	{
		char *text = event_text("run-end", id_text, json->text + json->nodes[run].start,
								json->nodes[run].end - json->nodes[run].start);

		buf_text(&b, text);
		free(text);
	}
	if (stats != 0 && json->nodes[stats].type == JSON_OBJECT)
	{
		char *text = event_text("match-stats", NULL, json->text + json->nodes[stats].start,
								json->nodes[stats].end - json->nodes[stats].start);

		buf_text(&b, text);
		free(text);
	}
	free(id_text);
	return buf_take(&b);
}

static bool
was_told(EndId id)
{
	for (int i = 0; i < RECENT; i++)
	{
		if (recent[i].text != NULL && compare(recent[i].id, id) == 0)
			return true;
	}
	return false;
}

static void
remember_end(EndId id, char *text)
{
	Ended *e = &recent[told % RECENT];

	free(e->text);
	*e = (Ended){id, text};
	told++;
}

static void
tell_end(EndId id, char *text)
{
	remember_end(id, text);
	for (Client *c = clients; c != NULL; c = c->next)
	{
		if (c->catching_up)
			continue;
		c->from = told;
		client_add(c, text);
	}
}

static void
tell_progress(const JsonParser *json, uint32_t node)
{
	const JsonNode *v = &json->nodes[node];
	long long		run;
	int				slot = -1;
	char		   *text;

	if (v->type != JSON_OBJECT || !json_number_member(json, node, "runId", &run))
		return;
	for (int i = 0; i < PROGRESS; i++)
	{
		if (progress[i].run == run)
			slot = i;
		else if (progress[i].run == 0 && slot < 0)
			slot = i;
	}
	if (slot < 0)
		return;
	progress[slot].run = run;
	progress[slot].seen = true;
	text = event_text("run", NULL, json->text + v->start, v->end - v->start);
	if (progress[slot].text != NULL && strcmp(progress[slot].text, text) == 0)
	{
		free(text);
		return;
	}
	free(progress[slot].text);
	progress[slot].text = text;
	for (Client *c = clients; c != NULL; c = c->next)
		client_add(c, text);
}

static void
tell_all_progress(const JsonParser *json, uint32_t runs)
{
	for (int i = 0; i < PROGRESS; i++)
		progress[i].seen = false;
	for (uint32_t i = runs != 0 ? json->nodes[runs].child : 0; i != 0; i = json->nodes[i].next)
		tell_progress(json, i);
	for (int i = 0; i < PROGRESS; i++)
	{
		if (progress[i].run != 0 && !progress[i].seen)
		{
			free(progress[i].text);
			progress[i].text = NULL;
			progress[i].run = 0;
		}
	}
}

static void
polled(void *arg, const DbResult *result)
{
	const JsonParser *json;
	uint32_t		  ended;
	char			 *at;
	long long		  now;

	bool first = watermark[0] == '\0';

	(void) arg;
	polling = false;
	if (result->verdict != DB_OK)
	{
		if (result->verdict == DB_ERROR)
			log_message(LOG_WARNING, "could not read what runs do: %s", result->message);
		return;
	}
	json = json_read(PQgetvalue(result->row, 0, 0), PQgetlength(result->row, 0, 0));
	if (json == NULL || json->nodes[JSON_ROOT].type != JSON_OBJECT)
		return;
	at = json_text_member(json, JSON_ROOT, "at");
	now = strtoll(PQgetvalue(result->row, 0, 1), NULL, 10);
	tell_all_progress(json, json_member(json, JSON_ROOT, "runs", 4));
	ended = json_member(json, JSON_ROOT, "ended", 5);
	for (uint32_t i = ended != 0 ? json->nodes[ended].child : 0; i != 0; i = json->nodes[i].next)
	{
		EndId id;
		char *text = ended_text(json, i, &id);

		if (text == NULL || was_told(id) || id.at > now - SETTLE_US)
			free(text);
		/* What ended before anybody was here is for those who ask for it. */
		else if (first)
			remember_end(id, text);
		else
			tell_end(id, text);
	}
	if (at != NULL)
		snprintf(watermark, sizeof(watermark), "%s", at);
	free(at);
}

static void
poll_now(void)
{
	if (polling || stopping || count == 0)
		return;
	polling = true;
	poll_values[0] = watermark[0] != '\0' ? watermark : NULL;
	task = (DbTask){
		.mode = DB_READ, .statement = &events_statement, .values = poll_values, .done = polled};
	db_run(&task);
}

static void
poll_timed(void *arg)
{
	(void) arg;
	for (Client *c = clients; c != NULL; c = c->next)
	{
		if (!identity_valid(c->who))
			client_end(c);
	}
	if (count == 0)
		watermark[0] = '\0';
	poll_now();
}

static void
beat(void *arg)
{
	(void) arg;
	for (Client *c = clients; c != NULL; c = c->next)
	{
		/* An API token that is remembered no longer; the check above has the others. */
		if (c->who->expires <= time(NULL))
			client_end(c);
		else
			client_add(c, ": still here\n\n");
	}
}

static void ask_missed(Client *c);

/* What was told to others meanwhile, and is behind what the client has. */
static void
join(Client *c)
{
	c->catching_up = false;
	for (long long i = c->from > told - RECENT ? c->from : told - RECENT; i < told; i++)
	{
		const Ended *e = &recent[i % RECENT];

		if (i >= 0 && e->text != NULL && compare(e->id, c->after) > 0)
			client_add(c, e->text);
	}
	c->from = told;
}

static void
missed(void *arg, const DbResult *result)
{
	Client			 *c = arg;
	const JsonParser *json = NULL;
	uint32_t		  ended = 0;
	int				  n = 0;

	c->asking = false;
	if (c->gone)
	{
		client_free(c);
		return;
	}
	if (result->verdict == DB_OK)
		json = json_read(PQgetvalue(result->row, 0, 0), PQgetlength(result->row, 0, 0));
	if (json == NULL || json->nodes[JSON_ROOT].type != JSON_OBJECT)
	{
		/* It comes again. */
		client_end(c);
		return;
	}
	ended = json_member(json, JSON_ROOT, "ended", 5);
	for (uint32_t i = ended != 0 ? json->nodes[ended].child : 0; i != 0; i = json->nodes[i].next)
	{
		EndId id;
		char *text = ended_text(json, i, &id);

		n++;
		if (text != NULL && compare(id, c->after) > 0)
		{
			client_add(c, text);
			c->after = id;
		}
		free(text);
	}
	if (n >= AT_ONCE && !c->ending)
		ask_missed(c);
	else
		join(c);
}

static void
ask_missed(Client *c)
{
	static char most[16];

	snprintf(most, sizeof(most), "%d", AT_ONCE);
	snprintf(c->after_text, sizeof(c->after_text), "%lld", c->after.at);
	c->values[0] = c->after_text;
	c->values[1] = most;
	c->asking = true;
	c->task = (DbTask){.mode = DB_READ,
					   .statement = &missed_statement,
					   .values = c->values,
					   .done = missed,
					   .arg = c};
	db_run(&c->task);
}

void
events_run(Request *r)
{
	Client				*c;
	struct MHD_Response *response;

	if (count >= config->event_clients)
	{
		answer_error(&r->answer, 503, FLS_NO_DATABASE, "there are too many clients of events", NULL,
					 NULL);
		answer_header(&r->answer, "Retry-After", "30");
		request_answered(r);
		return;
	}
	c = must_alloc(sizeof(Client));
	c->connection = r->connection;
	c->conn = r->conn;
	c->who = r->who;
	identity_keep(c->who);
	c->next = clients;
	c->from = told;
	clients = c;
	count++;
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, client_read, c,
												 client_gone);
	if (response == NULL)
	{
		client_gone(c);
		answer_error(&r->answer, 500, FLS_INTERNAL, "out of memory", NULL, NULL);
		request_answered(r);
		return;
	}
	MHD_add_response_header(response, "Content-Type", "text/event-stream");
	MHD_add_response_header(response, "X-Accel-Buffering", "no");
	r->answer.stream = response;
	r->answer.status = 200;
	conn_state(r->conn, CONN_STREAM, 0);
	buf_text(&c->out, "retry: 2000\n: welcome\n\n");
	if (read_id(request_header(r, "Last-Event-ID"), &c->after))
	{
		c->catching_up = true;
		ask_missed(c);
	}
	request_answered(r);
	poll_now();
}

void
events_start(void)
{
	loop_every(&poll_timer, POLL_MS, poll_timed, NULL);
	loop_every(&beat_timer, BEAT_MS, beat, NULL);
}

/* An API token may have been revoked: its clients come back, and are looked at. */
void
events_forget_tokens(void)
{
	for (Client *c = clients; c != NULL; c = c->next)
	{
		if (c->who->api_token)
			client_end(c);
	}
}

void
events_stop(void)
{
	stopping = true;
	for (Client *c = clients; c != NULL; c = c->next)
		client_end(c);
}

int
events_clients(void)
{
	return count;
}
