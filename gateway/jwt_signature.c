/*
 * jwt_signature.c
 *	  Whether a signature is that of a key (RFC 7518, section 3).
 *
 * The key says what is computed; nothing that came with the signature does.
 */
#include "base/standalone.h"

#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "jwt_private.h"
#include "net/crypto.h"

#define P256_BYTES 32

/* An ECDSA signature in DER has at most this many bytes more than its two numbers. */
#define DER_ROOM 16

/* The order of the group of P-256. */
static const unsigned char p256_order[P256_BYTES] = {
	0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
	0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51};

/* jwt_algorithm reads a name; "none" is none of them. */
bool
jwt_algorithm(const JsonParser *json, uint32_t node, JwtAlgorithm *algorithm)
{
	static const char *const names[] = {
		[JWT_HS256] = "HS256", [JWT_RS256] = "RS256", [JWT_ES256] = "ES256"};

	for (size_t i = 0; i < lengthof(names); i++)
		if (json_room_is(json, node, names[i]))
		{
			*algorithm = (JwtAlgorithm) i;
			return true;
		}
	return false;
}

/* With a number that is 0 or not below the order, anything could come out. */
static bool
in_range(const unsigned char number[P256_BYTES])
{
	static const unsigned char zero[P256_BYTES];

	return memcmp(number, zero, P256_BYTES) != 0 && memcmp(number, p256_order, P256_BYTES) < 0;
}

/* From r || s to DER; returns its length, or 0. */
static size_t
ecdsa_to_der(const unsigned char *signature, size_t len, unsigned char *der)
{
	ECDSA_SIG	  *sig;
	BIGNUM		  *r;
	BIGNUM		  *s;
	unsigned char *out = der;
	int			   n = 0;

	if (len != 2 * P256_BYTES || !in_range(signature) || !in_range(signature + P256_BYTES))
		return 0;
	sig = ECDSA_SIG_new();
	r = BN_bin2bn(signature, P256_BYTES, NULL);
	s = BN_bin2bn(signature + P256_BYTES, P256_BYTES, NULL);
	if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1)
	{
		r = s = NULL; /* they are sig's now */
		n = i2d_ECDSA_SIG(sig, &out);
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(sig);
	return n > 0 ? n : 0;
}

bool
jwt_key_verifies(const JwtKey *key, const void *data, size_t len, const unsigned char *signature,
				 size_t signature_len)
{
	unsigned char mac[CRYPTO_HMAC_BYTES];
	unsigned char der[2 * P256_BYTES + DER_ROOM];
	EVP_MD_CTX	 *ctx;
	bool		  good;

	if (key->algorithm == JWT_HS256)
	{
		good = crypto_hmac_sha256(key->secret, key->secret_len, data, len, mac) &&
			crypto_equal(mac, sizeof(mac), signature, signature_len);
		crypto_wipe(mac, sizeof(mac));
		return good;
	}
	if (key->algorithm == JWT_ES256)
	{
		signature_len = ecdsa_to_der(signature, signature_len, der);
		signature = der;
	}
	if (signature_len == 0)
		return false;
	ctx = EVP_MD_CTX_new();
	good = ctx != NULL &&
		EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key->public_key) == 1 &&
		EVP_DigestVerify(ctx, signature, signature_len, data, len) == 1;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return good;
}
