/*
 * jwt.h
 *	  Signed tokens of others: JSON Web Tokens.  See jwt.c.
 */
#ifndef FLOHSYNC_JWT_H
#define FLOHSYNC_JWT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jwt_keys.h"

#define JWT_MAX_BYTES	8192
#define JWT_LEEWAY		30 /* seconds, if nobody says otherwise */
#define JWT_MAX_STRINGS 256

typedef enum JwtResult
{
	JWT_OK,
	JWT_TOO_LONG,	 /* more than JWT_MAX_BYTES */
	JWT_MALFORMED,	 /* not three parts of base64url, or not JSON that can be used */
	JWT_CRITICAL,	 /* the header asks for what is not known here */
	JWT_ALGORITHM,	 /* not the algorithm of the key, or "none" */
	JWT_UNKNOWN_KEY, /* no key is meant by its kid */
	JWT_SIGNATURE,
	JWT_CLAIMS,	   /* a claim of another type than it has by RFC 7519 */
	JWT_NO_EXPIRY, /* no exp */
	JWT_EXPIRED,
	JWT_NOT_YET, /* nbf or iat is to come */
	JWT_ISSUER,
	JWT_AUDIENCE,
	JWT_NO_MEMORY /* nothing is known of the token */
} JwtResult;

typedef struct JwtRules
{
	const char		  *issuer;	   /* iss must be this; NULL: anybody, or none */
	const char *const *audiences;  /* aud must name one of these */
	int				   naudiences; /* 0: there must be no aud, since it names somebody else */
	int				   leeway;	   /* seconds that clocks may differ, such as JWT_LEEWAY */
} JwtRules;

typedef struct JwtClaims
{
	char   *payload; /* a JSON object in valid UTF-8, without a member that comes twice */
	size_t	payload_len;
	int64_t expires_at; /* exp, without the leeway; seconds since 1970 */
	char   *subject;	/* NULL: there is no sub */
} JwtClaims;

typedef struct JwtStrings
{
	int	   count;
	char **values;
} JwtStrings;

/* jwt_verify fills claims only where the result is JWT_OK; free them then. */
extern JwtResult jwt_verify(const JwtKeys *keys, const JwtRules *rules, const char *token,
							size_t len, int64_t now, JwtClaims *claims);
extern void		 jwt_claims_free(JwtClaims *claims);

/* A text for whoever sent the token; and a name of the result for the log. */
extern const char *jwt_result_text(JwtResult result);
extern const char *jwt_result_name(JwtResult result);

/*
 * jwt_claim yields a string, or all elements of an array of strings, at a path such as
 * .role, .realm_access.roles, ."https://x.example/role" or .roles[0].  False: there is
 * no such claim, or it is something else, or has more than JWT_MAX_STRINGS elements.
 */
extern bool jwt_path_valid(const char *path);
extern bool jwt_claim(const JwtClaims *claims, const char *path, JwtStrings *strings);
extern void jwt_strings_free(JwtStrings *strings);

#endif /* FLOHSYNC_JWT_H */
