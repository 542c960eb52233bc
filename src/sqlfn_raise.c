/*
 * sqlfn_raise.c
 *	  SQL-callable: an error for the person who called.
 *
 * RAISE of PL/pgSQL adds the call stack of our own functions as CONTEXT, which
 * tells the caller nothing.
 */
#include "postgres.h"

#include "compat.h"

#include "fmgr.h"
#include "utils/builtins.h"

/* The text of an argument, NULL for a null. */
static char *
raise_text(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* (sqlstate, message, detail, hint); the last two may be null. */
PG_FUNCTION_INFO_V1(flohsync_raise);
PGDLLEXPORT Datum
flohsync_raise(PG_FUNCTION_ARGS)
{
	char	   *state = raise_text(fcinfo, 0);
	char	   *message = raise_text(fcinfo, 1);
	char	   *detail = raise_text(fcinfo, 2);
	char	   *hint = raise_text(fcinfo, 3);

	if (state == NULL || strlen(state) != 5 ||
		strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5 || strncmp(state, "00", 2) == 0)
		elog(ERROR, "flohsync_raise was given no SQLSTATE");
	error_context_stack = NULL;
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg_internal("%s", message ? message : "(no message)"),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
	PG_RETURN_VOID();
}
