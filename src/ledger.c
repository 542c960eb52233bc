/*
 * ledger.c
 *	  The ledger of a pass: which records each page has seen.
 *
 * A page's bytes (sync_run_page.seen) are the nums of its records in rising
 * order, as runs of consecutive nums: for each run a varint of
 * (gap << 1 | more), gap being the distance from the end of the run before
 * (the first counts from 0), and, if more, a varint of (length - 2).  Records
 * that were stored together cost a few bytes a page, scattered ones two or
 * three each.
 *
 * The union of a pass (_ledger_union) is an array of half-open ranges of int64
 * in rising order, none touching the next, for binary search (_ledger_has).
 */
#include "postgres.h"

#include "compat.h"

#include "fmgr.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "ledger.h"

typedef struct Range
{
	int64		start;
	int64		end;			/* one past the last */
} Range;

static int
ledger_compare_int64(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

static char *
ledger_put(char *p, uint64 v)
{
	while (v >= 0x80)
	{
		*p++ = (char) (v | 0x80);
		v >>= 7;
	}
	*p++ = (char) v;
	return p;
}

/* ledger_encode sorts nums in place. */
bytea *
ledger_encode(int64 *nums, int n)
{
	bytea	   *out = palloc(VARHDRSZ + (Size) n * 20);
	char	   *p = VARDATA(out);
	int64		last = 0;
	bool		sorted = true;

	for (int i = 1; i < n && sorted; i++)
		sorted = nums[i - 1] <= nums[i];
	if (!sorted)
		qsort(nums, n, sizeof(int64), ledger_compare_int64);
	for (int i = 0; i < n;)
	{
		int64		end = nums[i] + 1;
		int			j = i + 1;

		for (; j < n && nums[j] <= end; j++)
			end = nums[j] + 1;
		p = ledger_put(p, (uint64) (nums[i] - last) << 1 | (end - nums[i] > 1));
		if (end - nums[i] > 1)
			p = ledger_put(p, end - nums[i] - 2);
		last = end;
		i = j;
	}
	SET_VARSIZE(out, p - (char *) out);
	return out;
}

static bool
ledger_get(const char **p, const char *end, uint64 *v)
{
	int			shift = 0;

	*v = 0;
	while (*p < end && shift < 64)
	{
		unsigned char c = *(*p)++;

		*v |= (uint64) (c & 0x7f) << shift;
		if ((c & 0x80) == 0)
			return true;
		shift += 7;
	}
	return false;
}

static int
ledger_compare_range(const void *a, const void *b)
{
	return ledger_compare_int64(&((const Range *) a)->start, &((const Range *) b)->start);
}

PG_FUNCTION_INFO_V1(flohsync_ledger_union);
PGDLLEXPORT Datum
flohsync_ledger_union(PG_FUNCTION_ARGS)
{
	ArrayType  *pages = PG_GETARG_ARRAYTYPE_P(0);
	ArrayIterator iterator = array_create_iterator(pages, 0, NULL);
	Size		room = 1024;
	Size		n = 0;
	Range	   *ranges = palloc(room * sizeof(Range));
	Range	   *out;
	bytea	   *result;
	Size		kept = 0;
	Datum		element;
	bool		isnull;

	while (array_iterate(iterator, &element, &isnull))
	{
		bytea	   *page;
		const char *p;
		const char *end;
		int64		last = 0;
		uint64		v;

		if (isnull)
			continue;
		page = DatumGetByteaPP(element);
		p = VARDATA_ANY(page);
		end = p + VARSIZE_ANY_EXHDR(page);
		while (ledger_get(&p, end, &v))
		{
			uint64		more = 0;

			if ((v & 1) && !ledger_get(&p, end, &more))
				break;
			if (n == room)
			{
				room *= 2;
				ranges = repalloc_huge(ranges, room * sizeof(Range));
			}
			ranges[n].start = last + (int64) (v >> 1);
			last = ranges[n].end = ranges[n].start + 1 + ((v & 1) ? (int64) more + 1 : 0);
			n++;
		}
	}
	qsort(ranges, n, sizeof(Range), ledger_compare_range);
	for (Size i = 0; i < n; i++)
	{
		if (kept > 0 && ranges[i].start <= ranges[kept - 1].end)
			ranges[kept - 1].end = Max(ranges[kept - 1].end, ranges[i].end);
		else
			ranges[kept++] = ranges[i];
	}
	result = palloc(VARHDRSZ + MAXALIGN(1) + kept * sizeof(Range));
	SET_VARSIZE(result, VARHDRSZ + MAXALIGN(1) + kept * sizeof(Range));
	memset(VARDATA(result), 0, MAXALIGN(1));
	out = (Range *) (VARDATA(result) + MAXALIGN(1));
	memcpy(out, ranges, kept * sizeof(Range));
	pfree(ranges);
	PG_RETURN_BYTEA_P(result);
}

PG_FUNCTION_INFO_V1(flohsync_ledger_has);
PGDLLEXPORT Datum
flohsync_ledger_has(PG_FUNCTION_ARGS)
{
	bytea	   *seen = PG_GETARG_BYTEA_PP(0);
	int64		num = PG_GETARG_INT64(1);
	const char *ranges = VARDATA_ANY(seen) + MAXALIGN(1);
	int64		low = 0;
	int64		high = ((int64) VARSIZE_ANY_EXHDR(seen) - MAXALIGN(1)) / (int64) sizeof(Range);

	while (low < high)
	{
		int64		middle = (low + high) / 2;
		Range		range;

		memcpy(&range, ranges + middle * sizeof(Range), sizeof(Range));
		if (num < range.start)
			high = middle;
		else if (num >= range.end)
			low = middle + 1;
		else
			PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(false);
}
