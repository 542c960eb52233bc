/*
 * jwt_keys.h
 *	  The keys that tokens are verified with.  See jwt_keys.c.
 */
#ifndef FLOHSYNC_JWT_KEYS_H
#define FLOHSYNC_JWT_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#define JWT_KEYS_MAX_FILE (1024 * 1024)
#define JWT_KEYS_MAX	  100

typedef struct JwtKeys JwtKeys;

/*
 * jwt_keys_load reads a file; jwt_keys_parse its contents, for which nobody asks who may
 * read them.  When false, error has a message and *keys is NULL.
 */
extern bool jwt_keys_load(const char *path, JwtKeys **keys, char *error, size_t size);
extern bool jwt_keys_parse(const char *text, size_t len, JwtKeys **keys, char *error, size_t size);
extern void jwt_keys_free(JwtKeys *keys);

extern int jwt_keys_count(const JwtKeys *keys);

/* Whether a secret was among them, one that is not used included. */
extern bool jwt_keys_secret(const JwtKeys *keys);

/* Which keys of the file were left out and why, one a line; "" where none was. */
extern const char *jwt_keys_warnings(const JwtKeys *keys);

#endif /* FLOHSYNC_JWT_KEYS_H */
