/*
 * handshake.c
 *	  What senders ask before they send: whether there is somebody who expects them.
 *	  And answers as HTTP has them.
 *
 *	before anything is verified:  Okta (a challenge in a header), Microsoft Graph (a token in
 *								  the query): both get back what they have sent
 *	when it is verified:		  GitHub (ping), Slack (url_verification)
 */
#include "postgres.h"

#include "base/compat.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "webhook/handshake.h"

/* No challenge and no token is as long. */
#define HANDSHAKE_MAX_CHARS 1024

#define ERRCODE_METHOD_NOT_ALLOWED MAKE_SQLSTATE('F', 'L', 'S', '0', '5')

static JsonbValue *
handshake_member(Jsonb *object, const char *key)
{
	return object && JB_ROOT_IS_OBJECT(object) ? webhook_member(object, key) : NULL;
}

/* The text that goes back, as JSON; raises when it is none. */
static char *
handshake_text(const JsonbValue *value, const char *key)
{
	static const char hint[] = "It is a text of 1 to 1024 characters.";
	StringInfoData	  out;

	if (value->type != jbvString)
		webhook_refuse(key, "is not a string", hint);
	if (value->val.string.len == 0)
		webhook_refuse(key, "is empty", hint);
	if (pg_mbstrlen_with_len(value->val.string.val, value->val.string.len) > HANDSHAKE_MAX_CHARS)
		webhook_refuse(key, "is longer than 1024 characters", hint);
	for (int i = 0; i < value->val.string.len; i++)
		if ((unsigned char) value->val.string.val[i] < ' ' || value->val.string.val[i] == 0x7f)
			webhook_refuse(key, "has control characters", hint);
	initStringInfo(&out);
	escape_json(&out, pnstrdup(value->val.string.val, value->val.string.len));
	return out.data;
}

static char *
handshake_answer(const char *type, const char *body)
{
	return psprintf("{\"status\": 200, \"contentType\": \"%s\", \"body\": %s}", type, body);
}

/*
 * webhook_greeting answers what is asked before there is a webhook; NULL: it is one.  Any
 * method but POST is one only for who asks in this way.
 */
char *
webhook_greeting(const WebhookRequest *request, const WebhookSettings *settings)
{
	JsonbValue *value;
	bool		post;

	if (!request->by_http)
		return NULL;
	post = request->method && strcmp(request->method, "POST") == 0;
	if (post && settings->scheme == WEBHOOK_GRAPH)
	{
		value = handshake_member(request->query, "validationToken");
		if (value)
			return handshake_answer("text/plain", handshake_text(value, "validationToken"));
	}
	if (!post && request->method && strcmp(request->method, "GET") == 0 &&
		settings->scheme == WEBHOOK_OKTA)
	{
		value = handshake_member(request->headers, "x-okta-verification-challenge");
		if (value)
			return handshake_answer("application/json",
									psprintf("{\"verification\": %s}",
											 handshake_text(value,
															"x-okta-verification-challenge")));
	}
	if (!post)
		ereport(ERROR,
				(errcode(ERRCODE_METHOD_NOT_ALLOWED), errmsg("method not allowed"),
				 errhint("Webhooks are sent by POST.")));
	return NULL;
}

/* webhook_test_answer answers a verified delivery that only tests; NULL: it says something. */
char *
webhook_test_answer(const WebhookRequest *request, const Webhook *hook,
					const WebhookHeaders *headers)
{
	if (headers->scheme == WEBHOOK_GITHUB && headers->event.len == 4 &&
		memcmp(headers->event.data, "ping", 4) == 0)
		return "{\"accepted\": true, \"action\": \"ping\", \"changed\": false}";
	if (headers->scheme == WEBHOOK_SLACK)
	{
		JsonbValue *type = handshake_member(hook->body, "type");
		JsonbValue *challenge = handshake_member(hook->body, "challenge");

		if (type && type->type == jbvString && type->val.string.len == 16 &&
			memcmp(type->val.string.val, "url_verification", 16) == 0 && challenge)
			return psprintf(request->by_http ?
								"{\"challenge\": %s}" :
								"{\"accepted\": true, \"action\": \"url_verification\","
								" \"changed\": false, \"challenge\": %s}",
							handshake_text(challenge, "challenge"));
	}
	return NULL;
}

/* webhook_by_http is an answer as it was asked for. */
char *
webhook_by_http(const WebhookRequest *request, char *answer)
{
	return request->by_http ? handshake_answer("application/json", answer) : answer;
}
