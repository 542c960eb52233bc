/*
 * known_text.c
 *	  Lists of known records as they are stored.
 *
 * A list is written as a whole, or as what is different from one that is stored: mostly a page
 * changes little from pass to pass, and a list of 500 records has 14 kB.  Differences are
 * always against a list that is stored as a whole, so two texts are enough to read one; when
 * an eighth of it has changed since, the list is written as a whole again.
 *
 *	  whole: version, how many records, the records
 *	  differences: version, how many records, then again and again: from where and how many
 *		records are those of the other list, how many others follow, and these
 *
 * Of a record there are its digest, the hash of its id, its length, and how far its num is
 * from that of the record before.  All other numbers are varints; what may be less than 0 has
 * its sign in the lowest bit.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "utils/memutils.h"
#endif

#include "page/known.h"

#define KNOWN_WHOLE		  1
#define KNOWN_DIFFERENCES 2

/* A record takes no less. */
#define KNOWN_LEAST (KNOWN_DIGEST_BYTES + sizeof(uint64))

static char *
known_put(char *p, uint64 v)
{
	while (v >= 0x80)
	{
		*p++ = (char) (v | 0x80);
		v >>= 7;
	}
	*p++ = (char) v;
	return p;
}

static char *
known_put_step(char *p, int64 to, int64 from)
{
	uint64 step = (uint64) to - (uint64) from;

	return known_put(p, step << 1 ^ (step >> 63 ? ~UINT64CONST(0) : 0));
}

static char *
known_put_record(char *p, const KnownRecord *r, int64 last)
{
	memcpy(p, r->digest, KNOWN_DIGEST_BYTES);
	p += KNOWN_DIGEST_BYTES;
	memcpy(p, &r->id_hash, sizeof(r->id_hash));
	p += sizeof(r->id_hash);
	p = known_put(p, r->len);
	return known_put_step(p, r->num, last);
}

static bool
known_get(const char **p, const char *end, uint64 *v)
{
	*v = 0;
	for (int shift = 0; *p < end && shift < 64; shift += 7)
	{
		unsigned char c = *(*p)++;

		if (shift == 63 && c > 1)
			return false;
		*v |= (uint64) (c & 0x7f) << shift;
		if ((c & 0x80) == 0)
			return true;
	}
	return false;
}

static bool
known_get_step(const char **p, const char *end, int64 from, int64 *to)
{
	uint64 step;

	if (!known_get(p, end, &step))
		return false;
	*to = (int64) ((uint64) from + (step >> 1 ^ (step & 1 ? ~UINT64CONST(0) : 0)));
	return true;
}

static bool
known_get_record(const char **p, const char *end, KnownRecord *r, int64 last)
{
	uint64 len;

	memset(r, 0, sizeof(*r));
	if (end - *p < (ptrdiff_t) KNOWN_LEAST)
		return false;
	memcpy(r->digest, *p, KNOWN_DIGEST_BYTES);
	*p += KNOWN_DIGEST_BYTES;
	memcpy(&r->id_hash, *p, sizeof(r->id_hash));
	*p += sizeof(r->id_hash);
	if (!known_get(p, end, &len) || len > UINT32_MAX || !known_get_step(p, end, last, &r->num))
		return false;
	r->len = (uint32) len;
	return true;
}

/* known_encode writes a list as a whole; there is room for KNOWN_ENCODED(n) bytes. */
size_t
known_encode(const KnownRecord *records, int n, char *out)
{
	char *p = out;
	int64 last = 0;

	p = known_put(p, KNOWN_WHOLE);
	p = known_put(p, n);
	for (int i = 0; i < n; i++)
	{
		p = known_put_record(p, &records[i], last);
		last = records[i].num;
	}
	return p - out;
}

/*
 * known_encode_changes writes what is different from a stored list, that of the first record
 * that is of one: *base, of so many records.  0: too much is.  There is room for
 * KNOWN_ENCODED_CHANGES(n) bytes.
 */
size_t
known_encode_changes(const KnownRecord *records, int n, char *out, int64 *base)
{
	char *p = out;
	char *most = out + KNOWN_ENCODED_CHANGES(n) - KNOWN_ENCODED(1) - 30;
	int64 last = 0;
	int64 next = 0; /* of the other list */
	int	  i = 0;

	while (i < n && records[i].base == 0)
		i++;
	if (i == n)
		return 0;
	*base = records[i].base;
	p = known_put(p, KNOWN_DIFFERENCES);
	p = known_put(p, n);
	for (i = 0; i < n;)
	{
		int same = i;
		int others;

		while (same < n && records[same].base == *base &&
			   (same == i || records[same].base_at == records[same - 1].base_at + 1))
			same++;
		others = same;
		while (others < n && records[others].base != *base)
			others++;
		if (p > most)
			return 0;
		p = known_put_step(p, same > i ? records[i].base_at : next, next);
		p = known_put(p, same - i);
		p = known_put(p, others - same);
		if (same > i)
		{
			next = (int64) records[same - 1].base_at + 1;
			last = records[same - 1].num;
		}
		for (; same < others; same++)
		{
			if (p > most)
				return 0;
			p = known_put_record(p, &records[same], last);
			last = records[same].num;
		}
		i = others;
	}
	return p - out;
}

static bool
known_decode_whole(const KnownText *text, KnownRecord *records, int room, int *n)
{
	const char *p = text->whole.data;
	const char *end = p + text->whole.len;
	int64		last = 0;
	uint64		version;
	uint64		wanted;

	*n = 0;
	if (!known_get(&p, end, &version) || version != KNOWN_WHOLE || !known_get(&p, end, &wanted) ||
		wanted > (uint64) room)
		return false;
	for (int i = 0; i < (int) wanted; i++)
	{
		if (!known_get_record(&p, end, &records[i], last))
			return false;
		records[i].base = text->base;
		records[i].base_at = i;
		last = records[i].num;
	}
	*n = (int) wanted;
	return p == end;
}

static bool
known_decode_changes(const KnownText *text, const KnownRecord *base, int nbase,
					 KnownRecord *records, int room, int *n)
{
	const char *p = text->changes.data;
	const char *end = p + text->changes.len;
	int64		last = 0;
	int64		next = 0;
	uint64		version;
	uint64		wanted;

	*n = 0;
	if (!known_get(&p, end, &version) || version != KNOWN_DIFFERENCES ||
		!known_get(&p, end, &wanted) || wanted > (uint64) room)
		return false;
	while (*n < (int) wanted)
	{
		uint64 same;
		uint64 others;

		if (!known_get_step(&p, end, next, &next) || !known_get(&p, end, &same) ||
			!known_get(&p, end, &others) || next < 0 || next > nbase ||
			same > (uint64) (nbase - next) || same > wanted - *n || others > wanted - *n - same ||
			same + others == 0)
			return false;
		memcpy(records + *n, base + next, sizeof(KnownRecord) * same);
		*n += (int) same;
		next += (int64) same;
		if (same > 0)
			last = records[*n - 1].num;
		for (; others > 0; others--)
		{
			if (!known_get_record(&p, end, &records[*n], last))
				return false;
			last = records[(*n)++].num;
		}
	}
	return p == end;
}

/* known_decode reads a list; false, and there are no records, if it is damaged. */
bool
known_decode(const KnownText *text, struct MemoryContextData *context, KnownRecord **records,
			 int *n)
{
	int			 room = (int) Min(text->whole.len / KNOWN_LEAST, KNOWN_MAX_RECORDS);
	KnownRecord *whole = MemoryContextAllocHuge(context, sizeof(KnownRecord) * (room + 1));
	bool		 good;

	good = known_decode_whole(text, whole, room, n);
	*records = whole;
	if (good && text->changes.data)
	{
		int nbase = *n;

		/* Each record is in one of the texts. */
		room = (int) Min(nbase + text->changes.len / KNOWN_LEAST, KNOWN_MAX_RECORDS);
		*records = MemoryContextAllocHuge(context, sizeof(KnownRecord) * (room + 1));
		good = known_decode_changes(text, whole, nbase, *records, room, n);
		pfree(whole);
	}
	if (!good)
		*n = 0;
	return good;
}
