/*
 * webhook.c
 *	  SQL-callable: webhooks.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "webhook/webhook.h"

PG_FUNCTION_INFO_V1(flohsync_handle_webhook);
PGDLLEXPORT Datum
flohsync_handle_webhook(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("no argument of handle_webhook() may be null")));
	return webhook_handle(PG_GETARG_DATUM(0), PG_GETARG_JSONB_P(1));
}

PG_FUNCTION_INFO_V1(flohsync_receive_webhook);
PGDLLEXPORT Datum
flohsync_receive_webhook(PG_FUNCTION_ARGS)
{
	bytea *body = PG_ARGISNULL(1) ? NULL : PG_GETARG_BYTEA_PP(1);

	return webhook_receive(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
						   body ? (Slice){VARDATA_ANY(body), VARSIZE_ANY_EXHDR(body)} :
								  (Slice){NULL},
						   PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2));
}
