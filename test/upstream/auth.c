/*
 * auth.c
 *	  The credentials that the paths below /rest want, as a test has set them:
 *	  none, a bearer token, user and password, a key in a header or in the
 *	  URL, or a token of our own token endpoint (oauth.c).
 */
#include "auth.h"
#include "jwt.h"

#include <stdlib.h>

settings auth;
buf		 auth_key;

static const char *
header(call *c, const char *name)
{
	return MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name);
}

static void
put_form(buf *b, const char *s)
{
	for (; *s; s++)
		if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
			*s == '-' || *s == '.' || *s == '_' || *s == '*')
			buf_char(b, *s);
		else
			buf_printf(b, "%%%02X", (unsigned char) *s);
}

/*
 * HTTP basic.  form: user and password are form-encoded first, as RFC 6749
 * (2.3.1) wants it of clients; those who don't are let in, too.
 */
const char *
auth_basic_complaint(call *c, const char *user, const char *password, bool form)
{
	const char *given = header(c, "Authorization");
	buf			plain = {0};
	buf			encoded = {0};
	buf			got = {0};
	bool		right;

	if (given == NULL || strncmp(given, "Basic ", 6) != 0)
		return "no user and password";
	buf_str(&plain, user);
	buf_char(&plain, ':');
	buf_str(&plain, password);
	put_form(&encoded, user);
	buf_char(&encoded, ':');
	put_form(&encoded, password);
	right = base64_decode(given + 6, strlen(given + 6), &got) &&
		((got.n == plain.n && memcmp(got.p, plain.p, got.n) == 0) ||
		 (form && got.n == encoded.n && strncasecmp(got.p, encoded.p, got.n) == 0));
	buf_free(&plain);
	buf_free(&encoded);
	buf_free(&got);
	return right ? NULL : "wrong user or password";
}

static const char *
must_be(const char *given, const char *wanted)
{
	return given != NULL && strcmp(given, wanted) == 0 ? NULL : "the credentials are not right";
}

const char *
auth_complaint(call *c)
{
	const char *kind = settings_text(&auth, "kind", "none");
	const char *name = settings_text(&auth, "name", "X-Api-Key");
	const char *value = settings_text(&auth, "value", "");
	const char *bearer = header(c, "Authorization");

	bearer = bearer != NULL && strncmp(bearer, "Bearer ", 7) == 0 ? bearer + 7 : NULL;
	if (strcmp(kind, "bearer") == 0)
		return must_be(bearer, value);
	if (strcmp(kind, "basic") == 0)
		return auth_basic_complaint(c, settings_text(&auth, "user", ""),
									settings_text(&auth, "password", ""), false);
	if (strcmp(kind, "header") == 0)
		return must_be(header(c, name), value);
	if (strcmp(kind, "query") == 0)
		return must_be(call_arg(c, name), value);
	if (strcmp(kind, "token") == 0)
		return bearer != NULL && token_is_good(bearer) ? NULL :
														 "the token is not, or no longer, good";
	return command_token_is_right(c) ? NULL : "the token is not right";
}

void
auth_set(call *c)
{
	settings_clear(&auth);
	auth_key.n = 0;
	tokens_revoke();
	if (c == NULL)
		return;
	settings_take(&auth, c);
	if (c->body.n > 0)
		buf_put(&auth_key, c->body.p, c->body.n);
}
