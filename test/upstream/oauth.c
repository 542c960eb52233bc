/*
 * oauth.c
 *	  A token endpoint, /oauth/token: client credentials (by Basic, in the
 *	  body, or by a signed assertion: RFC 6749, 7523) and the exchange of a
 *	  JWT, in a form (RFC 7523, as Google has it) or as the bearer token of
 *	  the request (as a GitHub App does).
 *
 * Tokens expire by the server's clock, so a test that steps it need not wait.
 */
#include "auth.h"
#include "data.h"
#include "faults.h"
#include "journal.h"
#include "jwt.h"
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define MAX_TOKENS 256
#define MAX_IDS	   256

typedef struct token
{
	char	text[64];
	int64_t expires;
} token;

static token	tokens[MAX_TOKENS];
static unsigned issued = 0;
static char		ids[MAX_IDS][64]; /* of assertions that have been used */
static unsigned ids_used = 0;

void
tokens_revoke(void)
{
	memset(tokens, 0, sizeof(tokens));
}

bool
token_is_good(const char *text)
{
	for (int i = 0; i < MAX_TOKENS; i++)
		if (tokens[i].text[0] && strcmp(tokens[i].text, text) == 0)
			return tokens[i].expires > clock_now();
	return false;
}

static token *
issue(void)
{
	token		 *t = &tokens[issued++ % MAX_TOKENS];
	unsigned char random[16];
	size_t		  n;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	n = (size_t) snprintf(t->text, sizeof(t->text), "issued-%u-", issued);
	for (size_t i = 0; i < sizeof(random); i++)
		n += (size_t) snprintf(t->text + n, sizeof(t->text) - n, "%02x", random[i]);
	t->expires = clock_now() + settings_int(&auth, "expires", 3600) * 1000000;
	return t;
}

/* A member of a form, decoded; false if it is not there. */
static bool
form_value(const buf *form, const char *name, char *out, size_t size)
{
	const char *at = form->p;
	const char *end = at + form->n;
	size_t		len = strlen(name);

	while (at != NULL && at < end)
	{
		const char *stop = memchr(at, '&', (size_t) (end - at));

		stop = stop ? stop : end;
		if ((size_t) (stop - at) > len && strncmp(at, name, len) == 0 && at[len] == '=')
		{
			size_t n = 0;

			for (at += len + 1; at < stop && n + 1 < size; at++)
			{
				char hex[3] = {0};

				if (*at == '%' && stop - at > 2)
				{
					memcpy(hex, at + 1, 2);
					out[n++] = (char) strtol(hex, NULL, 16);
					at += 2;
				}
				else
					out[n++] = *at == '+' ? ' ' : *at;
			}
			out[n] = '\0';
			return true;
		}
		at = stop + 1;
	}
	return false;
}

static bool
claim_is(const jwt *j, const char *name, const char *wanted)
{
	char text[1024];

	return request_member(j->claims.p, j->claims.n, name, text, sizeof(text)) &&
		strcmp(text, wanted) == 0;
}

static double
claim_number(const jwt *j, const char *name)
{
	char text[64];

	return request_member(j->claims.p, j->claims.n, name, text, sizeof(text)) ? strtod(text, NULL) :
																				-1;
}

static bool
id_is_new(const jwt *j)
{
	char id[64];

	if (!request_member(j->claims.p, j->claims.n, "jti", id, sizeof(id)) || strlen(id) < 8)
		return false;
	for (unsigned i = 0; i < MAX_IDS; i++)
		if (strcmp(ids[i], id) == 0)
			return false;
	strcpy(ids[ids_used++ % MAX_IDS], id);
	return true;
}

/* The assertion must be signed, for us, of now, and say what the test wants it to say. */
static const char *
assertion_complaint(call *c, const char *text, bool client)
{
	const char *alg = settings_text(&auth, "alg", "RS256");
	const char *names[] = {"iss", "sub", "scope"};
	const char *host = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Host");
	char		own_url[300];
	const char *aud;
	double		now = (double) clock_now() / 1e6;
	jwt			j;
	char		header[200];
	const char *wrong = jwt_verify(text, alg, auth_key.p ? auth_key.p : "", auth_key.n, &j);

	snprintf(own_url, sizeof(own_url), "http://%s%s", host ? host : "", c->url);
	aud = settings_text(&auth, "aud", own_url);
	if (wrong == NULL &&
		(!request_member(j.header.p, j.header.n, "alg", header, sizeof(header)) ||
		 strcmp(header, alg) != 0))
		wrong = "another algorithm in the header";
	if (wrong == NULL && settings_text(&auth, "kid", NULL) != NULL &&
		(!request_member(j.header.p, j.header.n, "kid", header, sizeof(header)) ||
		 strcmp(header, settings_text(&auth, "kid", "")) != 0))
		wrong = "another kid in the header";
	if (wrong == NULL && *aud && !claim_is(&j, "aud", aud))
		wrong = "aud is not right";
	if (wrong == NULL && client &&
		(!claim_is(&j, "iss", settings_text(&auth, "client_id", "")) ||
		 !claim_is(&j, "sub", settings_text(&auth, "client_id", ""))))
		wrong = "iss and sub are not the client";
	for (int i = 0; i < 3 && wrong == NULL && !client; i++)
		if (settings_text(&auth, names[i], NULL) != NULL &&
			!claim_is(&j, names[i], settings_text(&auth, names[i], "")))
			wrong = "a claim is not right";
	if (wrong == NULL && (claim_number(&j, "exp") <= now || claim_number(&j, "exp") > now + 600))
		wrong = "exp must be within ten minutes";
	if (wrong == NULL && (claim_number(&j, "iat") > now || claim_number(&j, "iat") < now - 600))
		wrong = "iat is not of now";
	if (wrong == NULL && client && !id_is_new(&j))
		wrong = "jti is missing or has been seen";
	jwt_free(&j);
	return wrong;
}

static bool
form_is(const buf *form, const char *name, const char *wanted)
{
	char text[512];

	return form_value(form, name, text, sizeof(text)) && strcmp(text, wanted) == 0;
}

/* What is wrong with a request for a token; NULL: nothing. */
static const char *
complaint(call *c)
{
	static char text[16384];
	const buf  *form = &c->body;
	const char *client = settings_text(&auth, "client", "basic");
	const char *id = settings_text(&auth, "client_id", "");
	const char *secret = settings_text(&auth, "client_secret", "");
	const char *scope = settings_text(&auth, "scope", NULL);
	const char *extra = settings_text(&auth, "extra", NULL);
	const char *given = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND,
													"Authorization");
	const char *type = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Content-Type");

	if (strcmp(c->method, "POST") != 0)
		return "only POST";
	if (strcmp(settings_text(&auth, "form", ""), "bearer") == 0)
	{
		if (given == NULL || strncmp(given, "Bearer ", 7) != 0)
			return "no bearer token";
		return assertion_complaint(c, given + 7, false);
	}
	if (type == NULL || strncmp(type, "application/x-www-form-urlencoded", 33) != 0)
		return "a form is wanted";
	if (extra != NULL)
	{
		size_t n = strcspn(extra, "=");
		char   name[64];

		snprintf(name, sizeof(name), "%.*s", (int) n, extra);
		if (extra[n] != '=' || !form_is(form, name, extra + n + 1))
			return "the extra parameter is not right";
	}
	if (strcmp(settings_text(&auth, "form", ""), "grant") == 0)
	{
		if (!form_is(form, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"))
			return "another grant_type";
		if (!form_value(form, "assertion", text, sizeof(text)))
			return "no assertion";
		return assertion_complaint(c, text, false);
	}
	if (!form_is(form, "grant_type", "client_credentials"))
		return "another grant_type";
	if (scope != NULL && !form_is(form, "scope", scope))
		return "another scope";
	if (strcmp(client, "basic") == 0)
		return form_value(form, "client_secret", text, sizeof(text)) ?
			"the secret twice" :
			auth_basic_complaint(c, id, secret, true);
	if (given != NULL)
		return "credentials twice";
	if (strcmp(client, "body") == 0)
		return form_is(form, "client_id", id) && form_is(form, "client_secret", secret) ?
			NULL :
			"wrong client";
	if (!form_is(form, "client_assertion_type",
				 "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"))
		return "another client_assertion_type";
	if (!form_value(form, "client_assertion", text, sizeof(text)))
		return "no client_assertion";
	return assertion_complaint(c, text, true);
}

static void
grant(answer *a)
{
	token	   *t = issue();
	bool		bearer = strcmp(settings_text(&auth, "form", ""), "bearer") == 0;
	const char *life = settings_text(&auth, "life", bearer ? "time" : "seconds");

	a->status = bearer ? MHD_HTTP_CREATED : MHD_HTTP_OK;
	buf_printf(&a->body, "{\"%s\":\"%s\",\"token_type\":\"Bearer\"",
			   bearer ? "token" : "access_token", t->text);
	if (strcmp(life, "seconds") == 0)
		buf_printf(&a->body, ",\"expires_in\":%lld", settings_int(&auth, "expires", 3600));
	else if (strcmp(life, "text") == 0)
		buf_printf(&a->body, ",\"expires_in\":\"%lld\"", settings_int(&auth, "expires", 3600));
	else if (strcmp(life, "time") == 0)
	{
		buf_lit(&a->body, ",\"expires_at\":\"");
		put_time(&a->body, t->expires);
		buf_char(&a->body, '"');
	}
	buf_char(&a->body, '}');
}

enum MHD_Result
token_run(call *c)
{
	struck		s = {0};
	request		q = {0};
	const char *wrong;

	journal_request(c, "token", "token", 0);
	faults_match(&s, "token", 0, false);
	c->answer.status = MHD_HTTP_OK;
	if (s.n > 0 && spoil_answer(&s, c, &q))
		return command_finish(c, &s, 0);
	wrong = complaint(c);
	if (wrong == NULL)
		grant(&c->answer);
	else
	{
		c->answer.status = MHD_HTTP_UNAUTHORIZED;
		buf_lit(&c->answer.body, "{\"error\":\"invalid_client\",\"error_description\":");
		buf_json_str(&c->answer.body, wrong);
		buf_char(&c->answer.body, '}');
	}
	return command_finish(c, &s, 0);
}
