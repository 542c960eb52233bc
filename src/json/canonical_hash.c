/*
 * canonical_hash.c
 *	  The hash of a canonical form: SHA-256 in hexadecimal digits.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include <openssl/evp.h>

#include "json/canonical.h"

static EVP_MD	  *sha256_md = NULL;
static EVP_MD_CTX *sha256_ctx = NULL;

/* canonical_digest is SHA-256 as bytes. */
void
canonical_digest(const void *data, size_t len, unsigned char sum[CANONICAL_DIGEST_BYTES])
{
	if (sha256_ctx == NULL)
	{
		if (sha256_md == NULL)
			sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
		if (sha256_md != NULL)
			sha256_ctx = EVP_MD_CTX_new();
		if (sha256_ctx == NULL || EVP_DigestInit_ex2(sha256_ctx, sha256_md, NULL) != 1)
		{
			EVP_MD_CTX_free(sha256_ctx);
			sha256_ctx = NULL;
			elog(ERROR, "could not set up SHA-256");
		}
	}
	/* Without a digest the context's own is used again, which is the cheaper way. */
	if (EVP_DigestInit_ex2(sha256_ctx, NULL, NULL) != 1 ||
		EVP_DigestUpdate(sha256_ctx, data, len) != 1 ||
		EVP_DigestFinal_ex(sha256_ctx, sum, NULL) != 1)
		elog(ERROR, "could not compute a SHA-256 digest");
}

void
canonical_hash(Canonical *canonical, char *hex)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char	  sum[CANONICAL_DIGEST_BYTES];

	canonical_digest(canonical->data, canonical->len, sum);
	for (int i = 0; i < CANONICAL_DIGEST_BYTES; i++)
	{
		hex[2 * i] = digits[sum[i] >> 4];
		hex[2 * i + 1] = digits[sum[i] & 15];
	}
}
