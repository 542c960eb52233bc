/*
 * canonical.c
 *	  Writes a JSON tree in its canonical form (RFC 8785, JCS) and hashes it.
 *
 * The one exception from JCS: an integer whose exact value is not the one JCS
 * would print, and a number that no double can hold, keep their exact decimal
 * digits, without an exponent.  JCS rounds to a double, and two 64-bit ids
 * would look alike.
 *
 * Invariants:
 *	- Equal as jsonb means equal bytes here, and the form is a fixpoint.
 *	- Of equal keys the last one counts, as in jsonb.
 *	- No recursion: open containers are frames in an array.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "utils/memutils.h"

#include "base/memory_page.h"
#endif

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "json/canonical.h"

#define SHAPE_KEYS 32
#define SHAPES	   16

/* What PostgreSQL's numeric can hold, with room. */
#define TEXT_MAX_EXPONENT 150000
#define TEXT_MAX_DIGITS	  200000

#define COPY_SLACK 32

/* An open container. */
typedef struct Frame
{
	uint32 element;	 /* array: the next element */
	uint32 keys;	 /* object: its first key in work->keys */
	uint32 nkeys;	 /* object: one past its last key */
	uint32 position; /* object: the next key */
	uint32 tails;	 /* its first path in work->tails */
	uint32 tails_end;
	bool   object;
	bool   first;
} Frame;

/* What is left of a path inside a container. */
typedef struct Tail
{
	uint32 path;
	uint32 offset;
} Tail;

/* The order that sorted the last object of so many keys: the next one is likely alike. */
typedef struct Shape
{
	uint32 n;
	uint8  order[SHAPE_KEYS];
} Shape;

struct CanonicalWork
{
	MemoryContext context;
	Frame		 *frames;
	uint32		  nframes;
	uint32		  frames_size;
	CanonicalKey *keys;
	uint32		  nkeys;
	uint32		  keys_size;
	Tail		 *tails;
	uint32		  ntails;
	uint32		  tails_size;
	Shape		  shapes[SHAPES];
};

Canonical *
canonical_create(void)
{
	Canonical *canonical = palloc0(sizeof(Canonical));

	canonical->work = palloc0(sizeof(struct CanonicalWork));
	canonical->work->context = CurrentMemoryContext;
	canonical->arena.context = CurrentMemoryContext;
	return canonical;
}

void
canonical_reset(Canonical *canonical)
{
	canonical->len = 0;
	canonical->overflow = false;
	canonical_arena_reset(&canonical->arena);
}

void
canonical_trim(Canonical *canonical, size_t keep)
{
	struct CanonicalWork *work = canonical->work;

	canonical_reset(canonical);
	if (canonical->size > keep)
	{
		pfree(canonical->data);
		canonical->data = NULL;
		canonical->size = 0;
	}
	if (work->keys_size * sizeof(CanonicalKey) > keep)
	{
		pfree(work->keys);
		work->keys = NULL;
		work->keys_size = 0;
	}
	if (work->frames_size * sizeof(Frame) > keep)
	{
		pfree(work->frames);
		work->frames = NULL;
		work->frames_size = 0;
	}
}

/* Makes an array hold at least wanted items. */
static void *
grow(Canonical *canonical, void *array, uint32 *size, uint32 wanted, size_t item)
{
	struct CanonicalWork *work = canonical->work;
	size_t				  larger = Max(*size, 64);

	while (larger < wanted)
		larger *= 2;
	larger = Min(larger, PG_UINT32_MAX);
	memory_take(canonical->arena.memory, (larger - *size) * item);
	if (array == NULL)
		array = MemoryContextAllocHuge(work->context, larger * item);
	else
		array = repalloc_huge(array, larger * item);
	*size = larger;
	return array;
}

static pg_noinline void
enlarge(Canonical *canonical, size_t more)
{
	size_t size = Max(canonical->size, 4096);

	while (size < canonical->len + more + COPY_SLACK)
		size *= 2;
	memory_take(canonical->arena.memory, size - canonical->size);
	if (canonical->data == NULL)
		canonical->data = MemoryContextAllocHuge(canonical->work->context, size);
	else
		canonical->data = repalloc_huge(canonical->data, size);
	canonical->size = size;
}

/* Room for so many bytes, and COPY_SLACK more that may be overwritten. */
static inline char *
reserve(Canonical *canonical, size_t more)
{
	if (unlikely(canonical->size - canonical->len < more + COPY_SLACK))
		enlarge(canonical, more);
	return canonical->data + canonical->len;
}

char *
canonical_reserve(Canonical *canonical, size_t more)
{
	return reserve(canonical, more);
}

static inline void
put_char(Canonical *canonical, char c)
{
	*reserve(canonical, 1) = c;
	canonical->len++;
}

/* Bytes up to limit are readable: short copies go by whole vectors. */
static inline void
put_bytes(Canonical *canonical, const char *data, size_t len, const char *limit)
{
	char *out = reserve(canonical, len);

	canonical->len += len;
#ifdef __SSE2__
	if (likely(len <= 64 && limit - data >= 64 + 16))
	{
		size_t done = 0;

		do
		{
			_mm_storeu_si128((__m128i *) (out + done),
							 _mm_loadu_si128((const __m128i *) (data + done)));
			done += 16;
		} while (done < len);
		return;
	}
#endif
	memcpy(out, data, len);
}

void
canonical_append_bytes(Canonical *canonical, const char *data, size_t len)
{
	put_bytes(canonical, data, len, data + len);
}

/* The length of the start of a text that needs no escape. */
static inline size_t
plain_prefix(const unsigned char *p, size_t len)
{
	size_t i = 0;

#ifdef __SSE2__
	for (; i + 16 <= len; i += 16)
	{
		__m128i	 chunk = _mm_loadu_si128((const __m128i *) (p + i));
		__m128i	 stop;
		unsigned mask;

		stop = _mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8('"')),
							_mm_cmpeq_epi8(chunk, _mm_set1_epi8('\\')));
		stop = _mm_or_si128(stop, _mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1F)), chunk));
		mask = _mm_movemask_epi8(stop);
		if (mask != 0)
			return i + __builtin_ctz(mask);
	}
#endif
	while (i < len && p[i] != '"' && p[i] != '\\' && p[i] >= 0x20)
		i++;
	return i;
}

void
canonical_append_string(Canonical *canonical, const char *data, size_t len)
{
	static const char	 hex[] = "0123456789abcdef";
	const unsigned char *p = (const unsigned char *) data;
	const unsigned char *end;

	if (data == NULL)
	{
		canonical_append_bytes(canonical, "null", 4);
		return;
	}
	end = p + len;
	put_char(canonical, '"');
	for (;;)
	{
		size_t plain = plain_prefix(p, end - p);
		char  *out = reserve(canonical, plain + 8);

		memcpy(out, p, plain);
		out += plain;
		p += plain;
		if (p >= end)
		{
			*out++ = '"';
			canonical->len = out - canonical->data;
			return;
		}
		*out++ = '\\';
		switch (*p)
		{
			case '"':
			case '\\':
				*out++ = *p;
				break;
			case '\b':
				*out++ = 'b';
				break;
			case '\t':
				*out++ = 't';
				break;
			case '\n':
				*out++ = 'n';
				break;
			case '\f':
				*out++ = 'f';
				break;
			case '\r':
				*out++ = 'r';
				break;
			default:
				memcpy(out, "u00", 3);
				out[3] = hex[*p >> 4];
				out[4] = hex[*p & 15];
				out += 5;
				break;
		}
		p++;
		canonical->len = out - canonical->data;
	}
}

static inline bool
is_ascending(const CanonicalKey *keys, uint32 n)
{
	for (uint32 i = 1; i < n; i++)
	{
		if (canonical_key_compare(&keys[i - 1], &keys[i]) >= 0)
			return false;
	}
	return true;
}

/* Sorts the n keys at offset first; returns how many are left without the doubles. */
static uint32
order_keys(struct CanonicalWork *work, uint32 first, uint32 n)
{
	CanonicalKey *keys = work->keys + first;
	CanonicalKey *scratch = keys + n;
	Shape		 *shape = &work->shapes[n % SHAPES];
	uint32		  kept = 0;

	if (n == shape->n)
	{
		for (uint32 i = 0; i < n; i++)
			scratch[i] = keys[shape->order[i]];
		if (is_ascending(scratch, n))
		{
			memcpy(keys, scratch, n * sizeof(CanonicalKey));
			return n;
		}
	}
	if (is_ascending(keys, n))
		return n;
	shape->n = 0;
	if (n <= SHAPE_KEYS)
	{
		/* ref is put back below */
		uint32 refs[SHAPE_KEYS];

		for (uint32 i = 0; i < n; i++)
		{
			refs[i] = keys[i].ref;
			keys[i].ref = i;
		}
		canonical_key_sort(keys, scratch, n);
		for (uint32 i = 0; i < n; i++)
		{
			shape->order[i] = keys[i].ref;
			keys[i].ref = refs[keys[i].ref];
		}
		shape->n = n;
	}
	else
		canonical_key_sort(keys, scratch, n);
	for (uint32 i = 0; i < n; i++)
	{
		if (i + 1 < n && canonical_key_compare(&keys[i], &keys[i + 1]) == 0)
			continue;
		keys[kept++] = keys[i];
	}
	return kept;
}

static void
open_container(Canonical *canonical, const JsonParser *parser, const JsonNode *node, uint32 tails)
{
	struct CanonicalWork *work = canonical->work;
	const JsonNode		 *nodes = parser->nodes;
	const char			 *limit = parser->text + parser->len;
	Frame				 *frame;

	if (work->nframes >= work->frames_size)
		work->frames = grow(canonical, work->frames, &work->frames_size, work->nframes + 1,
							sizeof(Frame));
	frame = &work->frames[work->nframes++];
	frame->object = node->type == JSON_OBJECT;
	frame->first = true;
	frame->tails = tails;
	frame->tails_end = work->ntails;
	frame->element = node->child;
	frame->keys = frame->position = frame->nkeys = work->nkeys;
	put_char(canonical, frame->object ? '{' : '[');
	if (!frame->object || node->child == 0)
		return;

	if (node->count * 2 > work->keys_size - work->nkeys)
		work->keys = grow(canonical, work->keys, &work->keys_size, work->nkeys + node->count * 2,
						  sizeof(CanonicalKey));
	for (uint32 i = node->child; i != 0; i = nodes[nodes[i].next].next)
	{
		const JsonNode *name = &nodes[i];
		const char	   *data = parser->text + name->start + 1;
		uint32			len = name->end - name->start - 2;

		if (unlikely(name->flags & JSON_F_ESCAPED))
		{
			char *decoded = canonical_arena_alloc(&canonical->arena, len + 8);

			len = json_string_decode(parser, name, decoded);
			canonical_key_init(&work->keys[work->nkeys++], decoded, len, decoded + len, true, i);
		}
		else
			canonical_key_init(&work->keys[work->nkeys++], data, len, limit,
							   (name->flags & JSON_F_NON_ASCII) != 0, i);
	}
	work->nkeys = frame->nkeys = frame->keys + order_keys(work, frame->keys, node->count);
}

static void
close_container(Canonical *canonical)
{
	struct CanonicalWork *work = canonical->work;
	Frame				 *frame = &work->frames[--work->nframes];

	put_char(canonical, frame->object ? '}' : ']');
	work->nkeys = frame->keys;
}

/*
 * Looks a key up in the paths of its object.  Returns true when it is to be
 * left out; else the tails for inside its value are on top of the stack.
 */
static bool
is_left_out(Canonical *canonical, const Frame *frame, const CanonicalKey *key)
{
	struct CanonicalWork *work = canonical->work;

	for (uint32 i = frame->tails; i < frame->tails_end; i++)
	{
		const CanonicalPath *path = &canonical->paths[work->tails[i].path];
		uint32				 offset = work->tails[i].offset;
		uint32				 rest = path->len - offset;

		if (rest < key->len || memcmp(path->data + offset, key->data, key->len) != 0)
			continue;
		if (rest == key->len)
			return true;
		if (path->data[offset + key->len] != path->separator)
			continue;
		if (work->ntails >= work->tails_size)
			work->tails = grow(canonical, work->tails, &work->tails_size, work->ntails + 1,
							   sizeof(Tail));
		work->tails[work->ntails].path = work->tails[i].path;
		work->tails[work->ntails++].offset = offset + key->len + 1;
	}
	return false;
}

static void
begin_node(Canonical *canonical, const CanonicalPath *paths, uint32 npaths)
{
	struct CanonicalWork *work = canonical->work;

	work->nframes = 0;
	work->nkeys = 0;
	canonical->paths = paths;
	if (npaths > work->tails_size)
		work->tails = grow(canonical, work->tails, &work->tails_size, npaths, sizeof(Tail));
	for (uint32 i = 0; i < npaths; i++)
	{
		work->tails[i].path = i;
		work->tails[i].offset = 0;
	}
	work->ntails = npaths;
}

void
canonical_append_node(Canonical *canonical, const JsonParser *parser, uint32 root,
					  const CanonicalPath *paths, uint32 npaths)
{
	struct CanonicalWork *work = canonical->work;
	const JsonNode		 *nodes = parser->nodes;
	const char			 *text = parser->text;
	const char			 *limit = text + parser->len;
	uint32				  current = root;
	uint32				  tails = 0; /* those for current: from here to ntails */

	begin_node(canonical, paths, npaths);
	for (;;)
	{
		const JsonNode *node = &nodes[current];
		Frame		   *frame;

		if ((node->type == JSON_OBJECT || node->type == JSON_ARRAY) &&
			(node->flags & JSON_F_BAD_DEPTH) == 0 &&
			((node->flags & JSON_F_REWRITE) || work->ntails > tails))
			open_container(canonical, parser, node, tails);
		else if ((node->flags & JSON_F_REWRITE) == 0 || node->type >= JSON_ARRAY)
			put_bytes(canonical, text + node->start, node->end - node->start, limit);
		else if (node->type == JSON_NUMBER)
			canonical_append_number(canonical, text + node->start, node->end - node->start);
		else
		{
			uint32 len = node->end - node->start;
			char  *decoded = canonical_arena_alloc(&canonical->arena, len);

			len = json_string_decode(parser, node, decoded);
			canonical_append_string(canonical, decoded, len);
		}

		/* what comes next in the innermost open container */
		for (;;)
		{
			CanonicalKey   *key;
			const JsonNode *name;

			if (work->nframes == 0)
				return;
			frame = &work->frames[work->nframes - 1];
			work->ntails = frame->tails_end;
			if (!frame->object)
			{
				if (frame->element == 0)
				{
					close_container(canonical);
					continue;
				}
				if (!frame->first)
					put_char(canonical, ',');
				frame->first = false;
				current = frame->element;
				frame->element = nodes[current].next;
				tails = frame->tails;
				break;
			}
			if (frame->position == frame->nkeys)
			{
				close_container(canonical);
				continue;
			}
			key = &work->keys[frame->position++];
			if (unlikely(frame->tails_end > frame->tails) && is_left_out(canonical, frame, key))
				continue;
			tails = frame->tails_end;
			if (!frame->first)
				put_char(canonical, ',');
			frame->first = false;
			name = &nodes[key->ref];
			current = name->next;
			if (likely((name->flags & JSON_F_ESCAPED) == 0))
				put_bytes(canonical, text + name->start, name->end - name->start, limit);
			else
				canonical_append_string(canonical, key->data, key->len);
			put_char(canonical, ':');
			break;
		}
	}
}

char *
canonical_text(const char *json, size_t len, size_t *outlen)
{
	JsonParser *parser = json_parser_create();
	Canonical  *canonical = canonical_create();
	char	   *result;

	parser->max_exponent = TEXT_MAX_EXPONENT;
	parser->max_number_length = TEXT_MAX_DIGITS;
	if (!json_parse(parser, json, len, UINT32_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type json"),
				 errdetail("%s at byte %zu.", parser->error, parser->error_offset)));
	if (parser->nodes[JSON_ROOT].flags & JSON_F_BAD)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("could not convert JSON text to canonical form"),
			 errdetail(
				 "It contains \\u0000, an unpaired surrogate, or a number outside the range of type numeric.")));
	canonical_append_node(canonical, parser, JSON_ROOT, NULL, 0);
	put_char(canonical, '\0');
	*outlen = canonical->len - 1;
	result = canonical->data;
	canonical->data = NULL;
	canonical->size = 0;
	canonical_trim(canonical, 0);
	json_parser_trim(parser, 0);
	return result;
}
