/*
 * unit_jwt.c
 *	  Checks which tokens are accepted (gateway/jwt.c): each rule on either side,
 *	  the examples of RFC 7515, and claims by path.
 */
#include "unit.h"

#include "gateway/json_room.h"
#include "gateway/jwt.h"
#include "net/crypto.h"
#include "keys.h"
#include "unit_jwt.h"

#define RFC_PAYLOAD \
	"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
#define RFC_A1 \
	"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC_PAYLOAD \
	".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define RFC_A2 \
	"eyJhbGciOiJSUzI1NiJ9." RFC_PAYLOAD \
	".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5" \
	"jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb" \
	"1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QO" \
	"YEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
#define RFC_A3 \
	"eyJhbGciOiJFUzI1NiJ9." RFC_PAYLOAD \
	".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
#define RFC_NOW 1300819379

static JwtKeys *all;
static JwtRules any = {NULL, NULL, 0, JWT_LEEWAY};

char *
unit_sign(const char *signed_text, char key)
{
	unsigned char signature[CRYPTO_MAX_SIGNATURE];
	unsigned char secret[100];
	size_t		  n = 0;
	char		 *token = malloc(strlen(signed_text) + 1 + CRYPTO_BASE64_SIZE(sizeof(signature)));
	ssize_t		  secret_len;
	const char	 *pem = key == 'r' ? rsa_pkcs1 : ec_sec1;

	if (key == 'h')
	{
		secret_len = crypto_base64_decode(CRYPTO_BASE64URL, SECRET_K, strlen(SECRET_K), secret);
		n = CRYPTO_HMAC_BYTES;
		if (!crypto_hmac_sha256(secret, secret_len, signed_text, strlen(signed_text), signature))
			abort();
	}
	else if (crypto_sign(key == 'r' ? CRYPTO_RS256 : CRYPTO_ES256, pem, strlen(pem), signed_text,
						 strlen(signed_text), signature, &n) != NULL)
		abort();
	strcpy(token, signed_text);
	strcat(token, ".");
	crypto_base64_encode(CRYPTO_BASE64URL, signature, n, token + strlen(token));
	return token;
}

char *
unit_token(const char *header, const char *payload, char key)
{
	char  *text = malloc(CRYPTO_BASE64_SIZE(strlen(header)) + CRYPTO_BASE64_SIZE(strlen(payload)));
	size_t n = crypto_base64_encode(CRYPTO_BASE64URL, header, strlen(header), text);
	char  *token;

	text[n++] = '.';
	crypto_base64_encode(CRYPTO_BASE64URL, payload, strlen(payload), text + n);
	token = unit_sign(text, key);
	free(text);
	return token;
}

/* From a copy of its own size, so that a sanitizer sees each byte read past the end. */
static JwtResult
verify_at(const JwtKeys *keys, const JwtRules *rules, const char *token, int64_t now,
		  JwtClaims *claims)
{
	size_t	  len = strlen(token);
	char	 *copy = malloc(Max(len, 1));
	JwtResult result;

	memcpy(copy, token, len);
	result = jwt_verify(keys, rules, copy, len, now, claims);
	free(copy);
	return result;
}

static const char *
verify_name(const JwtKeys *keys, const JwtRules *rules, const char *token)
{
	JwtClaims claims;
	JwtResult result = verify_at(keys, rules, token, NOW, &claims);

	if (result != JWT_OK && (claims.payload != NULL || claims.subject != NULL))
		return "claims of a token that was refused";
	jwt_claims_free(&claims);
	return jwt_result_name(result);
}

/* What comes of a header and a payload, signed by the key. */
static const char *
outcome(const JwtRules *rules, const char *header, const char *payload, char key)
{
	char	   *token = unit_token(header, payload, key);
	const char *name = verify_name(all, rules, token);

	free(token);
	return name;
}

static void
test_rfc(void)
{
	static const char *const tokens[] = {RFC_A1, RFC_A2, RFC_A3};
	char					 name[100];

	for (int i = 0; i < lengthof(tokens); i++)
	{
		JwtClaims claims;
		char	 *wrong = strdup(tokens[i]);
		int		  accepted = 0;

		snprintf(name, sizeof(name), "RFC 7515, A.%d", i + 1);
		ok(verify_at(all, &any, tokens[i], RFC_NOW, &claims) == JWT_OK &&
			   claims.expires_at == 1300819380 && claims.subject == NULL &&
			   strlen(claims.payload) == claims.payload_len &&
			   strstr(claims.payload, "\"iss\":\"joe\"") != NULL,
		   name);
		jwt_claims_free(&claims);
		/* Any other character at any place. */
		for (int k = 0; wrong[k] != '\0'; k++)
		{
			wrong[k] = tokens[i][k] == 'A' ? 'B' : 'A';
			accepted += verify_at(all, &any, wrong, RFC_NOW, &claims) == JWT_OK;
			wrong[k] = tokens[i][k];
		}
		/* Cut short, or with more behind. */
		for (size_t k = 0; k < strlen(tokens[i]); k++)
			accepted += jwt_verify(all, &any, tokens[i], k, RFC_NOW, &claims) == JWT_OK;
		snprintf(name, sizeof(name), "A.%d with another character, or cut, is refused", i + 1);
		is_int(accepted, 0, name);
		free(wrong);
	}
}

/* Headers, with a good payload: by which key it is signed, what comes of it. */
static void
test_headers(void)
{
	/* clang-format off */
	static const struct
	{
		const char *header;
		char		key;
		const char *outcome;
	} rows[] = {
		{"{\"alg\":\"HS256\"}", 'h', "ok"},
		{"{\"alg\":\"RS256\"}", 'r', "ok"},
		{"{\"alg\":\"ES256\"}", 'e', "ok"},
		{"{\"alg\":\"RS256\",\"kid\":\"r\",\"typ\":\"JWT\"}", 'r', "ok"},
		{"{\"\\u0061lg\":\"R\\u00532\\u00356\",\"kid\":\"\\u0072\"}", 'r', "ok"},
		/* the algorithm is the key's */
		{"{\"alg\":\"HS256\",\"kid\":\"r\"}", 'h', "wrong-algorithm"},
		{"{\"alg\":\"RS256\",\"kid\":\"h\"}", 'r', "wrong-algorithm"},
		{"{\"alg\":\"HS256\"}", 'r', "wrong-signature"},
		{"{\"alg\":\"RS256\"}", 'h', "wrong-signature"},
		{"{\"alg\":\"ES256\"}", 'r', "wrong-signature"},
		{"{\"alg\":\"none\"}", 'h', "wrong-algorithm"},
		{"{\"alg\":\"None\"}", 'h', "wrong-algorithm"},
		{"{\"alg\":\"\"}", 'h', "wrong-algorithm"},
		{"{\"alg\":\"HS512\"}", 'h', "wrong-algorithm"},
		{"{\"alg\":\"hs256\"}", 'h', "wrong-algorithm"},
		{"{\"alg\":\"HS256\\u0000\"}", 'h', "malformed"},
		{"{\"alg\":[\"HS256\"]}", 'h', "wrong-algorithm"},
		{"{\"alg\":null}", 'h', "wrong-algorithm"},
		{"{}", 'h', "wrong-algorithm"},
		/* kid chooses, and does nothing else */
		{"{\"alg\":\"HS256\",\"kid\":\"x\"}", 'h', "unknown-key"},
		{"{\"alg\":\"HS256\",\"kid\":\"\"}", 'h', "unknown-key"},
		{"{\"alg\":\"HS256\",\"kid\":\"../h\"}", 'h', "unknown-key"},
		{"{\"alg\":\"HS256\",\"kid\":7}", 'h', "malformed"},
		{"{\"alg\":\"HS256\",\"kid\":null}", 'h', "malformed"},
		/* what a header says about keys is ignored */
		{"{\"alg\":\"HS256\",\"jku\":\"https://evil.example\",\"x5u\":\"https://evil.example\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}}", 'h', "ok"},
		{"{\"alg\":\"HS256\",\"jku\":\"https://evil.example\"}", 'r', "wrong-signature"},
		/* what must be understood is not */
		{"{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", 'h', "critical-header"},
		{"{\"alg\":\"HS256\",\"crit\":[]}", 'h', "critical-header"},
		{"{\"alg\":\"HS256\",\"crit\":null}", 'h', "critical-header"},
		/* each member once, however it is written */
		{"{\"alg\":\"none\",\"alg\":\"HS256\"}", 'h', "malformed"},
		{"{\"alg\":\"HS256\",\"alg\":\"HS256\"}", 'h', "malformed"},
		{"{\"alg\":\"HS256\",\"kid\":\"x\",\"k\\u0069d\":\"h\"}", 'h', "malformed"},
		{"{\"alg\":\"HS256\",\"x\":{\"a\":1,\"a\":2}}", 'h', "malformed"},
		/* a JSON object */
		{"[\"HS256\"]", 'h', "malformed"},
		{"\"HS256\"", 'h', "malformed"},
		{"{\"alg\":\"HS256\"", 'h', "malformed"},
		{"{\"alg\":\"HS256\"} {}", 'h', "malformed"},
		{"{\"alg\":\"HS256\",\"x\":\"\xFF\"}", 'h', "malformed"},
		{"\xEF\xBB\xBF{\"alg\":\"HS256\"}", 'h', "malformed"},
		{" {\"alg\":\"HS256\"}\n", 'h', "ok"},
	};
	/* clang-format on */
	char name[200];

	for (int i = 0; i < lengthof(rows); i++)
	{
		snprintf(name, sizeof(name), "header %.100s, signed by %c", rows[i].header, rows[i].key);
		is(outcome(&any, rows[i].header, "{\"exp\":1700000001}", rows[i].key), rows[i].outcome,
		   name);
	}
}

static void
test_form(void)
{
	/* clang-format off */
	static const struct
	{
		const char *text; /* header and payload, as they are signed */
		const char *outcome;
	} rows[] = {
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDF9", "ok"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDEgfQ", "ok"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDEgfR", "malformed"}, /* bits to spare */
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDEgfQ==", "malformed"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDEgf", "malformed"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDEgfQ\n", "malformed"},
		{"eyJhbGciOiJIUzI1NiIgfQ==.eyJleHAiOjE3MDAwMDAwMDF9", "malformed"},
		{"eyJhbGciOiJIUzI1NiIgfQ.eyJleHAiOjE3MDAwMDAwMDF9", "ok"},
		{"eyJhbGciOiJIUzI1NiIgfR.eyJleHAiOjE3MDAwMDAwMDF9", "malformed"},
		{" eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDF9", "malformed"},
		{"eyJhbGciOiJIUzI1NiJ9.", "malformed"},
		{".eyJleHAiOjE3MDAwMDAwMDF9", "malformed"},
		{"eyJhbGciOiJIUzI1NiJ9", "malformed"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDF9.e30", "malformed"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJ4IjoiPz8_IiwiZXhwIjoxNzAwMDAwMDAxfQ", "ok"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJ4IjoiPz8/IiwiZXhwIjoxNzAwMDAwMDAxfQ", "malformed"},
	};
	/* clang-format on */
	char	   name[200];
	char	  *token;
	char	  *payload = malloc(JWT_MAX_BYTES);
	const char nothing[] = "eyJhbGciOiJub25lIn0.eyJleHAiOjE3MDAwMDAwMDF9.";

	for (int i = 0; i < lengthof(rows); i++)
	{
		token = unit_sign(rows[i].text, 'h');
		snprintf(name, sizeof(name), "form %s", rows[i].text);
		is(verify_name(all, &any, token), rows[i].outcome, name);
		free(token);
	}
	is(verify_name(all, &any, ""), "malformed", "no text is no token");
	is(verify_name(all, &any, ".."), "malformed", "nor are two points");
	is(verify_name(all, &any, nothing), "malformed", "nor is what nobody has signed");
	token = unit_sign(rows[0].text, 'h');
	strcat(token, "=");
	is(verify_name(all, &any, token), "malformed", "a signature has no padding");
	free(token);

	/* 20 characters of header, 43 of signature, two points: 8127 for the payload. */
	for (int n = 6095; n <= 6096; n++)
	{
		memset(payload, ' ', n);
		strcpy(payload + n - 18, "{\"exp\":1700000001}");
		token = unit_token("{\"alg\":\"HS256\"}", payload, 'h');
		snprintf(name, sizeof(name), "a token of %zu bytes", strlen(token));
		is(verify_name(all, &any, token), strlen(token) <= 8192 ? "ok" : "too-long", name);
		free(token);
	}
	free(payload);
}

/* Values of ECDSA with which a verifier that does not look accepts anything. */
static void
test_ecdsa(void)
{
	static const char *const numbers[] = {
		"0000000000000000000000000000000000000000000000000000000000000000",
		"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", /* the order */
		"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552",
		"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff", /* of the field */
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"0000000000000000000000000000000000000000000000000000000000000001",
	};
	unsigned char signature[65] = {0};
	char		  token[300];
	int			  refused = 0;

	for (int r = 0; r < lengthof(numbers); r++)
		for (int s = 0; s < lengthof(numbers); s++)
		{
			crypto_hex_decode(numbers[r], 64, signature);
			crypto_hex_decode(numbers[s], 64, signature + 32);
			strcpy(token, "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDF9.");
			crypto_base64_encode(CRYPTO_BASE64URL, signature, 64, token + strlen(token));
			refused += strcmp(verify_name(all, &any, token), "wrong-signature") == 0;
		}
	is_int(refused, lengthof(numbers) * lengthof(numbers), "no ECDSA signature of edge values");
	for (int n = 63; n <= 65; n += 2)
	{
		strcpy(token, "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDF9.");
		memset(signature, 1, sizeof(signature));
		crypto_base64_encode(CRYPTO_BASE64URL, signature, n, token + strlen(token));
		is(verify_name(all, &any, token), "wrong-signature", "nor of another length");
	}
}

/* A signature that is right, with a byte more or less, is another one. */
static void
test_lengths(void)
{
	static const char *const headers[] = {"{\"alg\":\"HS256\"}", "{\"alg\":\"RS256\"}",
										  "{\"alg\":\"ES256\"}"};
	unsigned char			 signature[CRYPTO_MAX_SIGNATURE + 1];

	for (int i = 0; i < lengthof(headers); i++)
	{
		char *token = unit_token(headers[i], "{\"exp\":1700000001}", "hre"[i]);
		char *part = strrchr(token, '.') + 1;
		char *longer = malloc(strlen(token) + 10);
		int	  n = crypto_base64_decode(CRYPTO_BASE64URL, part, strlen(part), signature);

		for (int more = -1; more <= 1; more++)
		{
			signature[n] = 0;
			strcpy(longer, token);
			crypto_base64_encode(CRYPTO_BASE64URL, signature, n + more, longer + (part - token));
			is(verify_name(all, &any, longer), more == 0 ? "ok" : "wrong-signature",
			   "a signature has the length that it has");
		}
		free(longer);
		free(token);
	}
}

static void
test_latest(void)
{
	char	 *token = unit_token("{\"alg\":\"HS256\"}", "{\"exp\":1e300}", 'h');
	JwtClaims claims;

	ok(verify_at(all, &any, token, NOW, &claims) == JWT_OK &&
		   claims.expires_at == INT64CONST(253402300799),
	   "no token is good for longer than there are times");
	jwt_claims_free(&claims);
	free(token);
}

/* The parser takes no memory while it parses, whatever the text. */
static void
test_room(void)
{
	char	   *deep = malloc(1000);
	JsonParser *json;
	int			wrong = 0;

	memset(deep, '[', 1000);
	for (size_t len = 1; len <= 900; len++)
	{
		json = json_room_create(len, 10);
		if (json == NULL)
			abort();
		for (size_t n = 0; n <= len + 8; n++)
		{
			JsonNode *nodes = json->nodes;
			uint8_t	 *brackets = json->brackets;

			if (n + 9 < len && n > 3)
				continue;
			wrong += json_room_parse(json, deep, n, 1 + n % 3) ||
				(n <= len && strcmp(json->error, "too long") == 0);
			wrong += json->nodes != nodes || json->brackets != brackets;
		}
		wrong += json_room_parse(json, deep, len + 16, 1) || strcmp(json->error, "too long") != 0;
		json_room_free(json);
	}
	is_int(wrong, 0, "brackets need no more room than there is");
	json = json_room_create(1000, 10);
	for (int i = 0; i < 1000; i++)
		deep[i] = i == 0 ? '[' : i % 2 ? '1' : ',';
	ok(json != NULL && !json_room_parse(json, deep, 1000, 4) &&
		   strcmp(json->error, "too many values") == 0,
	   "nor do values");
	json_room_free(json);
	free(deep);
}

/* As many members as an object may have, and one more: of the payload, or of the header. */
static void
test_members(bool of_header)
{
	int	  most = of_header ? 32 : 256;
	char *object = malloc(JWT_MAX_BYTES);

	for (int n = most; n <= most + 1; n++)
	{
		char *out = object +
			sprintf(object, of_header ? "{\"alg\":\"HS256\"" : "{\"exp\":1700000001");

		for (int i = 1; i < n; i++)
			out += sprintf(out, ",\"%d\":0", i);
		strcpy(out, "}");
		is(outcome(&any, of_header ? object : "{\"alg\":\"HS256\"}",
				   of_header ? "{\"exp\":1700000001}" : object, 'h'),
		   n == most ? "ok" : "malformed",
		   of_header ? "members of a header" : "members of a payload");
	}
	free(object);
}

/* Payloads; the rules ask for an issuer and one of two audiences where they say so. */
static void
test_payloads(void)
{
	static const char *const audiences[] = {"api", "other"};
	static const JwtRules	 strict = {"https://i", audiences, 2, JWT_LEEWAY};
#define S "\"iss\":\"https://i\",\"aud\":\"api\","
	/* clang-format off */
	static const struct
	{
		bool		strict;
		const char *payload;
		const char *outcome;
	} rows[] = {
		{false, "{\"exp\":1700000001}", "ok"},
		{false, "{\"exp\":1699999971}", "ok"},
		{false, "{\"exp\":1699999970}", "expired"},
		{false, "{\"exp\":1699999970.9}", "expired"},
		{false, "{\"exp\":1699999971.5}", "ok"},
		{false, "{\"exp\":1.7e9}", "ok"},
		{false, "{\"exp\":17E+8}", "ok"},
		{false, "{\"exp\":1600000000000000000e-9}", "expired"},
		{false, "{\"exp\":1800000000000000000000000e-15}", "ok"},
		{false, "{\"exp\":1e300}", "ok"},
		{false, "{\"exp\":99999999999999999999999999999999999999}", "ok"},
		{false, "{\"exp\":1e-300}", "expired"},
		{false, "{\"exp\":1e999999999}", "malformed"},
		{false, "{\"exp\":0}", "expired"},
		{false, "{\"exp\":0e9}", "expired"},
		{false, "{\"exp\":-1800000000}", "expired"},
		{false, "{\"exp\":-1e300}", "expired"},
		{false, "{}", "no-expiry"},
		{false, "{\"exp\":\"1800000000\"}", "bad-claims"},
		{false, "{\"exp\":null}", "bad-claims"},
		{false, "{\"exp\":true}", "bad-claims"},
		{false, "{\"exp\":[1800000000]}", "bad-claims"},
		{false, "{\"exp\":1700000001,\"nbf\":1700000030}", "ok"},
		{false, "{\"exp\":1700000001,\"nbf\":1700000031}", "not-yet"},
		{false, "{\"exp\":1700000001,\"nbf\":\"1\"}", "bad-claims"},
		{false, "{\"exp\":1700000001,\"nbf\":null}", "bad-claims"},
		{false, "{\"exp\":1700000001,\"iat\":1700000030}", "ok"},
		{false, "{\"exp\":1700000001,\"iat\":1700000031}", "not-yet"},
		{false, "{\"exp\":1700000001,\"iat\":{}}", "bad-claims"},
		{false, "{\"exp\":1700000001,\"sub\":\"u\"}", "ok"},
		{false, "{\"exp\":1700000001,\"sub\":7}", "bad-claims"},
		{false, "{\"exp\":1700000001,\"iss\":\"anybody\"}", "ok"},
		{false, "{\"exp\":1700000001,\"iss\":7}", "bad-claims"},
		/* who has no name is not meant */
		{false, "{\"exp\":1700000001,\"aud\":\"api\"}", "wrong-audience"},
		{false, "{\"exp\":1700000001,\"aud\":[]}", "wrong-audience"},
		{true, "{" S "\"exp\":1700000001}", "ok"},
		{true, "{\"iss\":\"https:\\/\\/i\",\"aud\":\"\\u0061pi\",\"exp\":1700000001}", "ok"},
		{true, "{\"aud\":\"api\",\"exp\":1700000001}", "wrong-issuer"},
		{true, "{\"iss\":\"https://i/\",\"aud\":\"api\",\"exp\":1700000001}", "wrong-issuer"},
		{true, "{\"iss\":\"HTTPS://i\",\"aud\":\"api\",\"exp\":1700000001}", "wrong-issuer"},
		{true, "{\"iss\":[\"https://i\"],\"aud\":\"api\",\"exp\":1700000001}", "bad-claims"},
		{true, "{\"iss\":\"https://i\",\"exp\":1700000001}", "wrong-audience"},
		{true, "{\"iss\":\"https://i\",\"aud\":\"ap\",\"exp\":1700000001}", "wrong-audience"},
		{true, "{\"iss\":\"https://i\",\"aud\":\"other\",\"exp\":1700000001}", "ok"},
		{true, "{\"iss\":\"https://i\",\"aud\":[\"x\",\"api\"],\"exp\":1700000001}", "ok"},
		{true, "{\"iss\":\"https://i\",\"aud\":[\"x\",\"y\"],\"exp\":1700000001}", "wrong-audience"},
		{true, "{\"iss\":\"https://i\",\"aud\":[],\"exp\":1700000001}", "wrong-audience"},
		{true, "{\"iss\":\"https://i\",\"aud\":[\"api\",7],\"exp\":1700000001}", "bad-claims"},
		{true, "{\"iss\":\"https://i\",\"aud\":{\"api\":1},\"exp\":1700000001}", "bad-claims"},
		{true, "{\"iss\":\"https://i\",\"aud\":null,\"exp\":1700000001}", "bad-claims"},
		/* each member once */
		{false, "{\"exp\":1700000001,\"exp\":1}", "malformed"},
		{false, "{\"exp\":1,\"\\u0065xp\":1700000001}", "malformed"},
		{false, "{\"exp\":1700000001,\"role\":\"a\",\"role\":\"b\"}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":{\"b\":[{\"c\":1,\"c\":1}]}}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":{\"exp\":1},\"b\":{\"exp\":1}}", "ok"},
		/* what PostgreSQL would not take */
		{false, "{\"exp\":1700000001,\"a\":\"\\u0000\"}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\\u0000\":1}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":\"\\ud800\"}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":\"\\ud83d\\ude00\"}", "ok"},
		{false, "{\"exp\":1700000001,\"a\":\"\xC3\xA9\"}", "ok"},
		{false, "{\"exp\":1700000001,\"a\":\"\xC3\"}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":\"\xED\xA0\x80\"}", "malformed"},
		{false, "\xEF\xBB\xBF{\"exp\":1700000001}", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":1e100000}", "malformed"},
		/* an object, not too deep */
		{false, "[1700000001]", "malformed"},
		{false, "1700000001", "malformed"},
		{false, "null", "malformed"},
		{false, "{\"exp\":1700000001", "malformed"},
		{false, "{\"exp\":1700000001}x", "malformed"},
		{false, "{\"exp\":1700000001,\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", "ok"},
		{false, "{\"exp\":1700000001,\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", "malformed"},
	};
	/* clang-format on */
	char name[200];

	for (int i = 0; i < lengthof(rows); i++)
	{
		snprintf(name, sizeof(name), "payload %.150s%s", rows[i].payload,
				 rows[i].strict ? ", under rules" : "");
		is(outcome(rows[i].strict ? &strict : &any, "{\"alg\":\"HS256\"}", rows[i].payload, 'h'),
		   rows[i].outcome, name);
	}
}

/* Keys without a kid are meant by one that none has; and never with another algorithm. */
static void
test_kids(void)
{
	static const char sets[][1200] = {
		"{\"keys\":[{" RSA_MEMBERS "}]}",
		"{\"keys\":[{\"kid\":\"a\"," RSA_MEMBERS "},{" SECRET_MEMBERS "}]}",
	};
	JwtKeys *keys;
	char	 error[200];
	char	*rsa = unit_token("{\"alg\":\"RS256\",\"kid\":\"x\"}", "{\"exp\":1700000001}", 'r');
	char	*secret = unit_token("{\"alg\":\"HS256\",\"kid\":\"x\"}", "{\"exp\":1700000001}", 'h');
	char	*named = unit_token("{\"alg\":\"HS256\",\"kid\":\"a\"}", "{\"exp\":1700000001}", 'h');

	ok(jwt_keys_parse(sets[0], strlen(sets[0]), &keys, error, sizeof(error)), "a key without kid");
	is(verify_name(keys, &any, rsa), "ok", "may be meant by any kid");
	is(verify_name(keys, &any, secret), "wrong-algorithm", "but keeps its algorithm");
	jwt_keys_free(keys);
	ok(jwt_keys_parse(sets[1], strlen(sets[1]), &keys, error, sizeof(error)), "one of each");
	is(verify_name(keys, &any, secret), "ok", "the one without is meant by what no other has");
	is(verify_name(keys, &any, rsa), "wrong-algorithm", "and the other is not tried then");
	is(verify_name(keys, &any, named), "wrong-algorithm", "nor the one without when it is named");
	jwt_keys_free(keys);
	free(rsa);
	free(secret);
	free(named);
}

/* The strings at a path, with a blank behind each; "-" where there are none. */
static const char *
claim_at(const JwtClaims *claims, const char *path)
{
	static char out[256];
	JwtStrings	strings;

	strcpy(out, "");
	if (!jwt_claim(claims, path, &strings))
		return strings.count == 0 && strings.values == NULL ? "-" : "what was not freed";
	for (int i = 0; i < strings.count; i++)
	{
		strcat(out, strings.values[i]);
		strcat(out, " ");
	}
	jwt_strings_free(&strings);
	return out;
}

static void
test_claim_paths(void)
{
	static const char payload[] =
		"{\"exp\":1700000001,\"sub\":\"u\\u0031\",\"role\":\"r\\u00e9\",\"realm_access\":{\"roles\":["
		"\"a\",\"b\"]},\"https://x.example/role\":\"w\",\"n\":7,\"mixed\":[\"a\",1],\"none\":[],"
		"\"list\":[{\"id\":\"x\"},{\"id\":\"y\"}],\"null\":null,\"r\\u006fle-2$@_\":\"k\"}";
	/* clang-format off */
	static const struct
	{
		const char *path;
		const char *found;
		bool		valid;
	} rows[] = {
		{".role", "r\xC3\xA9 ", true},
		{".\"role\"", "r\xC3\xA9 ", true},
		{".realm_access.roles", "a b ", true},
		{".realm_access.roles[1]", "b ", true},
		{".realm_access.roles[2]", "-", true},
		{".\"https://x.example/role\"", "w ", true},
		{".role-2$@_", "k ", true},
		{".list[1].id", "y ", true},
		{".list[0][0]", "-", true},
		{".none", "", true},
		{".n", "-", true},
		{".mixed", "-", true},
		{".mixed[0]", "a ", true},
		{".null", "-", true},
		{".realm_access", "-", true},
		{".role.x", "-", true},
		{".absent", "-", true},
		{".Role", "-", true},
		{".a.b.c.d.e.f.g.h", "-", true},
		{".a.b.c.d.e.f.g.h.i", "-", false},
		{"role", "-", false},
		{"", "-", false},
		{".", "-", false},
		{"..role", "-", false},
		{".role.", "-", false},
		{".\"role", "-", false},
		{".\"\"", "-", false},
		{".role x", "-", false},
		{".\"role\"x", "-", false},
		{".list[", "-", false},
		{".list[]", "-", false},
		{".list[-1]", "-", false},
		{".list[1000]", "-", false},
		{".list[0", "-", false},
	};
	/* clang-format on */
	char	 *token = unit_token("{\"alg\":\"HS256\"}", payload, 'h');
	JwtClaims claims;
	char	  name[200];

	ok(verify_at(all, &any, token, NOW, &claims) == JWT_OK, "a token with claims");
	is(claims.subject, "u1", "its subject");
	is(claims.payload, payload, "its payload, as it was signed");
	is_int(claims.expires_at, NOW + 1, "when it expires");
	for (int i = 0; i < lengthof(rows); i++)
	{
		snprintf(name, sizeof(name), "the claim at %s", rows[i].path);
		is(claim_at(&claims, rows[i].path), rows[i].found, name);
		ok(jwt_path_valid(rows[i].path) == rows[i].valid, "and whether that is a path");
	}
	jwt_claims_free(&claims);
	free(token);

	for (int n = JWT_MAX_STRINGS; n <= JWT_MAX_STRINGS + 1; n++)
	{
		char	  *many = malloc(n * 4 + 100);
		JwtStrings strings;

		strcpy(many, "{\"exp\":1700000001,\"r\":[\"a\"");
		for (int i = 1; i < n; i++)
			strcat(many, ",\"a\"");
		strcat(many, "]}");
		token = unit_token("{\"alg\":\"HS256\"}", many, 'h');
		ok(verify_at(all, &any, token, NOW, &claims) == JWT_OK &&
			   jwt_claim(&claims, ".r", &strings) == (n == JWT_MAX_STRINGS) &&
			   strings.count == (n == JWT_MAX_STRINGS ? n : 0),
		   "as many strings as may be, and one more");
		jwt_strings_free(&strings);
		jwt_claims_free(&claims);
		free(token);
		free(many);
	}
}

void
test_jwt(void)
{
	char error[200];

	ok(jwt_keys_parse(ALL_KEYS, strlen(ALL_KEYS), &all, error, sizeof(error)), "the keys");
	if (all == NULL)
		return;
	test_rfc();
	test_headers();
	test_form();
	test_ecdsa();
	test_lengths();
	test_payloads();
	test_latest();
	test_members(false);
	test_members(true);
	test_room();
	test_kids();
	test_claim_paths();
	for (int i = JWT_OK; i <= JWT_NO_MEMORY; i++)
		if (jwt_result_text(i) == NULL || jwt_result_name(i) == NULL)
			ok(false, "every result has a text");
	jwt_keys_free(all);
}
