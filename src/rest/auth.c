/*
 * auth.c
 *	  Credentials of requests; access tokens and the signed JWTs that request them.
 *
 * A token is kept in memory of this process, and while a run uses it in shared
 * memory, until 60 seconds before it expires, under the SHA-256 of everything
 * in its request: a different secret never gets it.  One worker requests a token
 * at a time, and the others wait for the result; a rejected token is not
 * requested again if another worker has got a new one meanwhile, which a further
 * request might invalidate.  It is redacted (source_redact_also) from the moment
 * it is known, and so is every credential that is generated here.
 *
 * The answer of a token endpoint may contain an unknown token, if it is not where
 * the definition says.  So of a successful answer a message shows only the error
 * of RFC 6749 (5.2), the names of the members, or a web page; of any other answer
 * the beginning.
 *
 * Clear texts are wiped with the memory context of the request: so a text that
 * will contain one gets its full size first.
 */
#include "postgres.h"

#include <time.h>

#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/time_text.h"
#include "base/wait.h"
#include "json/value.h"
#include "net/crypto_memory.h"
#include "rest/auth.h"
#include "shared/token.h"

#define TOKEN_SLOTS		  8
#define TOKEN_EARLY_S	  60
#define TOKEN_MAX_REFUSED 4
#define TOKEN_SHARING_MS  150
#define TOKEN_TURN_MS	  25 /* while another worker asks, it is looked so often */
#define TOKEN_DEFAULT_S	  300
#define TOKEN_MAX_S		  (10 * 365 * 86400)

#define TOKEN_MEMBERS	  10 /* number of names that are reported */
#define TOKEN_ERROR_BYTES 500

typedef struct TokenSlot
{
	unsigned char key[CRYPTO_SHA256_BYTES];
	char		 *token; /* NULL: free */
	TimestampTz	  until;
} TokenSlot;

static TokenSlot token_slots[TOKEN_SLOTS];

static void
auth_key(const char *material, unsigned char key[CRYPTO_SHA256_BYTES])
{
	if (!crypto_sha256(material, strlen(material), key))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute SHA-256")));
}

static TokenSlot *
auth_slot(const unsigned char key[CRYPTO_SHA256_BYTES])
{
	for (int i = 0; i < TOKEN_SLOTS; i++)
		if (token_slots[i].token != NULL &&
			memcmp(token_slots[i].key, key, CRYPTO_SHA256_BYTES) == 0)
			return &token_slots[i];
	return NULL;
}

static void
auth_forget(TokenSlot *slot)
{
	if (slot->token)
	{
		crypto_wipe(slot->token, strlen(slot->token));
		pfree(slot->token);
	}
	memset(slot, 0, sizeof(*slot));
}

static void
auth_keep(RestState *state, const unsigned char key[CRYPTO_SHA256_BYTES], const char *token,
		  TimestampTz until)
{
	TokenSlot *slot = auth_slot(key);

	shmem_token_put(key, token, until, &state->token_held);
	for (int i = 0; slot == NULL && i < TOKEN_SLOTS; i++)
		if (token_slots[i].token == NULL)
			slot = &token_slots[i];
	/* The one that expires first has to go. */
	if (slot == NULL)
		slot = &token_slots[0];
	for (int i = 0; i < TOKEN_SLOTS && slot->token != NULL; i++)
		if (token_slots[i].until < slot->until && auth_slot(key) == NULL)
			slot = &token_slots[i];
	auth_forget(slot);
	slot->token = MemoryContextStrdup(TopMemoryContext, token);
	slot->until = until;
	memcpy(slot->key, key, CRYPTO_SHA256_BYTES);
}

/* The stored token is invalid. */
static void
auth_forget_all(RestState *state, const unsigned char key[CRYPTO_SHA256_BYTES])
{
	TokenSlot *slot = auth_slot(key);

	shmem_token_put(key, NULL, 0, &state->token_held);
	if (slot)
		auth_forget(slot);
}

static bool
auth_is_refused(const RestState *state, const char *token)
{
	unsigned char digest[CRYPTO_SHA256_BYTES];

	if (state->refreshed == 0)
		return false;
	auth_key(token, digest);
	return memcmp(digest, state->refused, CRYPTO_SHA256_BYTES) == 0;
}

/*
 * Takes a token that is there already, unless it is the one that was refused.
 * One that only this process knows is taken, and shared, when it is this one's
 * turn: another may be about to make it void.
 */
static bool
auth_find_token(RestState *state, const unsigned char key[CRYPTO_SHA256_BYTES], bool my_turn)
{
	char		shared[SHMEM_TOKEN_BYTES];
	TimestampTz until;
	TokenSlot  *slot = auth_slot(key);
	const char *token = NULL;

	if (shmem_token_get(key, shared, &until, &state->token_held))
		token = shared;
	else if (slot && my_turn && slot->until > GetCurrentTimestamp())
	{
		token = slot->token;
		until = slot->until;
		if (!auth_is_refused(state, token))
			shmem_token_put(key, token, until, &state->token_held);
	}
	if (token && !auth_is_refused(state, token))
	{
		state->token = MemoryContextStrdup(state->source->context, token);
		state->token_until = until;
		source_redact_also(state->source, state->token);
	}
	else if (slot && my_turn)
		auth_forget(slot);
	crypto_wipe(shared, sizeof(shared));
	return state->token != NULL;
}

/* A text in base64url. */
char *
auth_base64(CryptoBase64 kind, const void *data, size_t len)
{
	char *out = palloc(CRYPTO_BASE64_SIZE(len));

	crypto_base64_encode(kind, data, len, out);
	return out;
}

/* How long a token is good, in seconds from now: from that many, or from the time of its end. */
static int64
auth_life(const char *text)
{
	TimestampTz at;
	double		seconds;

	if (text == NULL)
		return TOKEN_DEFAULT_S;
	if (time_iso(text, strlen(text), &at))
		return Min(TIME_UNIX(at) - (int64) time(NULL), TOKEN_MAX_S);
	if (text[0] < '0' || text[0] > '9')
		return TOKEN_DEFAULT_S;
	seconds = strtod(text, NULL);
	/* No token is valid for that many seconds: it is a time since 1970. */
	if (seconds > TOKEN_MAX_S && time_unix(text, strspn(text, "0123456789"), &at))
		return Min(TIME_UNIX(at) - (int64) time(NULL), TOKEN_MAX_S);
	return (int64) Min(seconds, (double) TOKEN_MAX_S);
}

static char *
auth_find(RestState *state, const RestPath *path, JsonParser *json)
{
	PageValue value = rest_find(state, path, json, JSON_ROOT, state->scratch[0]);

	return value.node ? json_value_text(value.json, value.node) : NULL;
}

/* The error of RFC 6749 (5.2), sanitized; NULL: the answer has none. */
static char *
auth_error(RestState *state, const JsonParser *json)
{
	bool  object = json != NULL && json->nodes[JSON_ROOT].type == JSON_OBJECT;
	char *code = object ? json_member_text(json, JSON_ROOT, "error") : NULL;
	char *description = object ? json_member_text(json, JSON_ROOT, "error_description") : NULL;
	char *error = code ? code : description;

	if (code && description)
		error = psprintf("%s: %s", code, description);
	return error ? source_told(state->source, error, strlen(error), TOKEN_ERROR_BYTES) : NULL;
}

/* Names of the members of an object, as a text. */
static char *
auth_members(const JsonParser *json)
{
	const JsonNode *nodes = json->nodes;
	StringInfoData	names;
	int				n = 0;

	initStringInfo(&names);
	for (uint32 i = nodes[JSON_ROOT].child; i != 0 && n < TOKEN_MEMBERS;
		 i = nodes[nodes[i].next].next)
	{
		char *name = json_value_text(json, i);

		if (name)
			appendStringInfo(&names, "%s\"%.40s\"", n++ ? ", " : "", name);
	}
	return names.data;
}

/* Reports why a successful answer contains no usable token. */
static void
auth_no_token(RestState *state, SourceAnswer *answer, const JsonParser *json)
{
	char			 *error = auth_error(state, json);
	const char		 *path = state->def->auth.token_path->text;
	static const char none[] = "the token endpoint's answer contains no token at";

	if (error)
		source_fail(state->source, answer, ERRCLASS_AUTH, "%s %s: %s", none, path, error);
	else if (json && json->nodes[JSON_ROOT].type == JSON_OBJECT &&
			 json->nodes[JSON_ROOT].child != 0)
		source_fail(state->source, answer, ERRCLASS_AUTH, "%s %s, but %s", none, path,
					auth_members(json));
	else if (json)
		source_fail(state->source, answer, ERRCLASS_AUTH, "%s %s", none, path);
	else
		source_fail(state->source, answer, ERRCLASS_AUTH, "%s %s: it is not JSON", none, path);
	if (json == NULL && (answer->len == 0 || strcasestr(answer->content_type, "html") != NULL))
		source_show(state->source, answer);
	else if (json == NULL && answer->content_type[0] != '\0')
		source_fail(state->source, answer, ERRCLASS_AUTH, "%s, but %s", answer->message,
					answer->content_type);
}

/* There is no token because of what was answered: notes the problem; false. */
static bool
auth_failed(RestState *state, const SourceAnswer *answer)
{
	rest_problem(state, answer->error_class, "%s", answer->message);
	state->problem.retryable = answer->retryable;
	state->problem.retry_after_ms = answer->retryable ? answer->retry_after_ms : -1;
	return false;
}

/* A token from an answer; false with the problem noted. */
static bool
auth_read_token(RestState *state, const HttpResponse *response, SourceAnswer *answer,
				const unsigned char *key)
{
	const RestAuth *auth = &state->def->auth;
	JsonParser	   *json = rest_parser(state);
	char		   *token = NULL;
	bool			good = response->status >= 200 && response->status <= 299;
	bool			fit = true;

	if (!json_parse(json, response->body, response->len, FLOHSYNC_MAX_NESTING) ||
		(json->nodes[JSON_ROOT].flags & JSON_F_BAD))
		json = NULL;
	if (good && json)
	{
		token = auth_find(state, auth->token_path, json);
		if (token)
			crypto_wipe_with(CurrentMemoryContext, token, strlen(token));
		for (const char *p = token; p && *p && fit; p++)
			fit = *p > ' ' && *p <= '~';
	}
	if (token && strlen(token) > FLOHSYNC_MAX_TOKEN_BYTES)
	{
		rest_problem(state, ERRCLASS_TOO_LARGE, "the access token has %zu bytes, more than %d",
					 strlen(token), FLOHSYNC_MAX_TOKEN_BYTES);
		crypto_wipe(token, strlen(token));
		return false;
	}
	if (token && token[0] != '\0' && fit)
	{
		int64 life = auth_life(auth_find(state, auth->expires_path, json));

		/* One that lives no longer than that is used for what is at hand. */
		state->token = MemoryContextStrdup(state->source->context, token);
		state->token_until = GetCurrentTimestamp() + Max(life - TOKEN_EARLY_S, 0) * USECS_PER_SEC;
		source_redact_also(state->source, state->token);
		if (life > TOKEN_EARLY_S)
			auth_keep(state, key, token, state->token_until);
		else
			auth_forget_all(state, key);
		return true;
	}
	if (!fit)
		source_fail(
			state->source, answer, ERRCLASS_AUTH,
			"the token endpoint's answer contains a token that cannot be sent in a header: it has white space or non-ASCII characters");
	else if (good)
		auth_no_token(state, answer, json);
	else
		source_fail_status(state->source, answer, response, SOURCE_TOKEN_ENDPOINT,
						   auth_error(state, json));
	/* Truncated, or from another server that listens there at the moment. */
	if (good && json == NULL)
	{
		answer->error_class = ERRCLASS_BAD_ANSWER;
		answer->retryable = true;
	}
	return auth_failed(state, answer);
}

/*
 * Waits until this worker is the one that asks for a token of a key; true: there
 * is one already.  Others that ask in vain, one after the other, do not hold it
 * up for longer than two of them can.
 */
static bool
auth_await_turn(RestState *state, const unsigned char key[CRYPTO_SHA256_BYTES])
{
	int64		one = (state->def->timeout_ms + TOKEN_TURN_MS) * INT64CONST(1000);
	TimestampTz patience = GetCurrentTimestamp() + 2 * one;

	for (;;)
	{
		TimestampTz now;

		if (auth_find_token(state, key, false))
			return true;
		now = GetCurrentTimestamp();
		if (shmem_token_claim(key, now + one) || now >= patience)
			break;
		wait_ms(TOKEN_TURN_MS, WAIT_RETRY);
	}
	/* It may have come just before the claim. */
	return auth_find_token(state, key, true);
}

static bool
auth_get_token(RestState *state)
{
	char		  *url = rest_fixed_url(state, state->def->auth.token_url);
	char		  *headers[3] = {"Content-Type: application/x-www-form-urlencoded"};
	HttpRequest	   request = {.url = url,
							  .headers = headers,
							  .nheaders = 1,
							  .max_bytes = FLOHSYNC_MAX_TOKEN_ANSWER,
							  .is_secret = true};
	HttpResponse   response;
	StringInfoData form;
	StringInfoData material;
	SourceAnswer   answer = {0};
	unsigned char  key[CRYPTO_SHA256_BYTES];
	const char	  *refused;
	bool		   got;

	if (url == NULL)
		return false;
	initStringInfo(&form);
	initStringInfo(&material);
	if (!auth_token_request(state, url, &form, &headers[1], &material))
		return false;
	crypto_wipe_with(CurrentMemoryContext, form.data, form.len);
	auth_key(material.data, key);
	crypto_wipe(material.data, material.len);
	memcpy(state->token_key, key, sizeof(key));
	if (auth_await_turn(state, key))
	{
		shmem_token_unclaim();
		return true;
	}
	if (!auth_add_jwt(state, url, &form, &headers[1]))
	{
		shmem_token_unclaim();
		return false;
	}
	refused = source_may_send(state->source, url);
	if (refused)
	{
		shmem_token_unclaim();
		rest_problem(state, ERRCLASS_CONFIGURATION, "%s", refused);
		return false;
	}
	if (headers[1])
		request.nheaders++;
	request.body = form.data;
	request.body_len = form.len;
	request.timeout_ms = state->def->timeout_ms;
	if (state->token_client == NULL)
		state->token_client = http_client_create();
	http_start(state->token_client, &request);
	http_finish(state->token_client, &response);
	crypto_wipe(form.data, form.len);
	got = source_take(state->source, &answer, &response, SOURCE_TOKEN_ENDPOINT) ?
		auth_read_token(state, &response, &answer, key) :
		auth_failed(state, &answer);
	shmem_token_unclaim();
	return got;
}

static bool
auth_has_token(const RestState *state)
{
	return state->def->auth.type == REST_AUTH_CLIENT_CREDENTIALS ||
		state->def->auth.type == REST_AUTH_JWT;
}

/* rest_wipe_token forgets the token of a source. */
void
rest_wipe_token(RestState *state)
{
	if (state->token == NULL)
		return;
	crypto_wipe(state->token, strlen(state->token));
	pfree(state->token);
	state->token = NULL;
}

/* rest_leave_token: this source needs no token any more. */
void
rest_leave_token(RestState *state)
{
	rest_wipe_token(state);
	shmem_token_unclaim();
	if (state->token_held)
		shmem_token_release(state->token_key);
	state->token_held = false;
}

/*
 * rest_drop_token: may a request that was refused be sent again with another
 * token?  With a new one once; and after that only if another worker has got one
 * meanwhile, which made ours void.  It may have been about to share it.
 */
bool
rest_drop_token(RestState *state)
{
	if (!auth_has_token(state) || state->token == NULL || state->refreshed >= TOKEN_MAX_REFUSED)
		return false;
	auth_key(state->token, state->refused);
	if (++state->refreshed > 1)
	{
		char		shared[SHMEM_TOKEN_BYTES];
		TimestampTz until;
		bool		another = false;

		for (int i = 0; i < 3 && !another; i++)
		{
			if (i > 0)
				wait_ms(TOKEN_SHARING_MS, WAIT_RETRY);
			another = shmem_token_get(state->token_key, shared, &until, &state->token_held) &&
				!auth_is_refused(state, shared);
			crypto_wipe(shared, sizeof(shared));
		}
		if (!another)
			return false;
	}
	rest_wipe_token(state);
	return true;
}

/*
 * A header whose value may hold anything that a secret holds; checked, as it is not the
 * definition's.
 */
static bool
auth_header(RestState *state, char **header, char *line)
{
	for (const unsigned char *p = (unsigned char *) line; *p; p++)
		if (*p < ' ' || *p == 0x7f)
		{
			rest_problem(state, ERRCLASS_CONFIGURATION,
						 "a credential of the connector contains control characters");
			return false;
		}
	*header = line;
	return true;
}

static char *
auth_line(const char *name, const char *prefix, const char *value)
{
	return crypto_join(CurrentMemoryContext, psprintf("%s: ", name), prefix, value);
}

/*
 * rest_authorize puts the credentials on a request, whose address is whole before; false
 * with the problem noted.
 */
bool
rest_authorize(RestState *state, StringInfo url, char **header)
{
	const RestAuth *auth = &state->def->auth;
	char		   *a = NULL;
	char		   *b = NULL;

	*header = NULL;
	switch (auth->type)
	{
		case REST_AUTH_NONE:
			return true;
		case REST_AUTH_BASIC:
			if (state->authorization == NULL)
			{
				a = rest_render_plain(state, auth->username);
				b = a ? rest_render_plain(state, auth->password) : NULL;
				if (b == NULL)
					return false;
				state->authorization = crypto_join(state->source->context, auth_basic(state, a, b),
												   "", "");
			}
			*header = state->authorization;
			return true;
		case REST_AUTH_BEARER:
			a = rest_render_plain(state, auth->token);
			return a != NULL &&
				auth_header(state, header, auth_line("Authorization", "Bearer ", a));
		case REST_AUTH_API_KEY:
			a = rest_render_plain(state, auth->value);
			if (a == NULL || !auth_optional(state, auth->prefix, &b))
				return false;
			if (auth->header)
				return auth_header(state, header, auth_line(auth->header, b ? b : "", a));
			enlargeStringInfo(url, (int) (auth_room(auth->query) + auth_room(a)));
			http_url_add(url, auth->query, a);
			crypto_wipe_with(CurrentMemoryContext, url->data, url->len);
			return true;
		case REST_AUTH_CLIENT_CREDENTIALS:
		case REST_AUTH_JWT:
			if (state->token && state->token_until <= GetCurrentTimestamp())
				rest_wipe_token(state);
			if (state->token == NULL && !auth_get_token(state))
				return false;
			return auth_header(state, header, auth_line("Authorization", "Bearer ", state->token));
	}
	return true;
}
