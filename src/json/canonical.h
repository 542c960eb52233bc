/*
 * canonical.h
 *	  The canonical form of JSON (RFC 8785 with one exception) and the hash of
 *	  a record.  See canonical.c.
 */
#ifndef FLOHSYNC_CANONICAL_H
#define FLOHSYNC_CANONICAL_H

#include "json/json.h"
#include "port/pg_bswap.h"

/* canonical_text returns the palloc'd canonical form of a JSON text; raises 22P02 for bad JSON. */
extern char *canonical_text(const char *json, size_t len, size_t *outlen);

/* Small strings that live until the arena is reset; zero-filled is empty. */
typedef struct CanonicalArena
{
	struct CanonicalChunk	 *chunks; /* newest first */
	struct MemoryContextData *context;
	struct PageMemory		 *memory; /* that it is counted in; NULL: in none */
} CanonicalArena;

extern char *canonical_arena_alloc(CanonicalArena *arena, size_t size);
extern void	 canonical_arena_reset(CanonicalArena *arena);

/*
 * A byte string to sort.  With utf16 set it is compared by UTF-16 code units,
 * which differs from its bytes only for characters outside the basic plane.
 */
typedef struct CanonicalKey
{
	uint64_t	prefix; /* first 8 bytes, big-endian, zero-filled */
	const char *data;
	uint32_t	len;
	uint32_t	ref; /* the caller's */
	bool		utf16;
} CanonicalKey;

extern int canonical_key_compare_tails(const CanonicalKey *a, const CanonicalKey *b);

/*
 * The order of UTF-16: what needs a pair of surrogates (F0..) comes before
 * U+E000 (EE, EF).  One to one, so that even bytes that are not UTF-8 have an
 * order.
 */
static inline unsigned char
canonical_utf16_rank(unsigned char c)
{
	return c < 0xEE ? c : c < 0xF0 ? c + 0x10 : c - 2;
}

/* limit: bytes up to here may be read, whatever the length says. */
static inline void
canonical_key_init(CanonicalKey *key, const char *data, uint32 len, const char *limit, bool utf16,
				   uint32 ref)
{
	uint64 prefix = 0;

	key->data = data;
	key->len = len;
	key->ref = ref;
	key->utf16 = utf16;
	if (likely(limit - data >= 8))
		memcpy(&prefix, data, 8);
	else
		memcpy(&prefix, data, Min(len, limit - data));
	if (unlikely(utf16))
	{
		unsigned char *byte = (unsigned char *) &prefix;

		for (int i = 0; i < 8; i++)
			byte[i] = canonical_utf16_rank(byte[i]);
	}
	prefix = pg_ntoh64(prefix);
	if (len < 8)
		prefix &= ~(PG_UINT64_MAX >> 8 * len);
	key->prefix = prefix;
}

static inline int
canonical_key_compare(const CanonicalKey *a, const CanonicalKey *b)
{
	if (a->prefix != b->prefix)
		return a->prefix < b->prefix ? -1 : 1;
	return canonical_key_compare_tails(a, b);
}

/* Stable, n log n at worst; scratch has room for n keys, the result is in keys. */
extern void canonical_key_sort(CanonicalKey *keys, CanonicalKey *scratch, uint32_t n);

/* A path that is left out: names and what stands between them, e.g. "a.b". */
typedef struct CanonicalPath
{
	const char *data;
	uint32_t	len;
	char		separator;
} CanonicalPath;

/* A serializer; data[0..len) is what was appended since the last reset. */
typedef struct Canonical
{
	char				 *data;
	size_t				  len;
	size_t				  size;
	const CanonicalPath	 *paths;
	size_t				  limit;	/* soft, 0 for none: see overflow */
	bool				  overflow; /* numbers were left out because they passed the limit */
	CanonicalArena		  arena;	/* decoded strings, until the reset */
	struct CanonicalWork *work;
} Canonical;

/*
 * Made in the current memory context, where its buffers will live, too; counted in
 * arena.memory, once that is set.
 */
extern Canonical *canonical_create(void);
extern void		  canonical_reset(Canonical *canonical);

/* canonical_trim gives memory back when a buffer has grown over keep bytes. */
extern void canonical_trim(Canonical *canonical, size_t keep);

/* Where the next bytes go, with room for so many; the caller adds to len. */
extern char *canonical_reserve(Canonical *canonical, size_t more);

extern void canonical_append_bytes(Canonical *canonical, const char *data, size_t len);

/* A text as a JSON string; data NULL is null. */
extern void canonical_append_string(Canonical *canonical, const char *data, size_t len);

/* The canonical form of a number literal. */
extern void canonical_append_number(Canonical *canonical, const char *text, uint32_t len);

/* A node with no JSON_F_BAD flag; members that a path names are left out. */
extern void canonical_append_node(Canonical *canonical, const JsonParser *parser, uint32_t node,
								  const CanonicalPath *paths, uint32_t npaths);

/* What ECMAScript's Number::toString makes of a finite number; out has room for 32 bytes. */
extern int canonical_double(double value, char *out);

/* SHA-256 of what was appended, as 64 lower-case hex digits without a NUL. */
extern void canonical_hash(Canonical *canonical, char *hex);

#define CANONICAL_DIGEST_BYTES 32

extern void canonical_digest(const void *data, size_t len,
							 unsigned char sum[CANONICAL_DIGEST_BYTES]);

#endif /* FLOHSYNC_CANONICAL_H */
