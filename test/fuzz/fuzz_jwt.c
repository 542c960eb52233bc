/*
 * fuzz_jwt.c
 *	  Any bytes as a token, as the header and payload of a token that is signed,
 *	  and as a file of keys: nothing is read past them, nothing is lost, and what
 *	  is accepted keeps the rules that can be told without a parser.
 *
 * The first byte says what the rest is; a signed token has the text before the first
 * newline as its header.
 */
#include "base/standalone.h"

#include "gateway/jwt.h"
#include "json/json.h"
#include "net/crypto.h"

jmp_buf *standalone_catch = NULL;

#define NOW 1700000000

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "check failed: %s\n", #condition); \
			abort(); \
		} \
	} while (0)

static const char secret[] = "0123456789abcdef0123456789abcdef";

static const char *const audiences[] = {"a", "b"};
static const JwtRules	 rules[] = {{NULL, NULL, 0, 30}, {"i", audiences, 2, 30}};

static const char *const paths[] = {".role", ".a.b", ".\"x.y\"[0]", ".a[1].b", ".sub"};

static void
check_keys(const char *data, size_t size)
{
	JwtKeys *keys;
	char	 error[300] = "";
	bool	 good = jwt_keys_parse(data, size, &keys, error, sizeof(error));

	CHECK(good == (keys != NULL) && good == (error[0] == '\0'));
	if (good)
	{
		/* Nothing with a point of origin in PEM or JSON is a secret by mistake. */
		CHECK(jwt_keys_count(keys) >= 1 && jwt_keys_count(keys) <= JWT_KEYS_MAX);
		CHECK(memmem(data, size, "-----BEGIN ", 11) == NULL || !jwt_keys_secret(keys) ||
			  memchr(data, '{', size) != NULL);
	}
	jwt_keys_free(keys);
}

static void
check_accepted(const JwtRules *rule, JwtClaims *claims)
{
	JwtStrings strings;

	CHECK(strlen(claims->payload) == claims->payload_len);
	CHECK(claims->expires_at + rule->leeway > NOW);
	CHECK(memchr(claims->payload, '{', claims->payload_len) != NULL);
	for (size_t i = 0; i < lengthof(paths); i++)
	{
		if (!jwt_claim(claims, paths[i], &strings))
		{
			CHECK(strings.count == 0 && strings.values == NULL);
			continue;
		}
		CHECK(strings.count <= JWT_MAX_STRINGS);
		if (i == lengthof(paths) - 1)
			CHECK(strings.count == 1 && strcmp(strings.values[0], claims->subject) == 0);
		jwt_strings_free(&strings);
	}
	jwt_claims_free(claims);
}

static void
check_token(const JwtKeys *keys, const JwtRules *rule, const char *token, size_t len)
{
	JwtClaims claims;
	JwtResult result = jwt_verify(keys, rule, token, len, NOW, &claims);

	CHECK(jwt_result_text(result) != NULL && result != JWT_NO_MEMORY);
	if (result == JWT_OK)
		check_accepted(rule, &claims);
	else
		CHECK(claims.payload == NULL && claims.subject == NULL);
}

/* The token that whoever has the secret would make of a header and a payload. */
static char *
sign(const char *data, size_t size, size_t *len)
{
	const char *newline = memchr(data, '\n', size);
	size_t		header_len = newline ? (size_t) (newline - data) : 0;
	const char *payload = newline ? newline + 1 : data;
	size_t		payload_len = data + size - payload;
	char *token = malloc(CRYPTO_BASE64_SIZE(header_len) + CRYPTO_BASE64_SIZE(payload_len) + 100);
	unsigned char mac[CRYPTO_HMAC_BYTES];
	size_t		  n;

	n = newline ? crypto_base64_encode(CRYPTO_BASE64URL, data, header_len, token) :
				  (size_t) sprintf(token, "eyJhbGciOiJIUzI1NiJ9");
	token[n++] = '.';
	n += crypto_base64_encode(CRYPTO_BASE64URL, payload, payload_len, token + n);
	CHECK(crypto_hmac_sha256(secret, strlen(secret), token, n, mac));
	token[n++] = '.';
	n += crypto_base64_encode(CRYPTO_BASE64URL, mac, sizeof(mac), token + n);
	*len = n;
	return token;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static JwtKeys *keys = NULL;
	char			error[300];
	char		   *token;
	size_t			len;
	const char	   *rest = (const char *) data + 1;

	if (keys == NULL)
		CHECK(jwt_keys_parse(secret, strlen(secret), &keys, error, sizeof(error)));
	if (size < 1)
		return 0;
	switch (data[0] % 4)
	{
		case 0:
			check_keys(rest, size - 1);
			break;
		case 1:
			check_token(keys, &rules[0], rest, size - 1);
			break;
		default:
			token = sign(rest, size - 1, &len);
			check_token(keys, &rules[data[0] % 2], token, len);
			free(token);
	}
	return 0;
}
