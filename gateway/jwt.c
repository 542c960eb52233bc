/*
 * jwt.c
 *	  Verifies signed tokens of others (RFC 7519, 7515), as RFC 8725 advises.
 *
 * Rules that hold here:
 * - The key says which algorithm it is used with; the header only has to agree.
 * - Of the header nothing else is used than alg and kid, and kid only to choose among
 *	 keys that are there.  What it says about where keys are (jku, x5u, jwk) is ignored.
 * - The payload is not looked at before the signature was found to be right.
 * - Nobody else may read the payload otherwise: each member of each object comes once.
 * - A text that is not the one encoding of its bytes is refused, so that a token has
 *	 one text.
 * - Nothing is allocated in the size that a token says it has.
 */
#include "base/standalone.h"

#include "jwt.h"
#include "jwt_private.h"
#include "net/crypto.h"

#define MAX_BYTES_DECODED CRYPTO_BASE64_ROOM(JWT_MAX_BYTES)

/* No time is later: the end of the year 9999. */
#define MAX_TIME INT64CONST(253402300799)

/* With more digits a number is out of any bounds here. */
#define MAX_DIGITS 17

typedef struct JwtPart
{
	const char *text;
	size_t		len;
} JwtPart;

JsonParser *
jwt_parser(void)
{
	static JsonParser *parser = NULL;

	/* A value takes two bytes at least, such as "1,". */
	if (parser == NULL)
		parser = json_room_create(MAX_BYTES_DECODED, MAX_BYTES_DECODED / 2 + 2);
	return parser;
}

static const struct
{
	const char *name;
	const char *text;
} results[] = {
	[JWT_OK] = {"ok", "token is valid"},
	[JWT_TOO_LONG] = {"too-long", "token is too long"},
	[JWT_MALFORMED] = {"malformed", "token is not valid"},
	[JWT_CRITICAL] = {"critical-header", "token is not valid"},
	[JWT_ALGORITHM] = {"wrong-algorithm", "token is not valid"},
	[JWT_UNKNOWN_KEY] = {"unknown-key", "token is not valid"},
	[JWT_SIGNATURE] = {"wrong-signature", "token is not valid"},
	[JWT_CLAIMS] = {"bad-claims", "token is not valid"},
	[JWT_NO_EXPIRY] = {"no-expiry", "token does not say when it expires"},
	[JWT_EXPIRED] = {"expired", "token has expired"},
	[JWT_NOT_YET] = {"not-yet", "token is not valid yet"},
	[JWT_ISSUER] = {"wrong-issuer", "token is from another issuer"},
	[JWT_AUDIENCE] = {"wrong-audience", "token is for another audience"},
	[JWT_NO_MEMORY] = {"no-memory", "token could not be verified"},
};

const char *
jwt_result_text(JwtResult result)
{
	return results[result].text;
}

const char *
jwt_result_name(JwtResult result)
{
	return results[result].name;
}

void
jwt_claims_free(JwtClaims *claims)
{
	free(claims->payload);
	free(claims->subject);
	memset(claims, 0, sizeof(*claims));
}

/* Three parts with something in each. */
static bool
jwt_split(const char *token, size_t len, JwtPart parts[3])
{
	const char *end = token + len;

	for (int i = 0; i < 3; i++)
	{
		const char *dot = memchr(token, '.', end - token);

		if ((dot == NULL) != (i == 2))
			return false;
		parts[i].text = token;
		parts[i].len = (dot ? dot : end) - token;
		if (parts[i].len == 0)
			return false;
		token = dot ? dot + 1 : end;
	}
	return true;
}

/* In a token base64url has no padding (RFC 7515, 2). */
static ssize_t
jwt_decode(JwtPart part, void *out)
{
	if (memchr(part.text, '=', part.len) != NULL)
		return -1;
	return crypto_base64_decode(CRYPTO_BASE64URL, part.text, part.len, out);
}

/* A JSON object in which nothing comes twice. */
static JwtResult
jwt_parse(JsonParser *json, const char *text, size_t len, uint32_t max_members)
{
	if (!json_room_parse(json, text, len, JWT_MAX_DEPTH) ||
		json->nodes[JSON_ROOT].type != JSON_OBJECT || !json_room_unique(json, max_members))
		return JWT_MALFORMED;
	return JWT_OK;
}

static bool
jwt_key_is(const JwtKey *key, const char *kid, size_t len)
{
	return key->kid != NULL && key->kid_len == len && memcmp(key->kid, kid, len) == 0;
}

/*
 * A kid means the key that has it; where none has it, those without a kid, such as one
 * from a PEM file, may be meant.  Without a kid any key may be.
 */
static JwtResult
jwt_check_signature(const JwtKeys *keys, JwtAlgorithm algorithm, const char *kid, size_t kid_len,
					const char *token, size_t len, const unsigned char *signature,
					size_t signature_len)
{
	JwtResult result = JWT_UNKNOWN_KEY;
	bool	  named = false;

	for (int i = 0; kid != NULL && i < keys->count; i++)
		named |= jwt_key_is(&keys->keys[i], kid, kid_len);
	for (int i = 0; i < keys->count; i++)
	{
		const JwtKey *key = &keys->keys[i];

		if (named ? !jwt_key_is(key, kid, kid_len) : kid != NULL && key->kid != NULL)
			continue;
		if (key->algorithm != algorithm)
		{
			if (result == JWT_UNKNOWN_KEY)
				result = JWT_ALGORITHM;
			continue;
		}
		if (jwt_key_verifies(key, token, len, signature, signature_len))
			return JWT_OK;
		result = JWT_SIGNATURE;
	}
	return result;
}

/* The header, and the signature that it tells about. */
static JwtResult
jwt_check_header(const JwtKeys *keys, JsonParser *json, const char *token, const JwtPart parts[3])
{
	char		  header[MAX_BYTES_DECODED];
	unsigned char signature[CRYPTO_BASE64_ROOM(JWT_MAX_BYTES)];
	ssize_t		  header_len = jwt_decode(parts[0], header);
	ssize_t		  signature_len = jwt_decode(parts[2], signature);
	char		 *kid = NULL;
	size_t		  kid_len = 0;
	JwtAlgorithm  algorithm;
	uint32_t	  node;
	JwtResult	  result;

	if (header_len < 0 || signature_len < 0)
		return JWT_MALFORMED;
	result = jwt_parse(json, header, header_len, JWT_MAX_HEADER_MEMBERS);
	if (result != JWT_OK)
		return result;
	if (json_room_member(json, JSON_ROOT, "crit") != 0)
		return JWT_CRITICAL;
	if (!jwt_algorithm(json, json_room_member(json, JSON_ROOT, "alg"), &algorithm))
		return JWT_ALGORITHM;
	node = json_room_member(json, JSON_ROOT, "kid");
	if (node != 0 && json->nodes[node].type != JSON_STRING)
		return JWT_MALFORMED;
	if (node != 0)
	{
		kid = json_room_string(json, node, &kid_len);
		if (kid == NULL)
			return JWT_NO_MEMORY;
	}
	result = jwt_check_signature(keys, algorithm, kid, kid_len, token,
								 parts[1].text + parts[1].len - token, signature, signature_len);
	free(kid);
	return result;
}

/*
 * The whole seconds of a number that JSON allows, as far as there are times; false when
 * it is none.  The parser has checked its form, and bounded its exponent.
 */
static bool
jwt_time(const JsonParser *json, uint32_t node, int64_t *time)
{
	const char *p = json->text + json->nodes[node].start;
	const char *end = json->text + json->nodes[node].end;
	int64_t		value = 0;
	int			digits = 0;
	int			shift = 0;
	int			exponent = 0;
	bool		negative = false;
	bool		fraction = false;
	bool		below = false; /* the exponent is negative */

	if (json->nodes[node].type != JSON_NUMBER)
		return false;
	if (*p == '-')
	{
		negative = true;
		p++;
	}
	for (; p < end && *p != 'e' && *p != 'E'; p++)
	{
		if (*p == '.')
			fraction = true;
		else if (digits < MAX_DIGITS)
		{
			value = value * 10 + (*p - '0');
			digits += value > 0;
			shift -= fraction;
		}
		else
			shift += !fraction;
	}
	for (p += p < end; p < end; p++)
	{
		if (*p == '-')
			below = true;
		else if (*p != '+' && exponent < 100000)
			exponent = exponent * 10 + (*p - '0');
	}
	shift += below ? -exponent : exponent;
	for (; shift > 0 && value > 0 && value <= MAX_TIME; shift--)
		value *= 10;
	for (; shift < 0 && value > 0; shift++)
		value /= 10;
	value = Min(value, MAX_TIME);
	*time = negative ? -value : value;
	return true;
}

static bool
jwt_is_string(const JsonParser *json, uint32_t node)
{
	return json->nodes[node].type == JSON_STRING;
}

static JwtResult
jwt_check_times(const JsonParser *json, int64_t leeway, int64_t now, int64_t *expires_at)
{
	static const char *const begins[] = {"nbf", "iat"};
	uint32_t				 exp = json_room_member(json, JSON_ROOT, "exp");

	if (exp == 0)
		return JWT_NO_EXPIRY;
	if (!jwt_time(json, exp, expires_at))
		return JWT_CLAIMS;
	for (size_t i = 0; i < lengthof(begins); i++)
	{
		uint32_t node = json_room_member(json, JSON_ROOT, begins[i]);
		int64_t	 time;

		if (node == 0)
			continue;
		if (!jwt_time(json, node, &time))
			return JWT_CLAIMS;
		if (time - leeway > now)
			return JWT_NOT_YET;
	}
	return *expires_at + leeway > now ? JWT_OK : JWT_EXPIRED;
}

static bool
jwt_is_audience(const JwtRules *rules, const JsonParser *json, uint32_t node)
{
	for (int i = 0; i < rules->naudiences; i++)
		if (json_room_is(json, node, rules->audiences[i]))
			return true;
	return false;
}

/* Who it is for: a string, or an array of strings.  Who has no name is not meant by any. */
static JwtResult
jwt_check_audience(const JwtRules *rules, const JsonParser *json)
{
	uint32_t aud = json_room_member(json, JSON_ROOT, "aud");
	bool	 found = false;

	if (aud == 0)
		return rules->naudiences == 0 ? JWT_OK : JWT_AUDIENCE;
	if (jwt_is_string(json, aud))
		found = jwt_is_audience(rules, json, aud);
	else if (json->nodes[aud].type != JSON_ARRAY)
		return JWT_CLAIMS;
	else
		for (uint32_t i = json->nodes[aud].child; i != 0; i = json->nodes[i].next)
		{
			if (!jwt_is_string(json, i))
				return JWT_CLAIMS;
			found |= jwt_is_audience(rules, json, i);
		}
	return found ? JWT_OK : JWT_AUDIENCE;
}

static JwtResult
jwt_check_claims(const JwtRules *rules, const JsonParser *json, int64_t now, JwtClaims *claims)
{
	uint32_t  iss = json_room_member(json, JSON_ROOT, "iss");
	uint32_t  sub = json_room_member(json, JSON_ROOT, "sub");
	size_t	  len;
	JwtResult result;

	if ((iss != 0 && !jwt_is_string(json, iss)) || (sub != 0 && !jwt_is_string(json, sub)))
		return JWT_CLAIMS;
	if (rules->issuer != NULL && !json_room_is(json, iss, rules->issuer))
		return JWT_ISSUER;
	result = jwt_check_audience(rules, json);
	if (result == JWT_OK)
		result = jwt_check_times(json, rules->leeway, now, &claims->expires_at);
	if (result == JWT_OK && sub != 0)
	{
		claims->subject = json_room_string(json, sub, &len);
		if (claims->subject == NULL)
			result = JWT_NO_MEMORY;
	}
	return result;
}

JwtResult
jwt_verify(const JwtKeys *keys, const JwtRules *rules, const char *token, size_t len, int64_t now,
		   JwtClaims *claims)
{
	JsonParser *json = jwt_parser();
	JwtPart		parts[3];
	JwtResult	result;
	ssize_t		n;

	memset(claims, 0, sizeof(*claims));
	if (len > JWT_MAX_BYTES)
		return JWT_TOO_LONG;
	if (json == NULL)
		return JWT_NO_MEMORY;
	if (!jwt_split(token, len, parts))
		return JWT_MALFORMED;
	result = jwt_check_header(keys, json, token, parts);
	if (result != JWT_OK)
		return result;

	/* From here on it is what whoever has the key has signed. */
	claims->payload = malloc(CRYPTO_BASE64_ROOM(parts[1].len) + 1);
	if (claims->payload == NULL)
		return JWT_NO_MEMORY;
	n = jwt_decode(parts[1], claims->payload);
	claims->payload_len = Max(n, 0);
	claims->payload[claims->payload_len] = '\0';
	result = n < 0 ? JWT_MALFORMED : jwt_parse(json, claims->payload, n, JWT_MAX_MEMBERS);
	if (result == JWT_OK)
		result = jwt_check_claims(rules, json, now, claims);
	if (result != JWT_OK)
		jwt_claims_free(claims);
	return result;
}
