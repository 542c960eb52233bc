/*
 * rest_auth.c
 *	  Credentials of requests; tokens and the signed JWTs that they are got for.
 *
 * A token lives in the memory of this process until 60 seconds before it
 * expires, under a digest of everything that it was asked for with: another
 * secret, or another connector, never gets it.  It is hidden (source_hide) from
 * the moment it is known.
 *
 * What a token endpoint answers is never put in a message, but for the error
 * code of RFC 6749 (5.2).
 */
#include "postgres.h"

#include <time.h>

#include "common/hashfn.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "crypto.h"
#include "rest.h"

#define TOKEN_SLOTS			8
#define TOKEN_EARLY_S		60
#define TOKEN_DEFAULT_S		300
#define TOKEN_MAX_BYTES		65536
#define TOKEN_MAX_S			(10 * 365 * 86400)

typedef struct TokenSlot
{
	uint64		key[2];			/* 0, 0: free */
	char	   *token;
	TimestampTz until;
} TokenSlot;

static TokenSlot token_slots[TOKEN_SLOTS];

static void
auth_key(const char *material, uint64 key[2])
{
	key[0] = hash_bytes_extended((const unsigned char *) material, strlen(material), 0x666c6f68);
	key[1] = hash_bytes_extended((const unsigned char *) material, strlen(material), 0x73796e63) | 1;
}

static TokenSlot *
auth_slot(const uint64 key[2])
{
	for (int i = 0; i < TOKEN_SLOTS; i++)
		if (token_slots[i].key[0] == key[0] && token_slots[i].key[1] == key[1])
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
auth_keep(const uint64 key[2], const char *token, TimestampTz until)
{
	TokenSlot  *slot = auth_slot(key);

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
	memcpy(slot->key, key, sizeof(slot->key));
}

/* A text in base64url. */
static char *
auth_base64(CryptoBase64 kind, const void *data, size_t len)
{
	char	   *out = palloc(CRYPTO_BASE64_SIZE(len));

	crypto_base64_encode(kind, data, len, out);
	return out;
}

static char *
auth_basic(const char *user, const char *password)
{
	char	   *pair = psprintf("%s:%s", user, password);
	char	   *header = psprintf("Authorization: Basic %s", auth_base64(CRYPTO_BASE64, pair, strlen(pair)));

	crypto_wipe(pair, strlen(pair));
	pfree(pair);
	return header;
}

static void
auth_claim(StringInfo out, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(out, ",\"%s\":", name);
	escape_json(out, value);
}

/* Renders an optional template; false with the problem noted when that fails. */
static bool
auth_optional(RestState *state, const RestTemplate *t, char **value)
{
	*value = NULL;
	if (t == NULL)
		return true;
	*value = rest_render_plain(state, t);
	return *value != NULL;
}

/* Keys are often stored with their line breaks written out. */
static char *
auth_pem(char *key)
{
	char	   *out = key;

	if (strchr(key, '\n') != NULL)
		return key;
	for (const char *p = key; *p; p++)
	{
		if (p[0] == '\\' && p[1] == 'n')
		{
			*out++ = '\n';
			p++;
		}
		else
			*out++ = *p;
	}
	*out = '\0';
	return key;
}

/* A signed JWT; NULL with the problem noted. */
static char *
auth_jwt(RestState *state, const char *iss, const char *sub, const char *aud, const char *scope, bool with_jti)
{
	const RestAuth *auth = &state->def->auth;
	CryptoAlgorithm algorithm;
	unsigned char signature[CRYPTO_MAX_SIGNATURE];
	size_t		signature_len;
	StringInfoData header;
	StringInfoData claims;
	char	   *kid;
	char	   *key;
	char	   *input;
	const char *problem;
	time_t		now = time(NULL);

	if (!auth_optional(state, auth->kid, &kid) || !auth_optional(state, auth->key, &key))
		return NULL;
	if (!crypto_algorithm(auth->alg, &algorithm))
	{
		rest_problem(state, "configuration", "the algorithm \"%s\" is not known", auth->alg);
		return NULL;
	}
	initStringInfo(&header);
	appendStringInfo(&header, "{\"alg\":\"%s\",\"typ\":\"JWT\"", auth->alg);
	auth_claim(&header, "kid", kid);
	appendStringInfoChar(&header, '}');
	initStringInfo(&claims);
	appendStringInfo(&claims, "{\"iat\":" INT64_FORMAT ",\"exp\":" INT64_FORMAT, (int64) now - 60, (int64) now + 300);
	auth_claim(&claims, "iss", iss);
	auth_claim(&claims, "sub", sub);
	auth_claim(&claims, "aud", aud);
	auth_claim(&claims, "scope", scope);
	if (with_jti)
	{
		unsigned char id[16];

		if (!crypto_random(id, sizeof(id)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random bytes")));
		auth_claim(&claims, "jti", auth_base64(CRYPTO_BASE64URL, id, sizeof(id)));
	}
	appendStringInfoChar(&claims, '}');
	input = psprintf("%s.%s", auth_base64(CRYPTO_BASE64URL, header.data, header.len),
					 auth_base64(CRYPTO_BASE64URL, claims.data, claims.len));
	auth_pem(key);
	problem = crypto_sign(algorithm, key, strlen(key), input, strlen(input), signature, &signature_len);
	crypto_wipe(key, strlen(key));
	if (problem)
	{
		rest_problem(state, "configuration", "the private key cannot be used: %s", problem);
		return NULL;
	}
	return psprintf("%s.%s", input, auth_base64(CRYPTO_BASE64URL, signature, signature_len));
}

static void
auth_form(StringInfo form, const char *name, const char *value)
{
	if (value == NULL)
		return;
	if (form->len > 0)
		appendStringInfoChar(form, '&');
	http_url_encode(form, name);
	appendStringInfoChar(form, '=');
	http_url_encode(form, value);
}

/*
 * The request for a token.  *material is what the token depends on, without
 * what differs from time to time.  False with the problem noted.
 */
static bool
auth_token_request(RestState *state, const char *url, StringInfo form, char **header, StringInfo material)
{
	const RestAuth *auth = &state->def->auth;
	char	   *id,
			   *secret,
			   *scope,
			   *iss,
			   *sub,
			   *aud,
			   *key;
	StringInfoData user;
	StringInfoData password;

	*header = NULL;
	if (!auth_optional(state, auth->client_id, &id) || !auth_optional(state, auth->client_secret, &secret) ||
		!auth_optional(state, auth->scope, &scope) || !auth_optional(state, auth->iss, &iss) ||
		!auth_optional(state, auth->sub, &sub) || !auth_optional(state, auth->aud, &aud) ||
		!auth_optional(state, auth->key, &key))
		return false;
	appendStringInfo(material, "%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%d\n%d\n%s", url, id ? id : "", secret ? secret : "", scope ? scope : "",
					 iss ? iss : "", sub ? sub : "", aud ? aud : "", key ? key : "", auth->client_auth, auth->bearer,
					 auth->token_path->text);
	if (auth->type == REST_AUTH_JWT)
	{
		if (aud == NULL && !auth->bearer)
			aud = pstrdup(url);
		/* Made only when it is needed: see rest_authorize. */
		auth_form(form, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
		return true;
	}
	auth_form(form, "grant_type", "client_credentials");
	auth_form(form, "scope", scope);
	for (int i = 0; i < auth->extra.n; i++)
	{
		char	   *value = auth->extra.params[i].fixed ? auth->extra.params[i].fixed :
			rest_render_plain(state, auth->extra.params[i].value);

		if (value == NULL)
			return false;
		auth_form(form, auth->extra.params[i].name, value);
	}
	appendStringInfo(material, "\n%s", form->data);
	switch (auth->client_auth)
	{
		case REST_CLIENT_BASIC:
			/* RFC 6749, 2.3.1: encoded as in a form, first. */
			initStringInfo(&user);
			initStringInfo(&password);
			http_url_encode(&user, id);
			http_url_encode(&password, secret);
			*header = auth_basic(user.data, password.data);
			break;
		case REST_CLIENT_BODY:
			auth_form(form, "client_id", id);
			auth_form(form, "client_secret", secret);
			break;
		case REST_CLIENT_JWT:
			auth_form(form, "client_id", id);
			auth_form(form, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
			break;
	}
	return true;
}

/* Adds the JWT that goes with a request for a token. */
static bool
auth_add_jwt(RestState *state, const char *url, StringInfo form, char **header)
{
	const RestAuth *auth = &state->def->auth;
	char	   *id,
			   *scope,
			   *iss,
			   *sub,
			   *aud;
	char	   *jwt;

	if (!auth_optional(state, auth->client_id, &id) || !auth_optional(state, auth->scope, &scope) ||
		!auth_optional(state, auth->iss, &iss) || !auth_optional(state, auth->sub, &sub) ||
		!auth_optional(state, auth->aud, &aud))
		return false;
	if (auth->type == REST_AUTH_CLIENT_CREDENTIALS)
	{
		if (auth->client_auth != REST_CLIENT_JWT)
			return true;
		jwt = auth_jwt(state, id, id, aud ? aud : url, NULL, true);
		if (jwt == NULL)
			return false;
		auth_form(form, "client_assertion", jwt);
		return true;
	}
	jwt = auth_jwt(state, iss, sub, aud || auth->bearer ? aud : url, scope, false);
	if (jwt == NULL)
		return false;
	if (auth->bearer)
	{
		resetStringInfo(form);
		*header = psprintf("Authorization: Bearer %s", jwt);
	}
	else
		auth_form(form, "assertion", jwt);
	return true;
}

/* How long a token is good, in seconds from now. */
static int64
auth_life(const char *text)
{
	int			y,
				mon,
				d,
				h,
				min,
				s;

	if (text == NULL)
		return TOKEN_DEFAULT_S;
	if (sscanf(text, "%d-%d-%dT%d:%d:%d", &y, &mon, &d, &h, &min, &s) == 6 &&
		y > 1970 && y < 10000 && mon >= 1 && mon <= 12 && d >= 1 && d <= 31)
		return (int64) (date2j(y, mon, d) - UNIX_EPOCH_JDATE) * 86400 + h * 3600 + min * 60 + s - (int64) time(NULL);
	if (text[0] >= '0' && text[0] <= '9')
		return (int64) Min(strtod(text, NULL), (double) TOKEN_MAX_S);
	return TOKEN_DEFAULT_S;
}

static char *
auth_find(RestState *state, const RestPath *path, JsonParser *json)
{
	PageValue	value = rest_find(state, path, json, JSON_ROOT, state->side[0]);

	return value.node ? rest_text(value.json, value.node) : NULL;
}

/* A token from an answer; false with the problem noted. */
static bool
auth_read_token(RestState *state, const HttpResponse *response, const uint64 key[2])
{
	const RestAuth *auth = &state->def->auth;
	JsonParser *json = json_parser_create();
	char	   *token = NULL;
	bool		is_json = json_parse(json, response->body, response->len, FLOHSYNC_MAX_NESTING) &&
		(json->nodes[JSON_ROOT].flags & JSON_F_BAD) == 0;

	if (response->status >= 200 && response->status <= 299 && is_json)
	{
		token = auth_find(state, auth->token_path, json);
		for (const char *p = token; p && *p; p++)
			if (*p <= ' ' || *p > '~')
			{
				token = NULL;
				break;
			}
	}
	if (token && token[0] != '\0')
	{
		int64		life = auth_life(auth_find(state, auth->expires_path, json));

		/* One that lives no longer than that is used for what is at hand. */
		state->token = MemoryContextStrdup(state->source->context, token);
		state->token_until = GetCurrentTimestamp() + Max(life - TOKEN_EARLY_S, 0) * USECS_PER_SEC;
		source_hide(state->source, state->token);
		if (life > TOKEN_EARLY_S)
			auth_keep(key, token, state->token_until);
		crypto_wipe(token, strlen(token));
		return true;
	}
	if (response->status >= 200 && response->status <= 299 && !is_json)
	{
		/* Cut, or of somebody else who listens there at the moment. */
		rest_problem(state, "bad_answer", "the token endpoint's answer is not JSON");
		state->problem.retryable = true;
	}
	else if (response->status >= 200 && response->status <= 299)
		rest_problem(state, "auth", "the token endpoint's answer holds no token");
	else
	{
		char	   *code = is_json ? rest_member_text(json, JSON_ROOT, "error") : NULL;
		bool		plain = code != NULL && strlen(code) < 64;

		for (const char *p = code; plain && *p; p++)
			plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_';
		rest_problem(state, "auth", "the token endpoint answered with status %d%s%s", response->status,
					 plain ? ": " : "", plain ? code : "");
		if (response->status == 408 || response->status == 425 || response->status == 429 || response->status >= 500)
		{
			state->problem.error_class = response->status == 429 ? "throttled" : "http_status";
			state->problem.retryable = true;
			state->problem.retry_after_ms = http_retry_after_ms(response->retry_after, time(NULL));
		}
	}
	return false;
}

static bool
auth_get_token(RestState *state)
{
	char	   *url = rest_base_url(state, state->def->auth.token_url);
	char	   *headers[3] = {"Content-Type: application/x-www-form-urlencoded"};
	HttpRequest request = {.url = url, .headers = headers, .nheaders = 1, .max_bytes = TOKEN_MAX_BYTES};
	HttpResponse response;
	StringInfoData form;
	StringInfoData material;
	TokenSlot  *slot;
	uint64		key[2];

	if (url == NULL)
		return false;
	initStringInfo(&form);
	initStringInfo(&material);
	if (!auth_token_request(state, url, &form, &headers[1], &material))
		return false;
	auth_key(material.data, key);
	crypto_wipe(material.data, material.len);
	slot = auth_slot(key);
	if (slot && state->refreshed)
		auth_forget(slot);
	else if (slot && slot->until > GetCurrentTimestamp())
	{
		state->token = MemoryContextStrdup(state->source->context, slot->token);
		state->token_until = slot->until;
		source_hide(state->source, state->token);
		return true;
	}
	if (!auth_add_jwt(state, url, &form, &headers[1]))
		return false;
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
	if (response.failure != HTTP_OK)
	{
		bool		refused = response.failure == HTTP_REDIRECT || response.failure == HTTP_TOO_LARGE || response.failure == HTTP_BAD_URL;

		rest_problem(state, refused ? "auth" : http_failure_class(response.failure), "token endpoint: %s", response.message);
		state->problem.retryable = http_failure_passes(response.failure);
		return false;
	}
	return auth_read_token(state, &response, key);
}

static bool
auth_has_token(const RestState *state)
{
	return state->def->auth.type == REST_AUTH_CLIENT_CREDENTIALS || state->def->auth.type == REST_AUTH_JWT;
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

/* rest_drop_token: may a request that was refused be sent again with another token?  But once. */
bool
rest_drop_token(RestState *state)
{
	if (!auth_has_token(state) || state->refreshed)
		return false;
	rest_wipe_token(state);
	state->refreshed = true;
	return true;
}

/* A header whose value may hold anything that a secret holds; checked, as it is not the definition's. */
static bool
auth_header(RestState *state, char **header, char *line)
{
	for (const unsigned char *p = (unsigned char *) line; *p; p++)
		if (*p < ' ' || *p == 0x7f)
		{
			rest_problem(state, "configuration", "a credential of the connector holds control characters");
			return false;
		}
	*header = line;
	return true;
}

/* rest_authorize puts the credentials on a request; false with the problem noted. */
bool
rest_authorize(RestState *state, StringInfo url, char **header)
{
	const RestAuth *auth = &state->def->auth;
	char	   *a = NULL;
	char	   *b = NULL;

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
				state->authorization = MemoryContextStrdup(state->source->context, auth_basic(a, b));
				source_hide(state->source, strrchr(state->authorization, ' ') + 1);
			}
			*header = state->authorization;
			return true;
		case REST_AUTH_BEARER:
			a = rest_render_plain(state, auth->token);
			return a != NULL && auth_header(state, header, psprintf("Authorization: Bearer %s", a));
		case REST_AUTH_API_KEY:
			a = rest_render_plain(state, auth->value);
			if (a == NULL || !auth_optional(state, auth->prefix, &b))
				return false;
			if (auth->header)
				return auth_header(state, header, psprintf("%s: %s%s", auth->header, b ? b : "", a));
			http_url_add(url, auth->query, a);
			return true;
		case REST_AUTH_CLIENT_CREDENTIALS:
		case REST_AUTH_JWT:
			if (state->token && state->token_until <= GetCurrentTimestamp())
				rest_wipe_token(state);
			if (state->token == NULL && !auth_get_token(state))
				return false;
			return auth_header(state, header, psprintf("Authorization: Bearer %s", state->token));
	}
	return true;
}
