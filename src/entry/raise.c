/*
 * raise.c
 *	  SQL-callable: raises an error for users.
 *
 * RAISE of PL/pgSQL adds the call stack of internal functions as CONTEXT, which
 * is of no use to the caller.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/clean.h"

/* The text of an argument made fit for a message, NULL for a null. */
static char *
raise_text(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : clean(TextDatumGetCString(PG_GETARG_DATUM(argument)));
}

/* The same, line by line: of what may come from outside, the caller has made one line. */
static char *
raise_lines(FunctionCallInfo fcinfo, int argument)
{
	char		  *rest;
	char		  *line;
	StringInfoData lines;

	if (PG_ARGISNULL(argument))
		return NULL;
	rest = TextDatumGetCString(PG_GETARG_DATUM(argument));
	initStringInfo(&lines);
	while ((line = strsep(&rest, "\n")) != NULL)
		appendStringInfo(&lines, "%s%s", lines.len > 0 ? "\n" : "", clean(line));
	return lines.data;
}

/* (sqlstate, message, detail, hint); the last two may be null. */
PG_FUNCTION_INFO_V1(flohsync_raise);
PGDLLEXPORT Datum
flohsync_raise(PG_FUNCTION_ARGS)
{
	char *state = raise_text(fcinfo, 0);
	char *message = raise_text(fcinfo, 1);
	char *detail = raise_lines(fcinfo, 2);
	char *hint = raise_text(fcinfo, 3);

	/* An internal error is not for people. */
	if (state == NULL || strlen(state) != 5 ||
		strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5 ||
		strncmp(state, "00", 2) == 0 || strncmp(state, "XX", 2) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("SQLSTATE cannot be raised as a user error")));
	error_context_stack = NULL;
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg_internal("%s", message ? clean(message) : "(no message)"),
			 detail ? errdetail_internal("%s", detail) : 0, hint ? errhint("%s", hint) : 0));
	PG_RETURN_VOID();
}
