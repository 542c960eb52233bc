/*
 * jwt_jwk.c
 *	  One JSON Web Key (RFC 7517, RFC 7518 section 6), made a key to verify with.
 *
 * A key is bound to one algorithm by its kind (RFC 8725, 3.1): RSA to RS256, EC on
 * P-256 to ES256, oct to HS256.  What else "alg" may say, the key is left out.
 * A private key, or one that is weak or damaged, is no key to leave out quietly: the
 * file is refused.
 */
#include "base/standalone.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>

#include "jwt_private.h"
#include "net/crypto.h"

#define P256_BYTES 32

/* An exponent of more bytes only makes it slow. */
#define MAX_RSA_EXPONENT 8

/* A member that is base64url of at least one byte, in memory of malloc; NULL: it is none. */
static unsigned char *
jwk_bytes(const JsonParser *json, uint32_t node, const char *name, size_t max, size_t *len)
{
	uint32_t	   member = json_room_member(json, node, name);
	unsigned char *bytes = NULL;
	size_t		   text_len;
	char		  *text;
	ssize_t		   n = -1;

	if (member == 0 || json->nodes[member].type != JSON_STRING)
		return NULL;
	text = json_room_string(json, member, &text_len);
	if (text != NULL && memchr(text, '=', text_len) == NULL)
	{
		bytes = malloc(CRYPTO_BASE64_ROOM(text_len));
		if (bytes != NULL)
			n = crypto_base64_decode(CRYPTO_BASE64URL, text, text_len, bytes);
	}
	if (n <= 0 || n > (ssize_t) max)
	{
		if (bytes != NULL)
			crypto_wipe(bytes, CRYPTO_BASE64_ROOM(text_len));
		free(bytes);
		bytes = NULL;
		n = 0;
	}
	if (text != NULL)
		crypto_wipe(text, text_len);
	free(text);
	*len = n;
	return bytes;
}

static EVP_PKEY *
jwk_from_params(const char *type, OSSL_PARAM_BLD *build)
{
	OSSL_PARAM	 *params = build ? OSSL_PARAM_BLD_to_param(build) : NULL;
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY	 *key = NULL;

	if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
		EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
	{
		EVP_PKEY_free(key);
		key = NULL;
	}
	EVP_PKEY_CTX_free(ctx);
	OSSL_PARAM_free(params);
	return key;
}

static const char *
jwk_read_rsa(const JsonParser *json, uint32_t node, JwtKey *key)
{
	size_t			n_len;
	size_t			e_len;
	unsigned char  *n = jwk_bytes(json, node, "n", JWT_MAX_SIGNATURE + 1, &n_len);
	unsigned char  *e = jwk_bytes(json, node, "e", MAX_RSA_EXPONENT, &e_len);
	BIGNUM		   *modulus = n ? BN_bin2bn(n, (int) n_len, NULL) : NULL;
	BIGNUM		   *exponent = e ? BN_bin2bn(e, (int) e_len, NULL) : NULL;
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();

	if (modulus && exponent && build && OSSL_PARAM_BLD_push_BN(build, "n", modulus) == 1 &&
		OSSL_PARAM_BLD_push_BN(build, "e", exponent) == 1)
		key->public_key = jwk_from_params("RSA", build);
	OSSL_PARAM_BLD_free(build);
	BN_free(modulus);
	BN_free(exponent);
	free(n);
	free(e);
	if (key->public_key == NULL)
		return "its members \"n\" and \"e\" are not those of an RSA key";
	return jwt_public_key_problem(key->public_key, &key->algorithm);
}

static const char *
jwk_read_ec(const JsonParser *json, uint32_t node, JwtKey *key)
{
	size_t			x_len;
	size_t			y_len;
	unsigned char  *x = jwk_bytes(json, node, "x", P256_BYTES, &x_len);
	unsigned char  *y = jwk_bytes(json, node, "y", P256_BYTES, &y_len);
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	unsigned char	point[1 + 2 * P256_BYTES] = {0x04}; /* not compressed */

	if (x && y && x_len == P256_BYTES && y_len == P256_BYTES && build)
	{
		memcpy(point + 1, x, P256_BYTES);
		memcpy(point + 1 + P256_BYTES, y, P256_BYTES);
		if (OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, SN_X9_62_prime256v1,
											0) == 1 &&
			OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point,
											 sizeof(point)) == 1)
			key->public_key = jwk_from_params("EC", build);
	}
	OSSL_PARAM_BLD_free(build);
	free(x);
	free(y);
	if (key->public_key == NULL)
		return "its members \"x\" and \"y\" are not a point on P-256";
	return jwt_public_key_problem(key->public_key, &key->algorithm);
}

static const char *
jwk_read_secret(const JsonParser *json, uint32_t node, JwtKey *key)
{
	key->algorithm = JWT_HS256;
	key->secret = jwk_bytes(json, node, "k", JWT_MAX_SECRET, &key->secret_len);
	if (key->secret == NULL || key->secret_len < JWT_MIN_SECRET)
		return "its member \"k\" is not base64url of 32 to 4096 bytes";
	return NULL;
}

const char *
jwt_public_key_problem(EVP_PKEY *key, JwtAlgorithm *algorithm)
{
	EVP_PKEY_CTX *ctx;
	char		  curve[32];
	size_t		  n;
	bool		  sound;

	if (EVP_PKEY_is_a(key, "RSA"))
	{
		*algorithm = JWT_RS256;
		if (EVP_PKEY_get_bits(key) < JWT_MIN_RSA_BITS)
			return "the RSA key has less than 2048 bits";
		if (EVP_PKEY_get_bits(key) > JWT_MAX_RSA_BITS)
			return "the RSA key has more than 8192 bits";
	}
	else if (EVP_PKEY_is_a(key, "EC"))
	{
		*algorithm = JWT_ES256;
		if (EVP_PKEY_get_group_name(key, curve, sizeof(curve), &n) != 1 ||
			strcmp(curve, SN_X9_62_prime256v1) != 0)
			return "the EC key is not on curve P-256";
	}
	else
		return "it is neither an RSA key nor an EC key";

	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	sound = ctx != NULL && EVP_PKEY_public_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return sound ? NULL : "its numbers cannot be those of a key";
}

/* Is the key there to verify signatures with?  Who does not say so does not mind. */
static bool
jwk_is_to_verify(const JsonParser *json, uint32_t node)
{
	uint32_t use = json_room_member(json, node, "use");
	uint32_t operations = json_room_member(json, node, "key_ops");

	if (use != 0 && !json_room_is(json, use, "sig"))
		return false;
	if (operations == 0)
		return true;
	if (json->nodes[operations].type == JSON_ARRAY)
		for (uint32_t i = json->nodes[operations].child; i != 0; i = json->nodes[i].next)
			if (json_room_is(json, i, "verify"))
				return true;
	return false;
}

static bool
jwk_is_private(const JsonParser *json, uint32_t node)
{
	static const char *const members[] = {"d", "p", "q", "dp", "dq", "qi", "oth"};

	for (size_t i = 0; i < lengthof(members); i++)
		if (json_room_member(json, node, members[i]) != 0)
			return true;
	return false;
}

static bool
jwk_read_kid(const JsonParser *json, uint32_t node, JwtKey *key)
{
	uint32_t kid = json_room_member(json, node, "kid");

	if (kid == 0)
		return true;
	if (json->nodes[kid].type != JSON_STRING)
		return false;
	key->kid = json_room_string(json, kid, &key->kid_len);
	return key->kid != NULL && key->kid_len <= JWT_MAX_KID;
}

JwtJwk
jwt_jwk_read(const JsonParser *json, uint32_t node, JwtKey *key, const char **problem)
{
	static const char *const algorithms[] = {
		[JWT_HS256] = "HS256", [JWT_RS256] = "RS256", [JWT_ES256] = "ES256"};
	uint32_t type;
	uint32_t alg;

	memset(key, 0, sizeof(*key));
	if (json->nodes[node].type != JSON_OBJECT)
	{
		*problem = "it is no object";
		return JWT_JWK_REFUSED;
	}
	if (jwk_is_private(json, node))
	{
		*problem = "it is a private key, which only whoever issues tokens may have";
		return JWT_JWK_REFUSED;
	}
	if (!jwk_read_kid(json, node, key))
	{
		*problem = "its \"kid\" is not a string of at most 256 bytes";
		return JWT_JWK_REFUSED;
	}
	if (!jwk_is_to_verify(json, node))
	{
		*problem = "it is not for verifying signatures";
		return JWT_JWK_LEFT_OUT;
	}

	type = json_room_member(json, node, "kty");
	alg = json_room_member(json, node, "alg");
	if (json_room_is(json, type, "RSA"))
		key->algorithm = JWT_RS256;
	else if (json_room_is(json, type, "EC"))
		key->algorithm = JWT_ES256;
	else if (json_room_is(json, type, "oct"))
		key->algorithm = JWT_HS256;
	else
	{
		*problem = "its \"kty\" is not one of \"RSA\", \"EC\" and \"oct\"";
		return JWT_JWK_LEFT_OUT;
	}
	if (alg != 0 && !json_room_is(json, alg, algorithms[key->algorithm]))
	{
		*problem = "its \"alg\" is not the one that keys of its kind are used with here";
		return JWT_JWK_LEFT_OUT;
	}
	if (key->algorithm == JWT_ES256 &&
		!json_room_is(json, json_room_member(json, node, "crv"), "P-256"))
	{
		*problem = "its \"crv\" is not \"P-256\"";
		return JWT_JWK_LEFT_OUT;
	}
	*problem = key->algorithm == JWT_RS256 ? jwk_read_rsa(json, node, key) :
		key->algorithm == JWT_ES256		   ? jwk_read_ec(json, node, key) :
											 jwk_read_secret(json, node, key);
	ERR_clear_error();
	return *problem ? JWT_JWK_REFUSED : JWT_JWK_TAKEN;
}
