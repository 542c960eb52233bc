/*
 * trigger.c
 *	  Triggers that wait for the end of their run.
 *
 * One that waits is an entry here and a suspended connection of its client: neither
 * a thread nor a connection to the database.  The database notifies of each run that
 * ends, on one connection for all; then, and when the wait begins, since the run
 * may have been faster, it is asked what came of it.  Should a notification be lost
 * with its connection, it is asked every so often, too.
 */
#include "trigger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "cors.h"
#include "json_text.h"
#include "loop.h"
#include "request.h"
#include "server.h"

#define LOOK_MS			 10000
#define LOOK_UNHEARD_MS	 1000
#define STATEMENT_RESULT 120

typedef struct Waiter
{
	struct Waiter *next;
	Request		  *r;
	long long	   run;
	char		   run_text[24];
	int64_t		   until;
	int64_t		   looked;
	bool		   looking;
	bool		   again; /* it was notified meanwhile */
	const char	  *values[2];
	DbTask		   task;
} Waiter;

static Waiter *waiters;
static int	   count;
static Timer   timer;

static const DbStatement result_statement = {
	"SELECT flohsync_api.trigger_result(connector => $1::text, run_id => $2::int8)::text, "
	"pg_catalog.current_setting('response.status', true), "
	"pg_catalog.current_setting('response.headers', true)",
	STATEMENT_RESULT, 2};

static void
forget(Waiter *w)
{
	for (Waiter **p = &waiters; *p != NULL; p = &(*p)->next)
	{
		if (*p == w)
		{
			*p = w->next;
			break;
		}
	}
	count--;
	free(w);
}

/* It takes too long: where to ask is what the client gets. */
static void
give_up(Waiter *w)
{
	Request *r = w->r;

	r->answer.status = 202;
	r->answer.body.n = 0;
	buf_printf(&r->answer.body, "{\"runId\":%lld}", w->run);
	forget(w);
	request_answered(r);
}

static void look(Waiter *w);

static void
looked(void *arg, const DbResult *result)
{
	Waiter	*w = arg;
	Request *r;
	Answer	 a = {0};

	w->looking = false;
	w->looked = loop_now();
	if (result->verdict == DB_OK)
		answer_row(&a, result->row, 200);
	else
		answer_db_error(&a, result);
	/* A database that is away for a moment has its run all the same. */
	if (a.status == 202 || a.status == 503)
	{
		answer_free(&a);
		if (server_stopping())
			give_up(w);
		else if (w->again)
			look(w);
		return;
	}
	r = w->r;
	answer_free(&r->answer);
	r->answer = a;
	cors_headers(r);
	forget(w);
	request_answered(r);
}

static void
look(Waiter *w)
{
	w->looking = true;
	w->again = false;
	w->values[0] = w->r->owned[0];
	w->values[1] = w->run_text;
	w->task = (DbTask){
		/* On a standby the run might go on a little longer. */
		.mode = DB_WRITE,
		.statement = &result_statement,
		.values = w->values,
		.role = w->r->who->role,
		.claims = w->r->who->claims,
		.headers = w->r->headers,
		.done = looked,
		.arg = w,
	};
	db_run(&w->task);
}

static void
triggered(void *arg, const DbResult *result)
{
	Request	   *r = arg;
	const char *wait = NULL;
	long long	run = 0;
	Waiter	   *w;

	if (result->verdict != DB_OK)
	{
		request_called(r, result);
		return;
	}
	answer_row(&r->answer, result->row, r->route->status);
	for (int i = 0; i < ROUTE_PARAMS && r->route->param[i].name != NULL; i++)
	{
		if (strcmp(r->route->param[i].name, "wait") == 0)
			wait = r->owned[i] != NULL ? r->owned[i] : r->route->param[i].initial;
	}
	if (r->answer.status == 202 && strcmp(wait, "true") == 0)
	{
		const JsonParser *json = json_read(r->answer.body.p, r->answer.body.n);

		if (json == NULL || json->nodes[JSON_ROOT].type != JSON_OBJECT ||
			!json_number_member(json, JSON_ROOT, "runId", &run))
			run = 0;
	}
	if (run == 0)
	{
		request_answered(r);
		return;
	}
	w = must_alloc(sizeof(Waiter));
	w->r = r;
	w->run = run;
	snprintf(w->run_text, sizeof(w->run_text), "%lld", run);
	w->until = loop_now() + config->wait_timeout * 1000;
	w->next = waiters;
	waiters = w;
	count++;
	look(w);
}

void
trigger_run(Request *r)
{
	request_call(r, triggered);
}

void
trigger_notified(long long run)
{
	for (Waiter *w = waiters, *next; w != NULL; w = next)
	{
		next = w->next;
		if (run != 0 && w->run != run)
			continue;
		if (w->looking)
			w->again = true;
		else
			look(w);
	}
}

void
trigger_look_at_all(void)
{
	trigger_notified(0);
}

static void
check_all(void *arg)
{
	(void) arg;
	for (Waiter *w = waiters, *next; w != NULL; w = next)
	{
		next = w->next;
		if (w->looking)
			continue;
		if (w->until <= loop_now())
			give_up(w);
		else if (loop_now() - w->looked >= (db_listening() ? LOOK_MS : LOOK_UNHEARD_MS))
			look(w);
	}
}

void
trigger_start(void)
{
	loop_every(&timer, 1000, check_all, NULL);
}

void
trigger_stop(void)
{
	for (Waiter *w = waiters, *next; w != NULL; w = next)
	{
		next = w->next;
		if (!w->looking)
			give_up(w);
	}
}

int
triggers_waiting(void)
{
	return count;
}
