/*
 * jwt_private.h
 *	  What the files jwt*.c share.
 */
#ifndef FLOHSYNC_JWT_PRIVATE_H
#define FLOHSYNC_JWT_PRIVATE_H

#include <openssl/types.h>

#include "json_room.h"
#include "jwt_keys.h"

typedef enum JwtAlgorithm
{
	JWT_HS256, /* HMAC with SHA-256 */
	JWT_RS256, /* RSASSA-PKCS1-v1_5 with SHA-256 */
	JWT_ES256  /* ECDSA on P-256 with SHA-256 */
} JwtAlgorithm;

/* As RFC 7518 has it. */
#define JWT_MIN_SECRET	 32
#define JWT_MIN_RSA_BITS 2048

#define JWT_MAX_SECRET	 4096
#define JWT_MAX_RSA_BITS 8192 /* more takes long */
#define JWT_MAX_KID		 256

/* A signature has at most this many bytes. */
#define JWT_MAX_SIGNATURE (JWT_MAX_RSA_BITS / 8)

/* A key has a secret where its algorithm is JWT_HS256, and a public key otherwise. */
typedef struct JwtKey
{
	JwtAlgorithm   algorithm;
	char		  *kid; /* NULL: it has none */
	size_t		   kid_len;
	EVP_PKEY	  *public_key;
	unsigned char *secret;
	size_t		   secret_len;
} JwtKey;

struct JwtKeys
{
	JwtKey keys[JWT_KEYS_MAX];
	int	   count;
	bool   secret;
	char   warnings[4096];
};

/* jwt_keys.c: frees what a key has, and wipes its secret. */
extern void jwt_key_wipe(JwtKey *key);

/* jwt_jwk.c */
typedef enum JwtJwk
{
	JWT_JWK_TAKEN,
	JWT_JWK_LEFT_OUT, /* one that tokens of ours are not signed with */
	JWT_JWK_REFUSED	  /* the file must not be used */
} JwtJwk;

/* What is the matter, where it is not taken, is a static text in *problem. */
extern JwtJwk jwt_jwk_read(const JsonParser *json, uint32_t node, JwtKey *key,
						   const char **problem);

/* The algorithm of a public key; returns NULL, or why it cannot be used. */
extern const char *jwt_public_key_problem(EVP_PKEY *key, JwtAlgorithm *algorithm);

/* jwt_signature.c */
extern bool jwt_algorithm(const JsonParser *json, uint32_t node, JwtAlgorithm *algorithm);
extern bool jwt_key_verifies(const JwtKey *key, const void *data, size_t len,
							 const unsigned char *signature, size_t signature_len);

/* jwt.c: a parser that has room for what a token holds; NULL: no memory. */
extern JsonParser *jwt_parser(void);
#define JWT_MAX_DEPTH 32

/* Members of an object.  Of a header, which anybody can send, it is not many. */
#define JWT_MAX_MEMBERS		   256
#define JWT_MAX_HEADER_MEMBERS 32

#endif /* FLOHSYNC_JWT_PRIVATE_H */
