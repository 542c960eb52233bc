/*
 * jwt.c
 *	  Verifies a JWT (RFC 7515, 7519) with a public key, by OpenSSL: RS256,
 *	  PS256 and ES256.  The algorithm is the one that the test named for the
 *	  key, never what the token says of itself.
 */
#include "jwt.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

static int
digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-' || c == '+')
		return 62;
	return c == '_' || c == '/' ? 63 : -1;
}

/* Either alphabet; padding may be there or not. */
bool
base64_decode(const char *text, size_t n, buf *out)
{
	unsigned bits = 0;
	int		 have = 0;

	while (n > 0 && text[n - 1] == '=')
		n--;
	if (n % 4 == 1)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		int d = digit(text[i]);

		if (d < 0)
			return false;
		bits = bits << 6 | (unsigned) d;
		have += 6;
		if (have >= 8)
		{
			have -= 8;
			buf_char(out, (char) (bits >> have & 255));
		}
	}
	return (bits & ((1u << have) - 1)) == 0;
}

/* r || s as the DER that OpenSSL wants. */
static bool
ecdsa_der(buf *signature)
{
	ECDSA_SIG	  *sig;
	BIGNUM		  *r, *s;
	unsigned char *der = NULL;
	int			   n;

	if (signature->n != 64)
		return false;
	r = BN_bin2bn((unsigned char *) signature->p, 32, NULL);
	s = BN_bin2bn((unsigned char *) signature->p + 32, 32, NULL);
	sig = ECDSA_SIG_new();
	ECDSA_SIG_set0(sig, r, s);
	n = i2d_ECDSA_SIG(sig, &der);
	ECDSA_SIG_free(sig);
	signature->n = 0;
	buf_put(signature, der, (size_t) n);
	OPENSSL_free(der);
	return true;
}

static const char *
check_signature(const char *alg, const char *pem, size_t pem_len, const char *data, size_t n,
				buf *signature)
{
	BIO			 *bio = BIO_new_mem_buf(pem, (int) pem_len);
	EVP_PKEY	 *key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	EVP_MD_CTX	 *context = EVP_MD_CTX_new();
	EVP_PKEY_CTX *options = NULL;
	const char	 *wrong = NULL;

	if (key == NULL)
		wrong = "the test gave no public key";
	else if (EVP_PKEY_is_a(key, "EC") != (strcmp(alg, "ES256") == 0))
		wrong = "the key is for another algorithm";
	else if (strcmp(alg, "ES256") == 0 && !ecdsa_der(signature))
		wrong = "an ES256 signature has 64 bytes";
	else if (EVP_DigestVerifyInit(context, &options, EVP_sha256(), NULL, key) != 1 ||
			 (strcmp(alg, "PS256") == 0 &&
			  (EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) != 1 ||
			   EVP_PKEY_CTX_set_rsa_pss_saltlen(options, 32) != 1)) ||
			 EVP_DigestVerify(context, (unsigned char *) signature->p, signature->n,
							  (const unsigned char *) data, n) != 1)
		wrong = "the signature is not right";
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	BIO_free(bio);
	return wrong;
}

/* NULL, or what is wrong with the token. */
const char *
jwt_verify(const char *token, const char *alg, const char *pem, size_t pem_len, jwt *out)
{
	size_t		header = strcspn(token, ".");
	const char *claims = token[header] ? token + header + 1 : token + header;
	size_t		n = strcspn(claims, ".");
	const char *end = claims + n;
	buf			signature = {0};
	const char *wrong = NULL;

	memset(out, 0, sizeof(*out));
	if (*end != '.' || strchr(end + 1, '.') != NULL || strchr(token, '=') != NULL ||
		strpbrk(token, "+/") != NULL)
		wrong = "that is no JWT";
	else if (!base64_decode(token, header, &out->header) ||
			 !base64_decode(claims, n, &out->claims) ||
			 !base64_decode(end + 1, strlen(end + 1), &signature))
		wrong = "a part of the JWT is no base64url";
	else
		wrong = check_signature(alg, pem, pem_len, token, (size_t) (end - token), &signature);
	buf_free(&signature);
	return wrong;
}

void
jwt_free(jwt *j)
{
	buf_free(&j->header);
	buf_free(&j->claims);
}
