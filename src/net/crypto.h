/*
 * crypto.h
 *	  Encryption, signatures and encodings over OpenSSL.  See crypto.c.
 */
#ifndef FLOHSYNC_CRYPTO_H
#define FLOHSYNC_CRYPTO_H

#define CRYPTO_KEY_BYTES   32 /* AES-256 */
#define CRYPTO_NONCE_BYTES 12
#define CRYPTO_TAG_BYTES   16
/* that a sealed text is longer */
#define CRYPTO_SEAL_BYTES	 (CRYPTO_NONCE_BYTES + CRYPTO_TAG_BYTES)
#define CRYPTO_HMAC_BYTES	 32
#define CRYPTO_SHA1_BYTES	 20
#define CRYPTO_SHA256_BYTES	 32
#define CRYPTO_MAX_SIGNATURE 1024 /* RSA of 8192 bits */

typedef enum CryptoAlgorithm
{
	CRYPTO_RS256, /* RSASSA-PKCS1-v1_5 with SHA-256 */
	CRYPTO_PS256, /* RSASSA-PSS with SHA-256, salt of 32 bytes */
	CRYPTO_ES256  /* ECDSA on P-256 with SHA-256, r || s */
} CryptoAlgorithm;

typedef enum CryptoBase64
{
	CRYPTO_BASE64,	 /* "+", "/", padded */
	CRYPTO_BASE64URL /* "-", "_", not padded */
} CryptoBase64;

/*
 * Room that the encoded form of so many bytes takes, with a NUL; and that the decoded form
 * takes at most.
 */
#define CRYPTO_BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1)
#define CRYPTO_BASE64_ROOM(len) ((len) / 4 * 3 + 3)

extern bool crypto_random(void *out, size_t len);
extern bool crypto_equal(const void *a, size_t alen, const void *b, size_t blen);
extern void crypto_wipe(void *data, size_t len);

extern bool crypto_sha1(const void *data, size_t len, unsigned char out[CRYPTO_SHA1_BYTES]);
extern bool crypto_sha256(const void *data, size_t len, unsigned char out[CRYPTO_SHA256_BYTES]);
extern bool crypto_hmac_sha256(const void *key, size_t keylen, const void *data, size_t len,
							   unsigned char out[CRYPTO_HMAC_BYTES]);

extern bool crypto_gcm_encrypt(const unsigned char key[CRYPTO_KEY_BYTES],
							   const unsigned char nonce[CRYPTO_NONCE_BYTES], const void *aad,
							   size_t aadlen, const void *plain, size_t len, unsigned char *out,
							   unsigned char tag[CRYPTO_TAG_BYTES]);
extern bool crypto_gcm_decrypt(const unsigned char key[CRYPTO_KEY_BYTES],
							   const unsigned char nonce[CRYPTO_NONCE_BYTES], const void *aad,
							   size_t aadlen, const void *cipher, size_t len,
							   const unsigned char tag[CRYPTO_TAG_BYTES], unsigned char *out);
extern bool crypto_seal(const unsigned char key[CRYPTO_KEY_BYTES], const void *aad, size_t aadlen,
						const void *plain, size_t len, unsigned char *out);
extern bool crypto_unseal(const unsigned char key[CRYPTO_KEY_BYTES], const void *aad, size_t aadlen,
						  const void *sealed, size_t len, unsigned char *out);

extern bool		   crypto_algorithm(const char *name, CryptoAlgorithm *algorithm);
extern const char *crypto_sign(CryptoAlgorithm algorithm, const char *pem, size_t pemlen,
							   const void *data, size_t len,
							   unsigned char signature[CRYPTO_MAX_SIGNATURE],
							   size_t		*signature_len);

extern size_t  crypto_base64_encode(CryptoBase64 kind, const void *data, size_t len, char *out);
extern ssize_t crypto_base64_decode(CryptoBase64 kind, const char *text, size_t len, void *out);
extern void	   crypto_hex_encode(const void *data, size_t len, char *out);
extern bool	   crypto_hex_decode(const char *text, size_t len, void *out);

#endif /* FLOHSYNC_CRYPTO_H */
