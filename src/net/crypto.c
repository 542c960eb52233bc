/*
 * crypto.c
 *	  Encryption, signatures and encodings over OpenSSL 3.
 *
 * Rules that hold here:
 * - nothing is raised and nothing is palloc'ed: a function says whether it
 *   worked and writes to memory of the caller, who knows what to wipe;
 * - what OpenSSL allocates is freed, and its queue of errors left empty (the
 *   backend's own TLS reads that queue), whatever happens;
 * - no key, and no text that was not authenticated, is left in memory of ours:
 *   a text whose tag is wrong is wiped before the caller sees it;
 * - what is compared with a secret is compared in constant time.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/obj_mac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#include "base/hex.h"
#include "net/crypto.h"

#define CRYPTO_MIN_RSA_BITS 2048
#define CRYPTO_P256_BYTES	32

bool
crypto_random(void *out, size_t len)
{
	bool done = len <= INT_MAX && RAND_bytes(out, (int) len) == 1;

	ERR_clear_error();
	return done;
}

/* crypto_equal tells by its time only whether the lengths are the same. */
bool
crypto_equal(const void *a, size_t alen, const void *b, size_t blen)
{
	return alen == blen && CRYPTO_memcmp(a, b, alen) == 0;
}

/* crypto_wipe overwrites memory; a compiler does not leave it out. */
void
crypto_wipe(void *data, size_t len)
{
	if (data != NULL)
		OPENSSL_cleanse(data, len);
}

/* crypto_sha1: as a name, which is all that it is still good for. */
bool
crypto_sha1(const void *data, size_t len, unsigned char out[CRYPTO_SHA1_BYTES])
{
	unsigned int outlen = 0;
	bool		 done = EVP_Digest(data, len, out, &outlen, EVP_sha1(), NULL) == 1 &&
		outlen == CRYPTO_SHA1_BYTES;

	ERR_clear_error();
	return done;
}

bool
crypto_sha256(const void *data, size_t len, unsigned char out[CRYPTO_SHA256_BYTES])
{
	unsigned int outlen = 0;
	bool		 done = EVP_Digest(data, len, out, &outlen, EVP_sha256(), NULL) == 1 &&
		outlen == CRYPTO_SHA256_BYTES;

	ERR_clear_error();
	return done;
}

bool
crypto_hmac_sha256(const void *key, size_t keylen, const void *data, size_t len,
				   unsigned char out[CRYPTO_HMAC_BYTES])
{
	unsigned int outlen = 0;
	bool		 done = keylen <= INT_MAX &&
		HMAC(EVP_sha256(), keylen ? key : "", (int) keylen, data, len, out, &outlen) != NULL &&
		outlen == CRYPTO_HMAC_BYTES;

	ERR_clear_error();
	return done;
}

/* crypto_gcm_encrypt writes as many bytes as it is given, and the tag. */
bool
crypto_gcm_encrypt(const unsigned char key[CRYPTO_KEY_BYTES],
				   const unsigned char nonce[CRYPTO_NONCE_BYTES], const void *aad, size_t aadlen,
				   const void *plain, size_t len, unsigned char *out,
				   unsigned char tag[CRYPTO_TAG_BYTES])
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int				n;
	bool			done = ctx != NULL && aadlen <= INT_MAX && len <= INT_MAX &&
		EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
		(aadlen == 0 || EVP_EncryptUpdate(ctx, NULL, &n, aad, (int) aadlen) == 1) &&
		(len == 0 || EVP_EncryptUpdate(ctx, out, &n, plain, (int) len) == 1) &&
		EVP_EncryptFinal_ex(ctx, out + len, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, CRYPTO_TAG_BYTES, tag) == 1;

	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return done;
}

/* crypto_gcm_decrypt writes as many bytes as it is given; zeros when the tag is wrong. */
bool
crypto_gcm_decrypt(const unsigned char key[CRYPTO_KEY_BYTES],
				   const unsigned char nonce[CRYPTO_NONCE_BYTES], const void *aad, size_t aadlen,
				   const void *cipher, size_t len, const unsigned char tag[CRYPTO_TAG_BYTES],
				   unsigned char *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	unsigned char	expected[CRYPTO_TAG_BYTES];
	int				n;
	bool			done;

	memcpy(expected, tag, sizeof(expected));
	done = ctx != NULL && aadlen <= INT_MAX && len <= INT_MAX &&
		EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
		(aadlen == 0 || EVP_DecryptUpdate(ctx, NULL, &n, aad, (int) aadlen) == 1) &&
		(len == 0 || EVP_DecryptUpdate(ctx, out, &n, cipher, (int) len) == 1) &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, CRYPTO_TAG_BYTES, expected) == 1 &&
		EVP_DecryptFinal_ex(ctx, out + len, &n) == 1;
	if (!done)
		crypto_wipe(out, len);
	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return done;
}

/*
 * crypto_seal encrypts under a nonce of its own: out gets nonce, ciphertext
 * and tag, len + CRYPTO_SEAL_BYTES in all.
 */
bool
crypto_seal(const unsigned char key[CRYPTO_KEY_BYTES], const void *aad, size_t aadlen,
			const void *plain, size_t len, unsigned char *out)
{
	return crypto_random(out, CRYPTO_NONCE_BYTES) &&
		crypto_gcm_encrypt(key, out, aad, aadlen, plain, len, out + CRYPTO_NONCE_BYTES,
						   out + CRYPTO_NONCE_BYTES + len);
}

/* crypto_unseal is the way back: out gets len - CRYPTO_SEAL_BYTES bytes. */
bool
crypto_unseal(const unsigned char key[CRYPTO_KEY_BYTES], const void *aad, size_t aadlen,
			  const void *sealed, size_t len, unsigned char *out)
{
	const unsigned char *p = sealed;

	return len >= CRYPTO_SEAL_BYTES &&
		crypto_gcm_decrypt(key, p, aad, aadlen, p + CRYPTO_NONCE_BYTES, len - CRYPTO_SEAL_BYTES,
						   p + len - CRYPTO_TAG_BYTES, out);
}

/* crypto_algorithm reads the name that RFC 7518 gives an algorithm. */
bool
crypto_algorithm(const char *name, CryptoAlgorithm *algorithm)
{
	static const char *const names[] = {
		[CRYPTO_RS256] = "RS256",
		[CRYPTO_PS256] = "PS256",
		[CRYPTO_ES256] = "ES256",
	};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (strcmp(name, names[i]) == 0)
		{
			*algorithm = (CryptoAlgorithm) i;
			return true;
		}
	}
	return false;
}

/* Without it OpenSSL would ask for a password at the terminal. */
static int
crypto_no_password(char *buffer, int size, int writing, void *arg)
{
	return -1;
}

/* The private key of a PEM text, or NULL. */
static EVP_PKEY *
crypto_read_key(const char *pem, size_t len)
{
	BIO		 *bio = len <= INT_MAX ? BIO_new_mem_buf(pem, (int) len) : NULL;
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, crypto_no_password, NULL) : NULL;

	BIO_free(bio);
	return key;
}

/* Why a key cannot be used with an algorithm, or NULL. */
static const char *
crypto_key_problem(CryptoAlgorithm algorithm, EVP_PKEY *key)
{
	char   curve[32];
	size_t n;

	if (algorithm == CRYPTO_ES256)
	{
		if (!EVP_PKEY_is_a(key, "EC"))
			return "the algorithm needs an EC key";
		if (EVP_PKEY_get_group_name(key, curve, sizeof(curve), &n) != 1 ||
			strcmp(curve, SN_X9_62_prime256v1) != 0)
			return "the algorithm needs a key on curve P-256";
		return NULL;
	}
	if (!EVP_PKEY_is_a(key, "RSA"))
		return "the algorithm needs an RSA key";
	if (EVP_PKEY_get_bits(key) < CRYPTO_MIN_RSA_BITS)
		return "the RSA key has less than 2048 bits";
	if (EVP_PKEY_get_size(key) > CRYPTO_MAX_SIGNATURE)
		return "the RSA key has more than 8192 bits";
	return NULL;
}

/* From the DER form of an ECDSA signature to r || s (RFC 7518, 3.4). */
static bool
crypto_raw_ecdsa(const unsigned char *der, size_t len, unsigned char *out)
{
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long) len);
	bool	   done = sig != NULL &&
		BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, CRYPTO_P256_BYTES) == CRYPTO_P256_BYTES &&
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + CRYPTO_P256_BYTES, CRYPTO_P256_BYTES) ==
			CRYPTO_P256_BYTES;

	ECDSA_SIG_free(sig);
	return done;
}

/*
 * crypto_sign signs with a private key in PEM (PKCS #8, or the older forms of
 * RSA and EC keys), in the form that JWS wants.  Returns NULL, or what is
 * wrong; nothing of the key is in that text.
 */
const char *
crypto_sign(CryptoAlgorithm algorithm, const char *pem, size_t pemlen, const void *data, size_t len,
			unsigned char signature[CRYPTO_MAX_SIGNATURE], size_t *signature_len)
{
	unsigned char der[CRYPTO_MAX_SIGNATURE];
	size_t		  n = sizeof(der);
	EVP_PKEY	 *key = crypto_read_key(pem, pemlen);
	EVP_MD_CTX	 *ctx = NULL;
	EVP_PKEY_CTX *options = NULL; /* belongs to ctx */
	const char	 *problem;

	if (key == NULL)
		problem = "it is not a private key in PEM without a password";
	else
		problem = crypto_key_problem(algorithm, key);
	if (problem == NULL)
	{
		ctx = EVP_MD_CTX_new();
		if (ctx == NULL || EVP_DigestSignInit(ctx, &options, EVP_sha256(), NULL, key) != 1 ||
			(algorithm == CRYPTO_PS256 &&
			 (EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) != 1 ||
			  EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) != 1)) ||
			EVP_DigestSign(ctx, der, &n, data, len) != 1)
			problem = "OpenSSL could not sign with it";
		else if (algorithm != CRYPTO_ES256)
		{
			memcpy(signature, der, n);
			*signature_len = n;
		}
		else if (!crypto_raw_ecdsa(der, n, signature))
			problem = "OpenSSL could not sign with it";
		else
			*signature_len = 2 * CRYPTO_P256_BYTES;
	}
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return problem;
}

/*
 * crypto_base64_encode writes CRYPTO_BASE64_SIZE(len) bytes at most, NUL included; returns
 * the length.
 */
size_t
crypto_base64_encode(CryptoBase64 kind, const void *data, size_t len, char *out)
{
	const char			*digits = kind == CRYPTO_BASE64URL ?
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" :
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = data;
	char				*start = out;

	for (; len > 0; len -= Min(len, 3), p += 3)
	{
		uint32 bits = p[0] << 16 | (len > 1 ? p[1] << 8 : 0) | (len > 2 ? p[2] : 0);

		for (int i = 0; i < 4; i++)
		{
			if (i <= Min(len, 3))
				*out++ = digits[bits >> (18 - 6 * i) & 63];
			else if (kind == CRYPTO_BASE64)
				*out++ = '=';
		}
	}
	*out = '\0';
	return out - start;
}

static int
crypto_base64_digit(CryptoBase64 kind, char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == (kind == CRYPTO_BASE64URL ? '-' : '+'))
		return 62;
	if (c == (kind == CRYPTO_BASE64URL ? '_' : '/'))
		return 63;
	return -1;
}

/*
 * crypto_base64_decode writes CRYPTO_BASE64_ROOM(len) bytes at most and
 * returns how many; -1 when the text is not the one encoding of any bytes
 * (RFC 4648, 3.3 to 3.5: no other characters, no bits to spare).  Padding is
 * required in CRYPTO_BASE64, and may be there in CRYPTO_BASE64URL.
 */
ssize_t
crypto_base64_decode(CryptoBase64 kind, const char *text, size_t len, void *out)
{
	unsigned char *p = out;
	uint32		   bits = 0;
	size_t		   padding = 0;
	size_t		   n;

	while (padding < 2 && len > padding && text[len - padding - 1] == '=')
		padding++;
	n = len - padding;
	if (n % 4 == 1 || ((kind == CRYPTO_BASE64 || padding > 0) && len % 4 != 0))
		return -1;
	for (size_t i = 0; i < n; i++)
	{
		int digit = crypto_base64_digit(kind, text[i]);

		if (digit < 0)
			return -1;
		bits = bits << 6 | digit;
		if (i % 4 > 0)
			*p++ = bits >> (6 - i % 4 * 2) & 0xff;
	}
	if ((n % 4 == 2 && (bits & 15)) || (n % 4 == 3 && (bits & 3)))
		return -1;
	return p - (unsigned char *) out;
}

/* crypto_hex_encode writes 2 * len lower-case digits and a NUL. */
void
crypto_hex_encode(const void *data, size_t len, char *out)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
	{
		*out++ = "0123456789abcdef"[p[i] >> 4];
		*out++ = "0123456789abcdef"[p[i] & 15];
	}
	*out = '\0';
}

/* crypto_hex_decode reads digits of either case, len of them; out gets len / 2 bytes. */
bool
crypto_hex_decode(const char *text, size_t len, void *out)
{
	unsigned char *p = out;

	if (len % 2 != 0)
		return false;
	for (size_t i = 0; i < len; i += 2)
	{
		int byte = hex_byte(text + i);

		if (byte < 0)
			return false;
		*p++ = byte;
	}
	return true;
}
