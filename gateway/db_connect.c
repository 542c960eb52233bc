/*
 * db_connect.c
 *	  Connections are made in a thread of their own: looking up names and logging
 *	  in can take seconds, in which others are served.
 *
 * A connection is used by one thread at a time: by this one until it is handed
 * over, then by the loop.
 */
#include "db_connect.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "buf.h"
#include "config.h"
#include "log.h"

static pthread_t	   thread;
static bool			   started;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  wanted = PTHREAD_COND_INITIALIZER;
static ConnectJob	  *asked;
static ConnectJob	  *done;
static bool			   stopping;
static int			   done_fd = -1;

bool
connect_several_hosts(void)
{
	PQconninfoOption *options = PQconninfoParse(config->db, NULL);
	bool			  several = false;

	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		if ((strcmp(o->keyword, "host") == 0 || strcmp(o->keyword, "hostaddr") == 0) &&
			o->val != NULL && strchr(o->val, ',') != NULL)
			several = true;
	}
	PQconninfoFree(options);
	return several;
}

static const char *
session_attributes(ConnectFor purpose)
{
	if (!connect_several_hosts())
		return "any";
	if (purpose != CONNECT_READ)
		return "read-write";
	return config->standby_reads ? "prefer-standby" : "any";
}

/* One line, without a newline at its end: it goes to the log. */
static bool
job_fails(ConnectJob *job, PGconn *conn, const char *problem)
{
	size_t n;

	snprintf(job->problem, sizeof(job->problem), "%s", problem);
	n = strlen(job->problem);
	while (n > 0 && job->problem[n - 1] == '\n')
		job->problem[--n] = '\0';
	PQfinish(conn);
	return false;
}

static bool
run(ConnectJob *job, PGconn *conn, const char *sql, PGresult **keep)
{
	PGresult	  *res = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(res);

	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
	{
		if (keep != NULL)
			*keep = res;
		else
			PQclear(res);
		return true;
	}
	PQclear(res);
	return job_fails(job, conn, PQerrorMessage(conn));
}

static bool
prepare(ConnectJob *job, PGconn *conn, const char *name, const char *sql)
{
	PGresult *res = PQprepare(conn, name, sql, 0, NULL);
	bool	  ok = PQresultStatus(res) == PGRES_COMMAND_OK;

	PQclear(res);
	return ok || job_fails(job, conn, PQerrorMessage(conn));
}

/*
 * What a request is entered with: the role comes last, as it may set less than ours.  A
 * number is asked for, so that the values do not come back.
 */
#define ENTER_REST \
	"pg_catalog.set_config('statement_timeout', $1, true), " \
	"pg_catalog.set_config('request.jwt.claims', $2, true), " \
	"pg_catalog.set_config('request.headers', $3, true), " \
	"pg_catalog.set_config('flohsync.acting_user', $4, true), " \
	"pg_catalog.set_config('role', $5, true))"

static bool
check_role(ConnectJob *job, PGconn *conn)
{
	PGresult *res;
	bool	  strong;

	if (!run(
			job, conn,
			"SELECT r.rolsuper OR r.rolbypassrls FROM pg_catalog.pg_roles r WHERE r.rolname = session_user",
			&res))
		return false;
	strong = PQntuples(res) != 1 || strcmp(PQgetvalue(res, 0, 0), "f") != 0;
	PQclear(res);
	if (strong)
	{
		job->refused = true;
		return job_fails(
			job, conn,
			"the user of setting db is a superuser, or bypasses row level security: use a role "
			"that was given to flohsync.grant_gateway()");
	}
	return true;
}

/* Secrets are parameters of statements, which a server that logs all statements would log with them. */
static bool
hide_parameters(ConnectJob *job, PGconn *conn)
{
	static atomic_bool told;
	PGresult		  *res;

	if (!run(job, conn,
			 "SELECT pg_catalog.set_config('log_parameter_max_length', '0', false) "
			 "WHERE pg_catalog.has_parameter_privilege('log_parameter_max_length', 'SET')",
			 &res))
		return false;
	if (PQntuples(res) == 0 && !atomic_exchange(&told, true))
		log_message(LOG_WARNING,
					"where the database logs statements, it logs secrets that are sent with them: "
					"as a superuser, call flohsync.grant_gateway() for the user of setting db");
	PQclear(res);
	return true;
}

void
connect_now(ConnectJob *job)
{
	const char *keywords[] = {"dbname",			 "fallback_application_name",
							  "connect_timeout", "target_session_attrs",
							  "client_encoding", "tcp_user_timeout",
							  "keepalives_idle", NULL};
	const char *values[] = {config->db, "flohsync-http", "5",  session_attributes(job->purpose),
							"UTF8",		"15000",		 "30", NULL};
	PGconn	   *conn = PQconnectdbParams(keywords, values, 1);

	job->conn = NULL;
	if (PQstatus(conn) != CONNECTION_OK)
	{
		job_fails(job, conn, PQerrorMessage(conn));
		return;
	}
	if (!check_role(job, conn))
		return;
	if (!run(
			job, conn,
			"SET search_path = pg_catalog, pg_temp; SET idle_in_transaction_session_timeout = '1min'; "
			"SET lock_timeout = '15s'; SET jit = off; SET log_parameter_max_length_on_error = 0",
			NULL))
		return;
	if (!hide_parameters(job, conn))
		return;
	if (job->purpose == CONNECT_LISTEN)
	{
		if (!run(job, conn, "LISTEN flohsync_run; LISTEN flohsync_api_token", NULL))
			return;
	}
	else if (
		!prepare(job, conn, DB_BEGIN, "BEGIN") || !prepare(job, conn, DB_COMMIT, "COMMIT") ||
		!prepare(
			job, conn, DB_ENTER_READ,
			"SELECT pg_catalog.num_nulls(pg_catalog.set_config('transaction_read_only', 'on', true), " ENTER_REST) ||
		!prepare(job, conn, DB_ENTER_WRITE, "SELECT pg_catalog.num_nulls(" ENTER_REST))
		return;
	if (PQsetnonblocking(conn, 1) != 0 ||
		(job->purpose != CONNECT_LISTEN && PQenterPipelineMode(conn) != 1))
	{
		job_fails(job, conn, "the connection cannot be used without waiting");
		return;
	}
	job->conn = conn;
}

static void *
connect_thread(void *arg)
{
	(void) arg;
	pthread_mutex_lock(&mutex);
	while (!stopping)
	{
		ConnectJob *job = asked;
		uint64_t	one = 1;

		if (job == NULL)
		{
			pthread_cond_wait(&wanted, &mutex);
			continue;
		}
		asked = job->next;
		pthread_mutex_unlock(&mutex);
		connect_now(job);
		pthread_mutex_lock(&mutex);
		job->next = done;
		done = job;
		if (write(done_fd, &one, sizeof(one)) < 0)
			continue; /* it is readable already */
	}
	pthread_mutex_unlock(&mutex);
	return NULL;
}

int
connect_start(void)
{
	done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (done_fd >= 0 && pthread_create(&thread, NULL, connect_thread, NULL) == 0)
		started = true;
	return started ? done_fd : -1;
}

void
connect_stop(void)
{
	if (!started)
		return;
	pthread_mutex_lock(&mutex);
	stopping = true;
	pthread_cond_signal(&wanted);
	pthread_mutex_unlock(&mutex);
	/* It may be waiting for a host that does not answer; that ends with the process. */
	pthread_detach(thread);
}

void
connect_ask(ConnectFor purpose, void *arg)
{
	ConnectJob *job = must_alloc(sizeof(ConnectJob));

	job->purpose = purpose;
	job->arg = arg;
	pthread_mutex_lock(&mutex);
	job->next = asked;
	asked = job;
	pthread_cond_signal(&wanted);
	pthread_mutex_unlock(&mutex);
}

ConnectJob *
connect_done(void)
{
	ConnectJob *job;
	uint64_t	n;

	if (read(done_fd, &n, sizeof(n)) < 0)
		n = 0; /* nothing to be read is nothing to be done */
	pthread_mutex_lock(&mutex);
	job = done;
	done = NULL;
	pthread_mutex_unlock(&mutex);
	return job;
}
