/*
 * db.h
 *	  Asking the database: a pool of connections, a transaction for each task, and
 *	  what the database notifies of.  See db.c and db_connect.c.
 */
#ifndef GATEWAY_DB_H
#define GATEWAY_DB_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

/* At most so many statements and roles are prepared on a connection. */
#define DB_STATEMENTS 128
#define DB_ROLES	  32

typedef enum DbMode
{
	DB_READ, /* in a read-only transaction, on a standby too */
	DB_WRITE
} DbMode;

typedef struct DbStatement
{
	const char *sql;
	int			id; /* below DB_STATEMENTS, or -1: not prepared */
	int			nparams;
} DbStatement;

typedef enum DbVerdict
{
	DB_OK,
	DB_ERROR,	/* the database says no: code, message, detail, hint */
	DB_AWAY,	/* nothing was done: it cannot be asked now */
	DB_UNKNOWN, /* it went away while a write was under way, which may have been committed */
	DB_BUSY		/* too many wait for it */
} DbVerdict;

/* What came of a task; all of it goes when the call that is told of it returns. */
typedef struct DbResult
{
	DbVerdict	verdict;
	PGresult   *row;
	const char *code;
	const char *message;
	const char *detail;
	const char *hint;
} DbResult;

typedef void (*DbDone)(void *arg, const DbResult *result);

/* Its owner keeps it, and all that it names, until done is called, which is always. */
typedef struct DbTask
{
	struct DbTask	  *next;
	DbMode			   mode;
	const DbStatement *statement;
	const char *const *values;
	const int		  *lengths; /* may be NULL: all are text */
	const int		  *formats;
	const char		  *role;	/* NULL: that of the connection */
	const char		  *claims;	/* request.jwt.claims */
	const char		  *headers; /* request.headers */
	const char		  *user;	/* flohsync.acting_user, may be NULL */
	int				   timeout; /* seconds; 0: as configured */
	DbDone			   done;
	void			  *arg;
	int				   tries;
	int64_t			   since;
} DbTask;

typedef void (*DbNotified)(const char *channel, const char *payload);
/* Called when the database is listened to again: something may have been missed. */
typedef void (*DbListening)(void);

typedef struct DbNumbers
{
	int connected;
	int busy;
	int waiting;
} DbNumbers;

/* Makes the first connection; false, with the reason in the log, if this role must not be used. */
extern bool db_start(DbNotified notified, DbListening listening);
extern void db_stop(void);

extern void		 db_run(DbTask *task);
extern bool		 db_listening(void);
extern bool		 db_up(void);
extern DbNumbers db_numbers(void);

#endif /* GATEWAY_DB_H */
