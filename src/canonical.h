/*
 * canonical.h
 *	  The canonical form of JSON (RFC 8785 with one exception) and the hash of
 *	  a record.  See canonical.c.
 */
#ifndef FLOHSYNC_CANONICAL_H
#define FLOHSYNC_CANONICAL_H

#include "json.h"

/* canonical_text returns the palloc'd canonical form of a JSON text; raises 22P02 for bad JSON. */
extern char *canonical_text(const char *json, size_t len, size_t *outlen);

/* Small strings that live until the arena is reset; zero-filled is empty. */
typedef struct CanonicalArena
{
	struct CanonicalChunk *chunks;	/* newest first */
	struct MemoryContextData *context;
} CanonicalArena;

extern char *canonical_arena_alloc(CanonicalArena *arena, size_t size);
extern void canonical_arena_reset(CanonicalArena *arena);

/*
 * A byte string to sort.  With utf16 set it is compared by UTF-16 code units,
 * which differs from its bytes only for characters outside the basic plane.
 */
typedef struct CanonicalKey
{
	uint64_t	prefix;			/* first 8 bytes, big-endian, zero-filled */
	const char *data;
	uint32_t	len;
	uint32_t	ref;			/* the caller's */
	bool		utf16;
} CanonicalKey;

/* limit: bytes up to here may be read, whatever the length says. */
extern void canonical_key_init(CanonicalKey *key, const char *data, uint32_t len,
							   const char *limit, bool utf16, uint32_t ref);
extern int	canonical_key_compare(const CanonicalKey *a, const CanonicalKey *b);

/* Stable, n log n at worst; scratch has room for n keys, the result is in keys. */
extern void canonical_key_sort(CanonicalKey *keys, CanonicalKey *scratch, uint32_t n);

/* A dot path that is left out, e.g. "a.b". */
typedef struct CanonicalPath
{
	const char *data;
	uint32_t	len;
} CanonicalPath;

/* A serializer; data[0..len) is what was appended since the last reset. */
typedef struct Canonical
{
	char	   *data;
	size_t		len;
	size_t		size;
	const CanonicalPath *paths;
	struct CanonicalWork *work;
} Canonical;

/* Made in the current memory context, where its buffers will live, too. */
extern Canonical *canonical_create(void);
extern void canonical_reset(Canonical *canonical);

/* canonical_trim gives memory back when a buffer has grown over keep bytes. */
extern void canonical_trim(Canonical *canonical, size_t keep);

extern void canonical_append_bytes(Canonical *canonical, const char *data, size_t len);

/* A text as a JSON string; data NULL is null. */
extern void canonical_append_string(Canonical *canonical, const char *data, size_t len);

/* A node with no JSON_F_BAD flag; members that a path names are left out. */
extern void canonical_append_node(Canonical *canonical, const JsonParser *parser, uint32_t node,
								  const CanonicalPath *paths, uint32_t npaths);

/* What ECMAScript's Number::toString makes of a finite number; out has room for 32 bytes. */
extern int	canonical_double(double value, char *out);

/* SHA-256 of what was appended, as 64 lower-case hex digits without a NUL. */
extern void canonical_hash(Canonical *canonical, char *hex);

#endif							/* FLOHSYNC_CANONICAL_H */
