/*
 * cached_plan.c
 *	  SQL-callable: a statement whose text is made of settings, planned once.
 *
 * The first argument is the text, the others its parameters; the result is its
 * only row, or the only value of that; other functions take the rows themselves
 * (cached_plan_read).  plpgsql's EXECUTE plans on each call, which for the matching
 * of one record takes ten times as long as the matching.  The plan is one for a
 * few rows by their keys, whatever the size of the tables (base/db.h, PLAN_BY_INDEX).
 *
 * The statement runs with the rights of the caller, as with EXECUTE.  Nothing is
 * taken for granted of it: that it is one, and that what it gives is what the
 * function is declared to return, is looked at each time.
 */
#include "postgres.h"

#include "base/compat.h"

#include "common/hashfn.h"
#include "funcapi.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "entry/cached_plan.h"

/* Settings that are in use at a time, times two statements, in one session. */
#define CACHED_PLANS		  32
#define CACHED_PLAN_MAX_BYTES (1024 * 1024)

typedef struct CachedStatement
{
	Oid		function; /* InvalidOid: free */
	uint32	hash;
	uint64	used;
	int		running; /* a trigger may come here again */
	char   *sql;
	DbQuery query;
} CachedStatement;

static CachedStatement kept[CACHED_PLANS];
static uint64		   cached_plan_uses = 0;

/* The place of a statement, or the one that was unused longest, emptied. */
static CachedStatement *
cached_plan_find(Oid function, const char *sql, uint32 hash)
{
	CachedStatement *oldest = NULL;

	for (int i = 0; i < CACHED_PLANS; i++)
	{
		CachedStatement *k = &kept[i];

		if (k->function == function && k->hash == hash && strcmp(k->sql, sql) == 0)
			return k;
		if (k->running == 0 && (oldest == NULL || k->used < oldest->used))
			oldest = k;
	}
	if (oldest == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("triggers on tables of flohsync are nested more than %d levels deep",
						CACHED_PLANS)));
	if (oldest->query.plan)
		SPI_freeplan(oldest->query.plan);
	if (oldest->sql)
		pfree(oldest->sql);
	memset(oldest, 0, sizeof(*oldest));
	return oldest;
}

FLOHSYNC_NORETURN(static void cached_plan_refuse(const char *what));

static void
cached_plan_refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("cannot cache the plan of a statement: %s", what)));
}

/* Raises unless a text is one statement that reads or writes rows. */
static void
cached_plan_check_text(const char *sql)
{
	List *trees = raw_parser(sql, RAW_PARSE_DEFAULT);
	Node *statement;

	if (list_length(trees) != 1)
		cached_plan_refuse("it is not one statement");
	statement = linitial_node(RawStmt, trees)->stmt;
	if (!IsA(statement, SelectStmt) && !IsA(statement, InsertStmt) && !IsA(statement, UpdateStmt) &&
		!IsA(statement, DeleteStmt))
		cached_plan_refuse("it is neither a SELECT nor an INSERT, UPDATE or DELETE");
	if (IsA(statement, SelectStmt) && ((SelectStmt *) statement)->intoClause)
		cached_plan_refuse("it has an INTO clause");
}

/* Raises unless the result of the statement is one row of what the function returns. */
static void
cached_plan_check_result(FunctionCallInfo fcinfo, uint64 rows)
{
	TupleDesc want = NULL;
	TupleDesc got = SPI_tuptable ? SPI_tuptable->tupdesc : NULL;
	Oid		  type;
	TypeFuncClass class = get_call_result_type(fcinfo, &type, &want);
	bool composite = class == TYPEFUNC_COMPOSITE || class == TYPEFUNC_COMPOSITE_DOMAIN;

	if (got == NULL)
		cached_plan_refuse("it returns no rows");
	if (rows != 1 || SPI_tuptable->numvals != 1)
		cached_plan_refuse("it returned more or less than one row");
	if (got->natts != (composite ? want->natts : 1))
		cached_plan_refuse("it returns a different number of columns than the function");
	for (int i = 0; i < got->natts; i++)
		if (TupleDescAttr(got, i)->atttypid !=
			(composite ? TupleDescAttr(want, i)->atttypid : type))
			cached_plan_refuse("it returns columns of different types than the function");
}

/* The parameters have "types", or else those of the function behind its first one. */
static CachedStatement *
cached_plan_get(Oid function, const text *text, int nargs, const Oid *types)
{
	char			*sql = text_to_cstring(text);
	uint32			 hash;
	CachedStatement *k;

	if (strlen(sql) > CACHED_PLAN_MAX_BYTES)
		cached_plan_refuse("it is too long");
	hash = hash_bytes((const unsigned char *) sql, strlen(sql));
	k = cached_plan_find(function, sql, hash);
	if (k->sql == NULL)
	{
		cached_plan_check_text(sql);
		if (types == NULL)
		{
			Oid *all;

			(void) get_func_signature(function, &all, &nargs);
			types = all + 1;
			nargs--;
		}
		if (nargs > (int) lengthof(k->query.types))
			elog(ERROR, "a cached statement has %d parameters", nargs);
		memcpy(k->query.types, types, sizeof(Oid) * nargs);
		k->sql = MemoryContextStrdup(TopMemoryContext, sql);
		k->query.sql = k->sql;
		k->query.nargs = nargs;
		k->query.plan_as = PLAN_BY_INDEX;
		k->hash = hash;
		k->function = function;
	}
	k->used = ++cached_plan_uses;
	return k;
}

/* Its rows go to "dest" if there is one, else to SPI_tuptable; returns their number then. */
static pg_noinline uint64
cached_plan_run(CachedStatement *k, Datum *values, const char *nulls, DestReceiver *dest)
{
	volatile uint64 n = 0;

	k->running++;
	PG_TRY();
	{
		if (dest)
			db_execute_to(&k->query, values, nulls, dest);
		else
			n = db_execute(&k->query, values, nulls);
	}
	PG_FINALLY();
	{
		k->running--;
	}
	PG_END_TRY();
	return n;
}

/* cached_plan_read has "dest" take the rows of a statement on behalf of a function. */
void
cached_plan_read(Oid function, const text *sql, int nargs, const Oid *types, Datum *values,
				 DestReceiver *dest)
{
	SPI_connect();
	(void) cached_plan_run(cached_plan_get(function, sql, nargs, types), values, NULL, dest);
	SPI_finish();
}

PG_FUNCTION_INFO_V1(flohsync_execute_cached_plan);
PGDLLEXPORT Datum
flohsync_execute_cached_plan(PG_FUNCTION_ARGS)
{
	CachedStatement *k;
	Datum			 values[lengthof(k->query.types)];
	char			 nulls[lengthof(k->query.types) + 1] = {0};
	Datum			 result;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	SPI_connect();
	k = cached_plan_get(fcinfo->flinfo->fn_oid, PG_GETARG_TEXT_PP(0), 0, NULL);
	for (int i = 0; i < k->query.nargs; i++)
	{
		values[i] = PG_GETARG_DATUM(i + 1);
		nulls[i] = PG_ARGISNULL(i + 1) ? 'n' : ' ';
	}
	cached_plan_check_result(fcinfo, cached_plan_run(k, values, nulls, NULL));
	if (type_is_rowtype(get_func_rettype(fcinfo->flinfo->fn_oid)))
		result = PointerGetDatum(SPI_returntuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc));
	else
	{
		result = db_value(0, 1, &fcinfo->isnull);
		if (!fcinfo->isnull)
			result = SPI_datumTransfer(result, TupleDescAttr(SPI_tuptable->tupdesc, 0)->attbyval,
									   TupleDescAttr(SPI_tuptable->tupdesc, 0)->attlen);
	}
	SPI_finish();
	return result;
}
