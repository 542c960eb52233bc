/*
 * fuzz_request.c
 *	  libFuzzer target: a request as flohsync-http gets it from the library: framing,
 *	  route, query, body, and the claims of a token.
 *
 * The input is the head of a request, with its method and target alone in the first
 * line, an empty line, and the body.  A header Claims is signed and sent as a token.
 */
#include "base/standalone.h"

#include <string.h>
#include <strings.h>

#include "framing.h"
#include "json_text.h"
#include "jwt.h"
#include "net/crypto.h"
#include "request.h"

#define HEADERS 64

jmp_buf *standalone_catch = NULL;

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char			   *names[HEADERS];
static const char			   *values[HEADERS];
static int						nheaders;
static union MHD_ConnectionInfo head_size;

/*
 * What stands for libmicrohttpd.
 */

int
MHD_get_connection_values_n(struct MHD_Connection *connection, enum MHD_ValueKind kind,
							MHD_KeyValueIteratorN call, void *arg)
{
	for (int i = 0; i < nheaders; i++)
		call(arg, kind, names[i], strlen(names[i]), values[i], strlen(values[i]));
	return nheaders;
}

const union MHD_ConnectionInfo *
MHD_get_connection_info(struct MHD_Connection *connection, enum MHD_ConnectionInfoType type, ...)
{
	return &head_size;
}

const char *
request_header(const Request *r, const char *name)
{
	for (int i = 0; i < nheaders; i++)
	{
		if (strcasecmp(names[i], name) == 0)
			return values[i];
	}
	return NULL;
}

/* Cuts the first line off, and the end of the line in the way that the library does. */
static char *
next_line(char **rest, char *end)
{
	char *line = *rest;
	char *lf = memchr(line, '\n', end - line);

	if (lf == NULL)
		return NULL;
	*lf = '\0';
	if (lf > line && lf[-1] == '\r')
		lf[-1] = '\0';
	*rest = lf + 1;
	return line;
}

/* Method, target and version; headers; false when the library would not call us. */
static bool
read_head(char **text, char *end, char **method, char **uri, char **version)
{
	char *start = *text;
	char *line = next_line(text, end);

	nheaders = 0;
	if (line == NULL || (*uri = strchr(line, ' ')) == NULL)
		return false;
	*method = line;
	*(*uri)++ = '\0';
	*version = strrchr(*uri, ' ');
	if (*version == NULL)
		return false;
	*(*version)++ = '\0';
	while ((line = next_line(text, end)) != NULL && line[0] != '\0')
	{
		char *colon = strchr(line, ':');

		if (colon == NULL || nheaders == HEADERS)
			return false;
		*colon++ = '\0';
		names[nheaders] = line;
		values[nheaders++] = colon + strspn(colon, " \t");
	}
	head_size.header_size = *text - start;
	return line != NULL;
}

static void
check_answer(const Answer *a)
{
	const JsonParser *json = json_read(a->body.p, a->body.n);

	if (a->status < 400 || a->status > 499 || json == NULL ||
		json->nodes[JSON_ROOT].type != JSON_OBJECT || !is_text(a->body.p, a->body.n))
		abort();
}

/* What is called with must be text as the database knows it. */
static void
check_values(const Request *r)
{
	for (int i = 0; i < ROUTE_PARAMS && r->route->param[i].name != NULL; i++)
	{
		if (r->owned[i] != NULL && !is_text(r->owned[i], strlen(r->owned[i])))
			abort();
		if (r->route->param[i].required && r->route->param[i].sql != NULL && r->owned[i] == NULL)
			abort();
	}
}

static void
try_token(const char *claims)
{
	static const char		 secret[] = "a secret of more than thirty-two bytes";
	static const char *const audience[] = {"flohsync"};
	static JwtKeys			*keys;
	static const JwtRules	 rules = {NULL, audience, 1, JWT_LEEWAY};
	static const char		 header[] = "eyJhbGciOiJIUzI1NiJ9.";
	char					 error[256];
	char					 token[JWT_MAX_BYTES * 2];
	unsigned char			 signature[CRYPTO_SHA256_BYTES];
	JwtClaims				 verified;
	JwtStrings				 strings;
	size_t					 n;

	if (keys == NULL && !jwt_keys_parse(secret, strlen(secret), &keys, error, sizeof(error)))
		abort();
	if (strlen(claims) > JWT_MAX_BYTES / 2)
		return;
	strcpy(token, header);
	n = strlen(header);
	n += crypto_base64_encode(CRYPTO_BASE64URL, claims, strlen(claims), token + n);
	if (!crypto_hmac_sha256(secret, strlen(secret), token, n, signature))
		abort();
	token[n++] = '.';
	n += crypto_base64_encode(CRYPTO_BASE64URL, signature, sizeof(signature), token + n);
	switch (jwt_verify(keys, &rules, token, n, 1700000000, &verified))
	{
		case JWT_OK:
			break;
		case JWT_SIGNATURE:
		case JWT_ALGORITHM:
		case JWT_UNKNOWN_KEY:
			abort();
		default:
			return;
	}
	if (json_read(verified.payload, verified.payload_len) == NULL)
		abort();
	if (jwt_claim(&verified, ".role", &strings))
		jwt_strings_free(&strings);
	if (jwt_claim(&verified, ".realm_access.roles[0]", &strings))
		jwt_strings_free(&strings);
	jwt_claims_free(&verified);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool started;
	Request		r = {0};
	char	   *copy = malloc(size + 1);
	char	   *rest = copy;
	char	   *method;
	char	   *uri;
	char	   *version;
	char		problem[128];
	char		allow[64];

	if (!started)
		routes_start();
	started = true;
	memcpy(copy, data, size);
	copy[size] = '\0';
	if (!read_head(&rest, copy + size, &method, &uri, &version))
		goto done;
	r.method = must_copy(method);
	r.uri = must_copy(uri);
	r.uri_at = uri;
	framing_ok(&r, method, version, problem, sizeof(problem));
	if (request_header(&r, "Claims") != NULL)
		try_token(request_header(&r, "Claims"));
	if (!uri_read(&r, problem, sizeof(problem)))
		goto done;
	for (int i = 0; i < r.nsegments; i++)
	{
		if (!is_text(r.segment[i], strlen(r.segment[i])))
			abort();
	}
	r.route = routes_find(r.method, r.segment, r.nsegments, allow);
	if (r.route == NULL)
		goto done;
	buf_add(&r.body, rest, copy + size - rest);
	if (params_read(&r))
		check_values(&r);
	else
		check_answer(&r.answer);
done:
	answer_free(&r.answer);
	buf_free(&r.body);
	for (int i = 0; i < ROUTE_PARAMS; i++)
		free(r.owned[i]);
	free(r.path);
	free(r.query);
	free(r.uri);
	free(r.method);
	free(copy);
	return 0;
}
