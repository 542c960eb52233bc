/*
 * db.c
 *	  Asking the database: a pool of connections, and a transaction for each task.
 *
 * A task is one round trip: its transaction, the role and what is known of the
 * request, the call and the end of the transaction are sent together (pipeline mode
 * of libpq).  A read is one implicit transaction up to the synchronization point; a
 * write has BEGIN and COMMIT of its own, because it has to be known that it was
 * committed before anybody is told.
 *
 * - A connection has one task at a time; nobody sees what another one has set, as
 *	 all that is set ends with the transaction.
 * - A statement is prepared once for each connection and role, behind the change of
 *	 the role: the role of the connection may not use the schema.
 * - A read whose connection was lost is asked again once, and what was rolled back for
 *	 the sake of another transaction twice.  A write whose connection was lost is not.
 */
#include "db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "buf.h"
#include "config.h"
#include "db_connect.h"
#include "db_notify.h"
#include "log.h"
#include "loop.h"

#define CONNECT_AGAIN_MS   1000
#define CONNECTION_LIFE_MS (60 * 60 * 1000)

typedef enum SlotState
{
	SLOT_EMPTY,
	SLOT_CONNECTING,
	SLOT_IDLE,
	SLOT_BUSY,
	SLOT_ROLLBACK
} SlotState;

struct Pool;

typedef struct Slot
{
	struct Pool *pool;
	SlotState	 state;
	PGconn		*conn;
	Watch		 watch;
	int64_t		 since; /* when it was connected */
	uint8_t		 prepared[DB_ROLES][DB_STATEMENTS / 8];

	DbTask	 *task;
	int		  results; /* that have come */
	int		  prepare; /* which of them says that the statement is prepared, -1: none */
	int		  answer;  /* which of them is the answer */
	int		  role;
	PGresult *row;
	PGresult *error;
} Slot;

typedef struct Pool
{
	ConnectFor purpose;
	Slot	  *slot;
	int		   size;
	DbTask	  *first;
	DbTask	  *last;
	int		   waiting;
	int64_t	   failed_at; /* when a connection could not be made; 0: the last one could */
} Pool;

static Pool	 pools[2]; /* by DbMode; the second one is used with several hosts only */
static bool	 two_pools;
static Watch done_watch;
static char	 problem[512];
static Timer timer;
static char *roles[DB_ROLES];
static int	 nroles;

static void pool_serve(Pool *pool);

static Pool *
pool_of(DbMode mode)
{
	return &pools[two_pools ? mode : DB_READ];
}

/* The number of a role, -1 when there are too many to prepare anything for it. */
static int
role_number(const char *role)
{
	if (role == NULL)
		role = "";
	for (int i = 0; i < nroles; i++)
	{
		if (strcmp(roles[i], role) == 0)
			return i;
	}
	if (nroles == DB_ROLES)
		return -1;
	roles[nroles] = must_copy(role);
	return nroles++;
}

static void
slot_close(Slot *s)
{
	loop_unwatch(&s->watch);
	PQfinish(s->conn);
	s->conn = NULL;
	s->state = SLOT_EMPTY;
	memset(s->prepared, 0, sizeof(s->prepared));
}

static void
task_done(DbTask *task, DbVerdict verdict, PGresult *row, const PGresult *error)
{
	DbResult r = {.verdict = verdict, .row = row};

	if (verdict == DB_ERROR)
	{
		r.code = PQresultErrorField(error, PG_DIAG_SQLSTATE);
		r.message = PQresultErrorField(error, PG_DIAG_MESSAGE_PRIMARY);
		r.detail = PQresultErrorField(error, PG_DIAG_MESSAGE_DETAIL);
		r.hint = PQresultErrorField(error, PG_DIAG_MESSAGE_HINT);
		if (r.code == NULL)
			r.code = "XX000";
		if (r.message == NULL)
			r.message = "the database gave no reason";
	}
	task->done(task->arg, &r);
}

static void
pool_add(Pool *pool, DbTask *task, bool in_front)
{
	task->next = NULL;
	if (pool->first == NULL)
		pool->first = pool->last = task;
	else if (in_front)
	{
		task->next = pool->first;
		pool->first = task;
	}
	else
	{
		pool->last->next = task;
		pool->last = task;
	}
	pool->waiting++;
}

static DbTask *
pool_take(Pool *pool)
{
	DbTask *task = pool->first;

	pool->first = task->next;
	if (pool->first == NULL)
		pool->last = NULL;
	pool->waiting--;
	return task;
}

/* Ends the task of a slot: with its answer, or once more. */
static void
slot_finish(Slot *s, bool lost)
{
	DbTask	   *task = s->task;
	PGresult   *row = s->row;
	PGresult   *error = s->error;
	const char *code = error != NULL ? PQresultErrorField(error, PG_DIAG_SQLSTATE) : NULL;
	DbVerdict	verdict = DB_OK;

	s->task = NULL;
	s->row = s->error = NULL;
	/* The server, or a session of it, is being ended. */
	if (code != NULL && (strncmp(code, "57P", 3) == 0))
		lost = true;
	if (lost)
	{
		bool read = task->mode == DB_READ;

		slot_close(s);
		if (read && task->tries++ == 0)
		{
			pool_add(s->pool, task, true);
			goto done;
		}
		verdict = read ? DB_AWAY : DB_UNKNOWN;
	}
	else if (error != NULL)
	{
		if (code != NULL && (strcmp(code, "40001") == 0 || strcmp(code, "40P01") == 0) &&
			task->tries++ < 2)
		{
			pool_add(s->pool, task, true);
			goto done;
		}
		/* What was the primary is none any more. */
		if (code != NULL && strcmp(code, "25006") == 0 && task->mode == DB_WRITE)
		{
			slot_close(s);
			verdict = DB_AWAY;
		}
		else
			verdict = DB_ERROR;
	}
	else if (row == NULL)
		verdict = DB_AWAY;
	task_done(task, verdict, row, error);
done:
	PQclear(row);
	PQclear(error);
}

static void
slot_ready(Slot *s)
{
	if (loop_now() - s->since > CONNECTION_LIFE_MS)
		slot_close(s);
	else
		s->state = SLOT_IDLE;
}

static void
slot_flush(Slot *s)
{
	int left = PQflush(s->conn);

	loop_events(&s->watch, left == 1 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* All that belongs to the task has come. */
static void
slot_synced(Slot *s)
{
	PGTransactionStatusType status = PQtransactionStatus(s->conn);

	if (s->state == SLOT_ROLLBACK)
	{
		if (status == PQTRANS_IDLE)
			slot_ready(s);
		else
			slot_close(s);
		return;
	}
	if (status == PQTRANS_IDLE)
		slot_ready(s);
	else if (PQsendQueryParams(s->conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) == 1 &&
			 PQpipelineSync(s->conn) == 1)
	{
		s->state = SLOT_ROLLBACK;
		slot_flush(s);
	}
	else
	{
		slot_finish(s, true);
		return;
	}
	slot_finish(s, false);
}

static void
slot_result(Slot *s, PGresult *res)
{
	int number = s->results++;

	switch (PQresultStatus(res))
	{
		case PGRES_TUPLES_OK:
		case PGRES_COMMAND_OK:
			if (s->state == SLOT_BUSY && number == s->prepare && s->role >= 0)
				s->prepared[s->role][s->task->statement->id / 8] |= 1
					<< (s->task->statement->id % 8);
			if (s->state == SLOT_BUSY && number == s->answer && PQntuples(res) == 1)
			{
				s->row = res;
				return;
			}
			break;
		case PGRES_PIPELINE_ABORTED:
			break;
		default:
			if (s->state == SLOT_BUSY && s->error == NULL)
			{
				s->error = res;
				return;
			}
			break;
	}
	PQclear(res);
}

static void
slot_event(void *arg, uint32_t events)
{
	Slot *s = arg;

	if (events & EPOLLOUT)
		slot_flush(s);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
	{
		bool  gone = PQconsumeInput(s->conn) != 1;
		Pool *pool = s->pool;

		while (s->conn != NULL && s->state >= SLOT_BUSY && !PQisBusy(s->conn))
		{
			PGresult *res = PQgetResult(s->conn);

			if (res == NULL)
			{
				if (PQstatus(s->conn) != CONNECTION_OK)
				{
					gone = true;
					break;
				}
				continue;
			}
			if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
			{
				PQclear(res);
				slot_synced(s);
			}
			else
				slot_result(s, res);
		}
		if (s->conn != NULL && (gone || PQstatus(s->conn) != CONNECTION_OK))
		{
			if (s->state == SLOT_BUSY)
				slot_finish(s, true);
			else
				slot_close(s);
		}
		pool_serve(pool);
	}
}

/* Sends all of a task; false when the connection does not take it. */
static bool
slot_send(Slot *s, DbTask *task)
{
	const DbStatement *st = task->statement;
	char			   name[32];
	char			   timeout[16];
	const char		  *enter[DB_ENTER_PARAMS] = {timeout, task->claims ? task->claims : "",
											 task->headers ? task->headers : "",
											 task->user ? task->user : "",
											 task->role ? task->role : "none"};
	bool			   write = task->mode == DB_WRITE;
	bool			   ok = true;

	s->task = task;
	s->state = SLOT_BUSY;
	s->results = 0;
	s->prepare = -1;
	s->role = st->id >= 0 ? role_number(task->role) : -1;
	snprintf(timeout, sizeof(timeout), "%ds",
			 task->timeout > 0 ? task->timeout : config->statement_timeout);
	if (write)
		ok = PQsendQueryPrepared(s->conn, DB_BEGIN, 0, NULL, NULL, NULL, 0) == 1;
	ok = ok &&
		PQsendQueryPrepared(s->conn, write ? DB_ENTER_WRITE : DB_ENTER_READ, DB_ENTER_PARAMS, enter,
							NULL, NULL, 0) == 1;
	s->answer = write ? 2 : 1;
	if (s->role >= 0)
	{
		snprintf(name, sizeof(name), "s%d_%d", st->id, s->role);
		if (!(s->prepared[s->role][st->id / 8] & 1 << (st->id % 8)))
		{
			ok = ok && PQsendPrepare(s->conn, name, st->sql, 0, NULL) == 1;
			s->prepare = s->answer++;
		}
		ok = ok &&
			PQsendQueryPrepared(s->conn, name, st->nparams, task->values, task->lengths,
								task->formats, 0) == 1;
	}
	else
		ok = ok &&
			PQsendQueryParams(s->conn, st->sql, st->nparams, NULL, task->values, task->lengths,
							  task->formats, 0) == 1;
	if (write)
		ok = ok && PQsendQueryPrepared(s->conn, DB_COMMIT, 0, NULL, NULL, NULL, 0) == 1;
	ok = ok && PQpipelineSync(s->conn) == 1;
	if (ok)
		slot_flush(s);
	return ok;
}

static void
pool_fail(Pool *pool)
{
	/* Those that are told may ask again: they come into the list that is not looked at. */
	DbTask *task = pool->first;

	pool->first = pool->last = NULL;
	pool->waiting = 0;
	while (task != NULL)
	{
		DbTask *next = task->next;

		task_done(task, DB_AWAY, NULL, NULL);
		task = next;
	}
}

static void
pool_serve(Pool *pool)
{
	for (int i = 0; i < pool->size && pool->first != NULL; i++)
	{
		Slot *s = &pool->slot[i];

		if (s->state == SLOT_IDLE)
		{
			DbTask *task = pool_take(pool);

			/* What was not taken was not executed: without the end of its pipeline it is thrown away. */
			if (!slot_send(s, task))
			{
				s->task = NULL;
				slot_close(s);
				if (task->tries++ == 0)
					pool_add(pool, task, true);
				else
					task_done(task, DB_AWAY, NULL, NULL);
			}
		}
	}
	if (pool->first != NULL)
	{
		int connected = 0;
		int connecting = 0;

		for (int i = 0; i < pool->size; i++)
		{
			connected += pool->slot[i].state > SLOT_CONNECTING;
			connecting += pool->slot[i].state == SLOT_CONNECTING;
		}
		if (connected == 0 && connecting == 0 && pool->failed_at != 0 &&
			loop_now() - pool->failed_at < CONNECT_AGAIN_MS)
		{
			pool_fail(pool);
			return;
		}
		if (pool->failed_at != 0 && loop_now() - pool->failed_at < CONNECT_AGAIN_MS)
			return;
		for (int i = 0; i < pool->size && connecting < pool->waiting && connecting < 2; i++)
		{
			if (pool->slot[i].state == SLOT_EMPTY)
			{
				pool->slot[i].state = SLOT_CONNECTING;
				connect_ask(pool->purpose, &pool->slot[i]);
				connecting++;
			}
		}
	}
}

static void
slot_connected(Slot *s, PGconn *conn)
{
	s->conn = conn;
	s->since = loop_now();
	s->state = SLOT_IDLE;
	s->pool->failed_at = 0;
	loop_watch(&s->watch, PQsocket(conn), EPOLLIN, slot_event, s);
}

static void
connections_made(void *arg, uint32_t events)
{
	(void) arg;
	(void) events;
	for (ConnectJob *job = connect_done(), *next; job != NULL; job = next)
	{
		Slot *s = job->arg;

		next = job->next;
		if (job->conn == NULL && strcmp(problem, job->problem) != 0)
			log_message(LOG_WARNING, "could not connect to the database: %s", job->problem);
		snprintf(problem, sizeof(problem), "%s", job->conn == NULL ? job->problem : "");
		if (job->purpose == CONNECT_LISTEN)
			notify_connected(job->conn);
		else
		{
			if (job->conn != NULL)
				slot_connected(s, job->conn);
			else
			{
				bool connected = false;

				s->state = SLOT_EMPTY;
				s->pool->failed_at = loop_now();
				for (int i = 0; i < s->pool->size; i++)
					connected = connected || s->pool->slot[i].state > SLOT_CONNECTING;
				if (!connected)
					pool_fail(s->pool);
			}
			pool_serve(s->pool);
		}
		free(job);
	}
}

/* Keeps a connection of each kind, so that it is known whether the database is there. */
static void
look_after(void *arg)
{
	(void) arg;
	for (int p = 0; p < (two_pools ? 2 : 1); p++)
	{
		Pool *pool = &pools[p];
		bool  any = false;

		for (int i = 0; i < pool->size; i++)
			any = any || pool->slot[i].state != SLOT_EMPTY;
		if (!any && loop_now() - pool->failed_at >= CONNECT_AGAIN_MS)
		{
			pool->slot[0].state = SLOT_CONNECTING;
			connect_ask(pool->purpose, &pool->slot[0]);
		}
		pool_serve(pool);
	}
	notify_look_after();
}

static void
pool_make(Pool *pool, ConnectFor purpose, int size)
{
	*pool = (Pool){.purpose = purpose, .size = size};
	pool->slot = must_alloc(size * sizeof(Slot));
	for (int i = 0; i < size; i++)
		pool->slot[i].pool = pool;
}

bool
db_start(DbNotified notified, DbListening listening)
{
	ConnectJob first = {.purpose = CONNECT_READ};
	int		   fd;

	notify_start(notified, listening);
	two_pools = connect_several_hosts();
	pool_make(&pools[DB_READ], CONNECT_READ, config->pool_size);
	if (two_pools)
		pool_make(&pools[DB_WRITE], CONNECT_WRITE, config->pool_size);
	connect_now(&first);
	if (first.conn != NULL)
		slot_connected(&pools[DB_READ].slot[0], first.conn);
	else
	{
		log_message(first.refused ? LOG_ERROR : LOG_WARNING,
					"could not connect to the database: %s", first.problem);
		snprintf(problem, sizeof(problem), "%s", first.problem);
		pools[DB_READ].failed_at = loop_now();
		if (first.refused)
			return false;
	}
	fd = connect_start();
	if (fd < 0)
	{
		log_message(LOG_ERROR, "could not start a thread");
		return false;
	}
	loop_watch(&done_watch, fd, EPOLLIN, connections_made, NULL);
	look_after(NULL);
	loop_every(&timer, 250, look_after, NULL);
	return true;
}

void
db_stop(void)
{
	connect_stop();
	for (int p = 0; p < (two_pools ? 2 : 1); p++)
	{
		for (int i = 0; i < pools[p].size; i++)
		{
			if (pools[p].slot[i].conn != NULL)
				slot_close(&pools[p].slot[i]);
		}
	}
	notify_stop();
}

void
db_run(DbTask *task)
{
	Pool *pool = pool_of(task->mode);

	task->tries = 0;
	task->since = clock_us();
	if (pool->waiting >= config->queue_limit)
	{
		task_done(task, DB_BUSY, NULL, NULL);
		return;
	}
	pool_add(pool, task, false);
	pool_serve(pool);
}

bool
db_up(void)
{
	for (int i = 0; i < pools[DB_READ].size; i++)
	{
		if (pools[DB_READ].slot[i].state >= SLOT_IDLE)
			return true;
	}
	return false;
}

DbNumbers
db_numbers(void)
{
	DbNumbers n = {0};

	for (int p = 0; p < (two_pools ? 2 : 1); p++)
	{
		for (int i = 0; i < pools[p].size; i++)
		{
			n.connected += pools[p].slot[i].state >= SLOT_IDLE;
			n.busy += pools[p].slot[i].state >= SLOT_BUSY;
		}
		n.waiting += pools[p].waiting;
	}
	return n;
}
