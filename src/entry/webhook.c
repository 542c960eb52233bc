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

/* An argument; NULL: it is null. */
static Jsonb *
webhook_object(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : PG_GETARG_JSONB_P(argument);
}

static Slice
webhook_bytes(FunctionCallInfo fcinfo, int argument)
{
	bytea *bytes = PG_ARGISNULL(argument) ? NULL : PG_GETARG_BYTEA_PP(argument);

	return bytes ? (Slice){VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)} : (Slice){NULL};
}

PG_FUNCTION_INFO_V1(flohsync_receive_webhook);
PGDLLEXPORT Datum
flohsync_receive_webhook(PG_FUNCTION_ARGS)
{
	WebhookRequest request = {0};

	request.connector = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	request.body = webhook_bytes(fcinfo, 1);
	request.headers = webhook_object(fcinfo, 2);
	return webhook_receive(&request);
}

/* (connector, method, query, headers, body); without a body, it is empty. */
PG_FUNCTION_INFO_V1(flohsync_answer_webhook);
PGDLLEXPORT Datum
flohsync_answer_webhook(PG_FUNCTION_ARGS)
{
	WebhookRequest request = {.by_http = true};

	request.connector = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	request.method = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	request.query = webhook_object(fcinfo, 2);
	request.headers = webhook_object(fcinfo, 3);
	request.body = webhook_bytes(fcinfo, 4);
	if (request.body.data == NULL)
		request.body = (Slice){"", 0};
	return webhook_receive(&request);
}
