/*
 * receive.c
 *	  Webhooks from outside, which have to be verified first.
 */
#include "postgres.h"

#include "base/compat.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/bytes.h"
#include "base/db.h"
#include "base/flohsync.h"
#include "base/memory_page.h"
#include "base/table_check.h"
#include "json/json.h"
#include "json/jsonb.h"
#include "net/crypto.h"
#include "source/secret_store.h"
#include "webhook/handshake.h"
#include "webhook/settings.h"
#include "webhook/verify.h"
#include "webhook/webhook.h"

/* One answer for whatever is wrong, so that nobody learns anything from it. */
FLOHSYNC_NORETURN(static void webhook_not_authentic(const char *why));

static void
webhook_not_authentic(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("webhook is not authentic"), errdetail_log("Reason: %s.", why),
			 errhint("The reason is in the server log.")));
}

/* Headers are an object, and not too large. */
static void
webhook_check_headers(Jsonb *json)
{
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the headers of a webhook must be a JSON object"),
				 errhint("For example {\"X-Webhook-Signature\": \"sha256=…\"}.")));
	if (VARSIZE(json) > WEBHOOK_MAX_HEADERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the headers of a webhook are larger than %d bytes", WEBHOOK_MAX_HEADERS)));
}

/* Those that count for a scheme. */
static void
webhook_read_headers(Jsonb *json, const WebhookSettings *settings, WebhookHeaders *headers)
{
	JsonbIterator	  *it;
	JsonbValue		   value;
	JsonbIteratorToken token;
	Slice			   name = {NULL, 0};

	memset(headers, 0, sizeof(*headers));
	headers->scheme = settings->scheme;
	headers->custom = settings->header;
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = (Slice){value.val.string.val, value.val.string.len};
		else if (token == WJB_VALUE)
		{
			Slice text = {"", 0};

			if (value.type == jbvString)
				text = (Slice){value.val.string.val, value.val.string.len};
			else if (value.type == jbvNumeric)
			{
				/* A timestamp may have been taken for one. */
				text.data = DatumGetCString(
					DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
				text.len = strlen(text.data);
			}
			webhook_header(headers, name, text,
						   value.type == jbvString || value.type == jbvNumeric);
		}
	}
}

/* The body as jsonb; what jsonb would choke on, or blow up, is refused before. */
static Jsonb *
webhook_read_body(Slice body)
{
	JsonParser	   *parser = json_parser_create_limited(WEBHOOK_MAX_BODY);
	const JsonNode *root;

	if (!pg_verify_mbstr(PG_UTF8, body.data, body.len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("the body of a webhook must be in UTF-8, without NUL characters")));
	if (!json_parse(parser, body.data, body.len, FLOHSYNC_MAX_NESTING + 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("the body of a webhook must be JSON"),
				 errdetail("At byte %zu: %s.", parser->error_offset, parser->error)));
	root = &parser->nodes[JSON_ROOT];
	if (root->flags & JSON_F_BAD)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the body of a webhook contains a value that cannot be stored"),
				 errdetail("%s",
						   root->flags & JSON_F_BAD_DEPTH ?
							   "Values are nested too deeply." :
							   root->flags & JSON_F_BAD_ESCAPE ?
							   "A string contains the character U+0000, or an unpaired surrogate." :
							   "A number has more than 4000 characters or an exponent over 400.")));
	if (body.len * (Size) JSON_MOST_WEIGHT > memory_record_limit() &&
		json_weight(parser, JSON_ROOT, NULL) > memory_record_limit())
		ereport(
			ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg(
				 "the body of a webhook has so many values that storing it would take more than half of flohsync.page_memory")));
	return json_to_jsonb(parser);
}

/* Those of a connector's secrets that verify; what is wrong with one of them, else NULL. */
static const char *
webhook_secrets(const SourceSecret *all, int n, Slice secrets[WEBHOOK_SECRETS])
{
	static const char *const names[WEBHOOK_SECRETS] = {SOURCE_WEBHOOK_SECRET,
													   SOURCE_WEBHOOK_PREVIOUS};
	const char				*problem = NULL;

	memset(secrets, 0, sizeof(Slice) * WEBHOOK_SECRETS);
	for (int i = 0; i < n; i++)
		for (int s = 0; s < WEBHOOK_SECRETS; s++)
		{
			if (strcmp(all[i].name, names[s]) != 0)
				continue;
			if (all[i].value)
				secrets[s] = (Slice){all[i].value, strlen(all[i].value)};
			else
				problem = psprintf("secret \"%s\" cannot be decrypted: %s", names[s],
								   all[i].problem);
		}
	return problem;
}

/*
 * NULL, or why the webhook is not authentic.  The secret of Graph is in the body, which is read
 * for it; so that the time does not tell who is expected to send, it is also read where nothing
 * has verified it.
 */
static const char *
webhook_verify_all(const WebhookHeaders *headers, Slice body, const SourceSecret *all, int n,
				   TimestampTz now, TimestampTz *sent_at)
{
	Slice		secrets[WEBHOOK_SECRETS];
	const char *problem = webhook_secrets(all, n, secrets);
	const char *why = webhook_verify(headers, body, secrets, now, sent_at);

	if (why || headers->scheme == WEBHOOK_GRAPH)
	{
		int	   nstates;
		Slice *states = webhook_client_states(body, &nstates);

		if (!webhook_are_secrets(states, nstates, secrets) && why == NULL)
			why = "a clientState is missing, or no secret of the connector";
	}
	return why && problem ? problem : why;
}

/*
 * What a delivery is known by when its id is not signed: by the body as well,
 * so that nobody takes an id away from another delivery.
 */
static Slice
webhook_unsigned_id(Slice id, Slice body)
{
	unsigned char digest[CRYPTO_HMAC_BYTES];
	char		 *hex;

	if (id.data == NULL)
		return id;
	if (!crypto_hmac_sha256(id.data, id.len, body.data, body.len, digest))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute HMAC-SHA256")));
	hex = palloc(2 * sizeof(digest) + 1);
	crypto_hex_encode(digest, sizeof(digest), hex);
	return (Slice){hex, 2 * sizeof(digest)};
}

/* What identifies the delivery. */
static Slice
webhook_delivery_id(const WebhookHeaders *headers, TimestampTz sent_at, Slice body)
{
	if (headers->scheme == WEBHOOK_SLACK)
		return headers->hex;
	return sent_at != 0 ? headers->id : webhook_unsigned_id(headers->id, body);
}

/*
 * webhook_receive takes a webhook from outside; NULL: an argument that was null.
 * What the sender asks for when the webhook is set up is answered and nothing else done.
 */
Datum
webhook_receive(const WebhookRequest *request)
{
	Webhook			hook = {.received_at = GetCurrentTimestamp()};
	Slice			body = request->body;
	MemoryContext	caller = CurrentMemoryContext;
	RunAs			saved;
	WebhookHeaders	headers;
	WebhookSettings settings;
	SourceSecret   *secrets;
	SecretOwner		owner;
	int				nsecrets;
	const char	   *why;
	char		   *answer;

	if (request->connector == NULL || body.data == NULL || request->headers == NULL)
		webhook_not_authentic("an argument is null");
	if (body.len > WEBHOOK_MAX_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the body of a webhook is larger than %d bytes", WEBHOOK_MAX_BODY)));
	webhook_check_headers(request->headers);

	run_as_begin(&saved, run_as_worker_role());
	table_check(InvalidOid);
	SPI_connect();
	secrets = secrets_of_webhook(request->connector, &owner, &nsecrets);
	webhook_settings(owner.webhook, &settings);
	webhook_read_headers(request->headers, &settings, &headers);
	answer = webhook_greeting(request, &settings);
	/* Nothing has signed a greeting; but a secret that comes along is the right one. */
	why = answer && headers.secret.data == NULL ?
		NULL :
		webhook_verify_all(&headers, body, secrets, nsecrets, hook.received_at, &hook.sent_at);
	source_wipe_secrets(secrets, nsecrets);
	if (why)
		webhook_not_authentic(why);
	if (answer)
		return webhook_done(answer, caller, &saved);
	webhook_check_enabled(owner.enabled, owner.name);
	hook.connector = UUIDPGetDatum(&owner.id);
	hook.id = webhook_delivery_id(&headers, hook.sent_at, body);
	hook.body = webhook_read_body(body);
	answer = webhook_test_answer(request, &hook, &headers);
	if (answer == NULL)
		answer = settings.map ? webhook_take_events(&hook, settings.map) : webhook_take(&hook);
	return webhook_done(webhook_by_http(request, answer), caller, &saved);
}
