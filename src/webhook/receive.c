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
#include "record/outbox.h"
#include "source/secret_store.h"
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

static void
webhook_read_headers(Jsonb *json, WebhookHeaders *headers)
{
	JsonbIterator	  *it;
	JsonbValue		   value;
	JsonbIteratorToken token;
	Slice			   name = {NULL, 0};

	memset(headers, 0, sizeof(*headers));
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the headers of a webhook must be a JSON object"),
				 errhint("For example {\"X-Webhook-Signature\": \"sha256=…\"}.")));
	if (VARSIZE(json) > WEBHOOK_MAX_HEADERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the headers of a webhook are larger than %d bytes", WEBHOOK_MAX_HEADERS)));
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

/* Verifies with those of a connector's secrets that are for it. */
static const char *
webhook_verify_with(const WebhookHeaders *headers, Slice body, const SourceSecret *all, int n,
					TimestampTz now, TimestampTz *sent_at)
{
	static const char *const names[WEBHOOK_SECRETS] = {SOURCE_WEBHOOK_SECRET,
													   SOURCE_WEBHOOK_PREVIOUS};
	Slice					 secrets[WEBHOOK_SECRETS] = {0};
	const char				*problem = NULL;
	const char				*why;

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
	why = webhook_verify(headers, body, secrets, now, sent_at);
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

/* webhook_receive takes a webhook from outside; NULL: an argument that was null. */
Datum
webhook_receive(text *connector, Slice body, Jsonb *given)
{
	Webhook		   hook = {.received_at = GetCurrentTimestamp()};
	MemoryContext  caller = CurrentMemoryContext;
	RunAs		   saved;
	WebhookHeaders headers;
	SourceSecret  *secrets;
	SecretOwner	   owner;
	int			   nsecrets;
	pg_uuid_t	   id;
	bool		   named;
	const char	  *why;

	if (connector == NULL || body.data == NULL || given == NULL)
		webhook_not_authentic("an argument is null");
	if (body.len > WEBHOOK_MAX_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the body of a webhook is larger than %d bytes", WEBHOOK_MAX_BODY)));
	webhook_read_headers(given, &headers);

	run_as_begin(&saved, run_as_worker_role());
	table_check(InvalidOid);
	SPI_connect();
	named = outbox_find_connector(VARDATA_ANY(connector), VARSIZE_ANY_EXHDR(connector), &id);
	secrets = secrets_of_webhook(PointerGetDatum(connector), named ? &id : NULL, &owner, &nsecrets);
	why = webhook_verify_with(&headers, body, secrets, nsecrets, hook.received_at, &hook.sent_at);
	source_wipe_secrets(secrets, nsecrets);
	if (why)
		webhook_not_authentic(why);
	webhook_check_enabled(owner.enabled, owner.name);
	hook.connector = UUIDPGetDatum(&owner.id);
	hook.id = hook.sent_at != 0 ? headers.id : webhook_unsigned_id(headers.id, body);
	hook.body = webhook_read_body(body);
	return webhook_done(webhook_take(&hook), caller, &saved);
}
