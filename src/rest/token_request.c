/*
 * token_request.c
 *	  The request for an access token: its form, and the signed JWTs in it.
 */
#include "postgres.h"

#include <time.h>

#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "net/crypto_memory.h"
#include "rest/auth.h"

char *
auth_basic(RestState *state, const char *user, const char *password)
{
	char *pair = crypto_join(CurrentMemoryContext, user, ":", password);
	char *encoded = auth_base64(CRYPTO_BASE64, pair, strlen(pair));

	crypto_wipe_with(CurrentMemoryContext, encoded, strlen(encoded));
	source_redact_also(state->source, encoded);
	return crypto_join(CurrentMemoryContext, "Authorization: Basic ", encoded, "");
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
bool
auth_optional(RestState *state, const Template *t, char **value)
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
	char *out = key;

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
auth_jwt(RestState *state, const char *iss, const char *sub, const char *aud, const char *scope,
		 bool with_jti)
{
	const RestAuth *auth = &state->def->auth;
	CryptoAlgorithm algorithm;
	unsigned char	signature[CRYPTO_MAX_SIGNATURE];
	size_t			signature_len;
	StringInfoData	header;
	StringInfoData	claims;
	char		   *kid;
	char		   *key;
	char		   *input;
	const char	   *problem;
	time_t			now = time(NULL);

	if (!auth_optional(state, auth->kid, &kid) || !auth_optional(state, auth->key, &key))
		return NULL;
	if (!crypto_algorithm(auth->alg, &algorithm))
	{
		rest_problem(state, ERRCLASS_CONFIGURATION, "the algorithm \"%s\" is not known", auth->alg);
		return NULL;
	}
	initStringInfo(&header);
	appendStringInfo(&header, "{\"alg\":\"%s\",\"typ\":\"JWT\"", auth->alg);
	auth_claim(&header, "kid", kid);
	appendStringInfoChar(&header, '}');
	initStringInfo(&claims);
	appendStringInfo(&claims, "{\"iat\":" INT64_FORMAT ",\"exp\":" INT64_FORMAT, (int64) now - 60,
					 (int64) now + 300);
	auth_claim(&claims, "iss", iss);
	auth_claim(&claims, "sub", sub);
	auth_claim(&claims, "aud", aud);
	auth_claim(&claims, "scope", scope);
	if (with_jti)
	{
		unsigned char id[16];

		if (!crypto_random(id, sizeof(id)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random bytes")));
		auth_claim(&claims, "jti", auth_base64(CRYPTO_BASE64URL, id, sizeof(id)));
	}
	appendStringInfoChar(&claims, '}');
	input = psprintf("%s.%s", auth_base64(CRYPTO_BASE64URL, header.data, header.len),
					 auth_base64(CRYPTO_BASE64URL, claims.data, claims.len));
	auth_pem(key);
	problem = crypto_sign(algorithm, key, strlen(key), input, strlen(input), signature,
						  &signature_len);
	crypto_wipe(key, strlen(key));
	if (problem)
	{
		rest_problem(state, ERRCLASS_CONFIGURATION, "the private key cannot be used: %s", problem);
		return NULL;
	}
	input = crypto_join(CurrentMemoryContext, input, ".",
						auth_base64(CRYPTO_BASE64URL, signature, signature_len));
	/* Of no use without its signature; and the beginning is that of any other, too. */
	source_redact_also(state->source, strrchr(input, '.') + 1);
	return input;
}

/* So much room a text takes in a form, with what stands between. */
size_t
auth_room(const char *text)
{
	return text ? 3 * strlen(text) + 32 : 32;
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

/* Adds a part of what a token depends on, so that no two lists of parts come to the same. */
static void
auth_depends(StringInfo material, const char *part)
{
	if (part == NULL)
		appendStringInfoChar(material, '-');
	else
		appendStringInfo(material, "%zu:%s", strlen(part), part);
}

/*
 * The request for a token.  *material is what the token depends on, without
 * what differs from time to time.  False with the problem noted.
 */
bool
auth_token_request(RestState *state, const char *url, StringInfo form, char **header,
				   StringInfo material)
{
	const RestAuth *auth = &state->def->auth;
	char		   *id, *secret, *scope, *iss, *sub, *aud, *key, *kid;
	char		  **extra = palloc(sizeof(char *) * (auth->extra.n + 1));
	size_t			room = 0;
	StringInfoData	user;
	StringInfoData	password;

	*header = NULL;
	if (!auth_optional(state, auth->client_id, &id) ||
		!auth_optional(state, auth->client_secret, &secret) ||
		!auth_optional(state, auth->scope, &scope) || !auth_optional(state, auth->iss, &iss) ||
		!auth_optional(state, auth->sub, &sub) || !auth_optional(state, auth->aud, &aud) ||
		!auth_optional(state, auth->key, &key) || !auth_optional(state, auth->kid, &kid))
		return false;
	for (int i = 0; i < auth->extra.n; i++)
	{
		extra[i] = auth->extra.params[i].fixed ?
			auth->extra.params[i].fixed :
			rest_render_plain(state, auth->extra.params[i].value);
		if (extra[i] == NULL)
			return false;
		room += auth_room(auth->extra.params[i].name) + auth_room(extra[i]);
	}
	room += auth_room(url) + auth_room(id) + auth_room(secret) + auth_room(scope) + auth_room(iss) +
		auth_room(sub) + auth_room(aud) + auth_room(key) + auth_room(kid) +
		auth_room(auth->token_path->text) + 1000;
	enlargeStringInfo(form, (int) room);
	enlargeStringInfo(material, (int) (2 * room));
	appendStringInfo(material, "%d %d ", auth->client_auth, auth->bearer);
	auth_depends(material, url);
	auth_depends(material, id);
	auth_depends(material, secret);
	auth_depends(material, scope);
	auth_depends(material, iss);
	auth_depends(material, sub);
	auth_depends(material, aud);
	auth_depends(material, key);
	auth_depends(material, auth->token_path->text);
	auth_depends(material, auth->alg);
	auth_depends(material, kid);
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
		auth_form(form, auth->extra.params[i].name, extra[i]);
	auth_depends(material, form->data);
	switch (auth->client_auth)
	{
		case REST_CLIENT_BASIC:
			/* RFC 6749, 2.3.1: encoded as in a form, first. */
			initStringInfo(&user);
			initStringInfo(&password);
			enlargeStringInfo(&password, (int) auth_room(secret));
			http_url_encode(&user, id);
			http_url_encode(&password, secret);
			crypto_wipe_with(CurrentMemoryContext, password.data, password.len);
			*header = auth_basic(state, user.data, password.data);
			break;
		case REST_CLIENT_BODY:
			auth_form(form, "client_id", id);
			auth_form(form, "client_secret", secret);
			break;
		case REST_CLIENT_JWT:
			auth_form(form, "client_id", id);
			auth_form(form, "client_assertion_type",
					  "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
			break;
	}
	return true;
}

/* The form does not grow where it is: see the head of this file. */
static void
auth_form_jwt(StringInfo form, const char *name, const char *jwt)
{
	StringInfoData whole;

	initStringInfo(&whole);
	enlargeStringInfo(&whole, form->len + (int) (auth_room(name) + auth_room(jwt)));
	appendBinaryStringInfo(&whole, form->data, form->len);
	auth_form(&whole, name, jwt);
	crypto_wipe_with(CurrentMemoryContext, whole.data, whole.len);
	*form = whole;
}

/* Adds the JWT that goes with a request for a token. */
bool
auth_add_jwt(RestState *state, const char *url, StringInfo form, char **header)
{
	const RestAuth *auth = &state->def->auth;
	char		   *id, *scope, *iss, *sub, *aud;
	char		   *jwt;

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
		auth_form_jwt(form, "client_assertion", jwt);
		return true;
	}
	jwt = auth_jwt(state, iss, sub, aud || auth->bearer ? aud : url, scope, false);
	if (jwt == NULL)
		return false;
	if (auth->bearer)
	{
		resetStringInfo(form);
		*header = crypto_join(CurrentMemoryContext, "Authorization: Bearer ", jwt, "");
	}
	else
		auth_form_jwt(form, "assertion", jwt);
	return true;
}
