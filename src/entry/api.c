/*
 * api.c
 *	  SQL-callable: the outer halves of the functions of schema flohsync_api,
 *	  which HTTP serves, and the random part of an API token.
 *
 * A function f of flohsync_api has its inner half, _flohsync.api_f, run as the
 * owner for its caller (rights.c).
 *
 * An error goes to the program that serves the function, which finds its
 * status in base/http_status.h.  PostgREST has a table of its own, in which no
 * such record is a bad request; it takes the status from an error with the
 * SQLSTATE PGRST instead, whose message is the body of the answer.  It is told
 * from other programs by the setting request.method, which it alone makes.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"

#include "base/http_status.h"
#include "entry/rights.h"

#define TOKEN_BYTES 32

/* The method of the request, if it is PostgREST that called. */
static const char *
method_of_postgrest(void)
{
	const char *method = GetConfigOption("request.method", true, false);

	return method != NULL && *method != '\0' ? method : NULL;
}

static void
append_member(StringInfo json, const char *name, const char *value)
{
	appendStringInfo(json, "%s\"%s\": ", json->len > 1 ? ", " : "", name);
	if (value)
		escape_json(json, value);
	else
		appendStringInfoString(json, "null");
}

/*
 * Raises the current error again, as PostgREST wants it.  It calls with GET in a
 * transaction that only reads; a function that writes is not for that method.
 */
static void
raise_for_postgrest(MemoryContext context)
{
	ErrorData	  *edata;
	StringInfoData body;
	StringInfoData answer;
	const char	  *state;
	const char	  *method = method_of_postgrest();
	bool		   writes;

	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	FlushErrorState();
	state = pstrdup(unpack_sql_state(edata->sqlerrcode));
	writes = edata->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION && method != NULL &&
		(strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0);

	initStringInfo(&body);
	appendStringInfoChar(&body, '{');
	append_member(&body, "code", state);
	append_member(&body, "message", edata->message ? edata->message : "");
	append_member(&body, "details", edata->detail);
	append_member(&body, "hint", writes ? "Call this function with POST." : edata->hint);
	appendStringInfoChar(&body, '}');
	initStringInfo(&answer);
	if (writes)
		appendStringInfoString(&answer, "{\"status\": 405, \"headers\": {\"Allow\": \"POST\"}}");
	else
		appendStringInfo(&answer, "{\"status\": %d, \"headers\": {}}",
						 http_status_of_sqlstate(state));
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')), errmsg_internal("%s", body.data),
			 errdetail_internal("%s", answer.data)));
}

PG_FUNCTION_INFO_V1(flohsync_api_call);
PGDLLEXPORT Datum
flohsync_api_call(PG_FUNCTION_ARGS)
{
	MemoryContext  context = CurrentMemoryContext;
	volatile Datum value = (Datum) 0;

	if (method_of_postgrest() == NULL)
		return rights_call_inner_half(fcinfo, RUN_AS_OWNER);
	/* The error is always raised again: nothing of the transaction goes on. */
	PG_TRY();
	{
		value = rights_call_inner_half(fcinfo, RUN_AS_OWNER);
	}
	PG_CATCH();
	{
		raise_for_postgrest(context);
	}
	PG_END_TRY();
	return value;
}

PG_FUNCTION_INFO_V1(flohsync_new_token);
PGDLLEXPORT Datum
flohsync_new_token(PG_FUNCTION_ARGS)
{
	bytea *token = palloc(VARHDRSZ + TOKEN_BYTES);

	SET_VARSIZE(token, VARHDRSZ + TOKEN_BYTES);
	if (!pg_strong_random(VARDATA(token), TOKEN_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random token")));
	PG_RETURN_BYTEA_P(token);
}
