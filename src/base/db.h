/*
 * db.h
 *	  Transactions and queries of the workers.  See db.c.
 */
#ifndef FLOHSYNC_DB_H
#define FLOHSYNC_DB_H

#include "executor/spi.h"

/* How a statement is planned; each is prepared once per backend. */
typedef enum DbPlanKind
{
	PLAN_AUTO,	  /* as PostgreSQL decides */
	PLAN_CUSTOM,  /* for each call: a plan made while a table was small would be cached forever */
	PLAN_GENERIC, /* once, so that large arrays among the values are not copied into a plan */
	/* once, for a few rows by their key, whatever the planner thinks of the table's size */
	PLAN_BY_INDEX
} DbPlanKind;

typedef struct DbQuery
{
	const char *sql;
	int			nargs;
	Oid			types[19];
	DbPlanKind	plan_as;
	SPIPlanPtr	plan;
} DbQuery;

extern void	  db_begin(const char *activity);
extern void	  db_constraints_immediate(void);
extern void	  db_commit(void);
extern void	  db_commit_async(void);
extern uint64 db_transactions_ended(void);
extern uint64 db_others_ended(void);
extern void	  db_abort(void);

/* Work that is one transaction. */
typedef void (*DbWork)(void *arg);
extern void db_retry(DbWork work, void *arg);

extern uint64 db_execute(DbQuery *query, Datum *values, const char *nulls);
extern void	  db_execute_to(DbQuery *query, Datum *values, const char *nulls, DestReceiver *dest);

extern Datum db_value(uint64 row, int column, bool *isnull);
extern char *db_text(uint64 row, int column);
extern int64 db_int64(uint64 row, int column, int64 otherwise);
extern bool	 db_bool(uint64 row, int column);

#endif /* FLOHSYNC_DB_H */
