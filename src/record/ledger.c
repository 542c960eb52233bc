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
 * The union of a pass (ledger_union) is an array of half-open ranges of int64
 * in rising order, none touching the next, for binary search (ledger_has); before
 * it, LEDGER_HEAD bytes of zero, so that it is aligned.
 *
 * Bytes that are not what is written here raise an error: what a pass has seen
 * must not be less because of them.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "record/ledger.h"

#define LEDGER_HEAD ((int64) MAXALIGN(1))

typedef struct Range
{
	int64 start;
	int64 end; /* one past the last */
} Range;

static int
ledger_compare_int64(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

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

/* How many nums from one on are in rising order. */
static int
ledger_rising(const int64 *nums, int n, int from)
{
	int i = from + 1;

	while (i < n && nums[i - 1] <= nums[i])
		i++;
	return i;
}

/* Mostly nums are in order, or they are two lists in order: records known, and records read. */
static void
ledger_sort_nums(int64 *nums, int n)
{
	int	   first = ledger_rising(nums, n, 0);
	int64 *second;
	int	   nsecond = n - first;
	int	   at = n;

	if (first >= n)
		return;
	if (ledger_rising(nums, n, first) < n)
	{
		qsort(nums, n, sizeof(int64), ledger_compare_int64);
		return;
	}
	second = palloc(sizeof(int64) * nsecond);
	memcpy(second, nums + first, sizeof(int64) * nsecond);
	while (nsecond > 0)
		nums[--at] = first > 0 && nums[first - 1] > second[nsecond - 1] ? nums[--first] :
																		  second[--nsecond];
	pfree(second);
}

/* ledger_encode sorts nums in place. */
bytea *
ledger_encode(int64 *nums, int n)
{
	bytea *out = palloc(VARHDRSZ + (Size) n * 20);
	char  *p = VARDATA(out);
	int64  last = 0;

	ledger_sort_nums(nums, n);
	for (int i = 0; i < n;)
	{
		int64 end = nums[i] + 1;
		int	  j = i + 1;

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

FLOHSYNC_NORETURN(static void ledger_damaged(const char *what));

static void
ledger_damaged(const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid ledger: %s", what)));
}

static uint64
ledger_get(const char **p, const char *end)
{
	uint64 v = 0;

	for (int shift = 0; *p < end && shift < 64; shift += 7)
	{
		unsigned char c = *(*p)++;

		if (shift == 63 && c > 1)
			break;
		v |= (uint64) (c & 0x7f) << shift;
		if ((c & 0x80) == 0)
			return v;
	}
	ledger_damaged("a number is truncated or too large");
}

/* Reads the next range of a page; last is the end of the one before. */
static void
ledger_get_range(const char **p, const char *end, int64 last, Range *range)
{
	uint64 v = ledger_get(p, end);
	uint64 length = 1;

	if (v & 1)
	{
		uint64 more = ledger_get(p, end);

		/* Below, two more must fit. */
		if (more > PG_INT64_MAX - 2)
			ledger_damaged("a range is too long");
		length = more + 2;
	}
	if (pg_add_s64_overflow(last, (int64) (v >> 1), &range->start) ||
		pg_add_s64_overflow(range->start, (int64) length, &range->end))
		ledger_damaged("a range is beyond the largest number");
}

/*
 * Sorts ranges by their start; scratch has room for as many.  They are those of
 * pages, each in order, so what is in order already is merged with what follows.
 */
static Range *
ledger_sort(Range *ranges, Range *scratch, Size n)
{
	for (;;)
	{
		Size runs = 0;

		for (Size start = 0; start < n; runs++)
		{
			Size middle = start + 1;
			Size end;
			Size a = start;
			Size b;

			CHECK_FOR_INTERRUPTS();
			while (middle < n && ranges[middle - 1].start <= ranges[middle].start)
				middle++;
			end = b = middle;
			while (end < n && (end == middle || ranges[end - 1].start <= ranges[end].start))
				end++;
			for (Size i = start; i < end; i++)
				scratch[i] = a < middle && (b == end || ranges[a].start <= ranges[b].start) ?
					ranges[a++] :
					ranges[b++];
			start = end;
		}
		{
			Range *swap = ranges;

			ranges = scratch;
			scratch = swap;
		}
		if (runs <= 1)
			return ranges;
	}
}

/* The ranges of all pages, sorted by their start. */
static Range *
ledger_ranges(ArrayType *pages, Size *count)
{
	ArrayIterator iterator = array_create_iterator(pages, 0, NULL);
	Size		  room = 1024;
	Size		  n = 0;
	Range		 *ranges = palloc(room * sizeof(Range));
	Range		 *scratch;
	Range		 *sorted;
	Datum		  element;
	bool		  isnull;

	while (array_iterate(iterator, &element, &isnull))
	{
		bytea	   *page;
		const char *p;
		const char *end;
		int64		last = 0;

		if (isnull)
			continue;
		page = DatumGetByteaPP(element);
		p = VARDATA_ANY(page);
		end = p + VARSIZE_ANY_EXHDR(page);
		while (p < end)
		{
			if (n == room)
			{
				CHECK_FOR_INTERRUPTS();
				room *= 2;
				ranges = repalloc_huge(ranges, room * sizeof(Range));
			}
			ledger_get_range(&p, end, last, &ranges[n]);
			last = ranges[n++].end;
		}
	}
	scratch = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(Range));
	sorted = ledger_sort(ranges, scratch, n);
	pfree(sorted == ranges ? scratch : ranges);
	*count = n;
	return sorted;
}

PG_FUNCTION_INFO_V1(flohsync_ledger_union);
PGDLLEXPORT Datum
flohsync_ledger_union(PG_FUNCTION_ARGS)
{
	Size   n;
	Range *sorted = ledger_ranges(PG_GETARG_ARRAYTYPE_P(0), &n);
	bytea *result;
	Size   kept = 0;
	Size   size;

	for (Size i = 0; i < n; i++)
	{
		if (kept > 0 && sorted[i].start <= sorted[kept - 1].end)
			sorted[kept - 1].end = Max(sorted[kept - 1].end, sorted[i].end);
		else
			sorted[kept++] = sorted[i];
	}
	size = VARHDRSZ + LEDGER_HEAD + kept * sizeof(Range);
	if (!AllocSizeIsValid(size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("ledger has too many ranges: %zu", kept)));
	result = palloc(size);
	SET_VARSIZE(result, size);
	memset(VARDATA(result), 0, LEDGER_HEAD);
	memcpy(VARDATA(result) + LEDGER_HEAD, sorted, kept * sizeof(Range));
	pfree(sorted);
	PG_RETURN_BYTEA_P(result);
}

/* flohsync_ledger_repeats(pages bytea[]): how many times a record was seen on one more page. */
PG_FUNCTION_INFO_V1(flohsync_ledger_repeats);
PGDLLEXPORT Datum
flohsync_ledger_repeats(PG_FUNCTION_ARGS)
{
	Size   n;
	Range *sorted = ledger_ranges(PG_GETARG_ARRAYTYPE_P(0), &n);
	int64  repeats = 0;
	int64  end = 0;

	for (Size i = 0; i < n; i++)
	{
		if (sorted[i].start < end)
			repeats += Min(sorted[i].end, end) - sorted[i].start;
		end = Max(end, sorted[i].end);
	}
	pfree(sorted);
	PG_RETURN_INT64(repeats);
}

/* flohsync_ledger_encode(nums bigint[]): the bytes of a page that has seen them. */
PG_FUNCTION_INFO_V1(flohsync_ledger_encode);
PGDLLEXPORT Datum
flohsync_ledger_encode(PG_FUNCTION_ARGS)
{
	Datum *elements;
	bool  *nulls;
	int	   n;
	int64 *nums;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, &nulls, &n);
	nums = palloc_extended(Max(n, 1) * sizeof(int64), MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
	{
		nums[i] = nulls[i] ? 0 : DatumGetInt64(elements[i]);
		if (nums[i] < 0)
			ledger_damaged("a record_no is negative");
	}
	PG_RETURN_BYTEA_P(ledger_encode(nums, n));
}

/* flohsync_ledger_meets(seen, page): is one of the records of a page in what ledger_union returned? */
PG_FUNCTION_INFO_V1(flohsync_ledger_meets);
PGDLLEXPORT Datum
flohsync_ledger_meets(PG_FUNCTION_ARGS)
{
	bytea	   *seen = PG_GETARG_BYTEA_PP(0);
	bytea	   *page = PG_GETARG_BYTEA_PP(1);
	const char *ranges = VARDATA_ANY(seen) + LEDGER_HEAD;
	int64		size = (int64) VARSIZE_ANY_EXHDR(seen) - LEDGER_HEAD;
	int64		n = size / (int64) sizeof(Range);
	const char *p = VARDATA_ANY(page);
	const char *end = p + VARSIZE_ANY_EXHDR(page);
	int64		last = 0;
	int64		i = 0;

	if (unlikely(size < 0 || size % (int64) sizeof(Range) != 0))
		ledger_damaged("the value was not returned by ledger_union");
	while (p < end)
	{
		Range own, other;

		ledger_get_range(&p, end, last, &own);
		last = own.end;
		for (; i < n; i++)
		{
			memcpy(&other, ranges + i * sizeof(Range), sizeof(Range));
			if (other.end > own.start)
				break;
		}
		if (i < n && other.start < own.end)
			PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(false);
}

PG_FUNCTION_INFO_V1(flohsync_ledger_count);
PGDLLEXPORT Datum
flohsync_ledger_count(PG_FUNCTION_ARGS)
{
	bytea	   *seen = PG_GETARG_BYTEA_PP(0);
	const char *ranges = VARDATA_ANY(seen) + LEDGER_HEAD;
	int64		size = (int64) VARSIZE_ANY_EXHDR(seen) - LEDGER_HEAD;
	int64		count = 0;

	if (unlikely(size < 0 || size % (int64) sizeof(Range) != 0))
		ledger_damaged("the value was not returned by ledger_union");
	for (int64 i = 0; i < size; i += sizeof(Range))
	{
		Range range;

		memcpy(&range, ranges + i, sizeof(Range));
		count += range.end - range.start;
	}
	PG_RETURN_INT64(count);
}

/* ledger_union_has: is a num in what ledger_union returned? */
bool
ledger_union_has(const bytea *seen, int64 num)
{
	const char *ranges = VARDATA_ANY(seen) + LEDGER_HEAD;
	int64		size = (int64) VARSIZE_ANY_EXHDR(seen) - LEDGER_HEAD;
	int64		low = 0;
	int64		high = size / (int64) sizeof(Range);

	if (unlikely(size < 0 || size % (int64) sizeof(Range) != 0))
		ledger_damaged("the value was not returned by ledger_union");
	while (low < high)
	{
		int64 middle = (low + high) / 2;
		Range range;

		memcpy(&range, ranges + middle * sizeof(Range), sizeof(Range));
		if (num < range.start)
			high = middle;
		else if (num >= range.end)
			low = middle + 1;
		else
			return true;
	}
	return false;
}

PG_FUNCTION_INFO_V1(flohsync_ledger_has);
PGDLLEXPORT Datum
flohsync_ledger_has(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(ledger_union_has(PG_GETARG_BYTEA_PP(0), PG_GETARG_INT64(1)));
}

/* The ranges of a page are in order, as nums are. */
static void
ledger_mark(bytea *page, int number, const Range *nums, int n, int32 *last_page)
{
	const char *p = VARDATA_ANY(page);
	const char *end = p + VARSIZE_ANY_EXHDR(page);
	int64		last = 0;

	while (p < end)
	{
		Range range;
		int	  low = 0;
		int	  high = n;

		ledger_get_range(&p, end, last, &range);
		last = range.end;
		while (low < high)
		{
			int middle = (low + high) / 2;

			if (nums[middle].start < range.start)
				low = middle + 1;
			else
				high = middle;
		}
		for (; low < n && nums[low].start < range.end; low++)
			last_page[nums[low].end] = Max(last_page[nums[low].end], number);
	}
}

/*
 * flohsync_ledger_last(pages bytea[], numbers integer[], nums bigint[]): for each
 * of the nums, the largest number of a page that has seen it, 0 when none has.
 */
PG_FUNCTION_INFO_V1(flohsync_ledger_last);
PGDLLEXPORT Datum
flohsync_ledger_last(PG_FUNCTION_ARGS)
{
	Datum *pages;
	Datum *numbers;
	Datum *nums;
	bool  *no_page;
	bool  *no_number;
	bool  *no_num;
	int	   npages;
	int	   nnumbers;
	int	   n;
	Range *wanted; /* a num, and its place */
	Range *scratch;
	Range *sorted;
	int32 *last_page;
	Datum *result;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), BYTEAOID, -1, false, TYPALIGN_INT, &pages, &no_page,
					  &npages);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &numbers, &no_number, &nnumbers);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &nums, &no_num, &n);
	if (npages != nnumbers)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR), errmsg("each page must have a number")));
	wanted = palloc_extended(Max(n, 1) * sizeof(Range), MCXT_ALLOC_HUGE);
	scratch = palloc_extended(Max(n, 1) * sizeof(Range), MCXT_ALLOC_HUGE);
	last_page = palloc_extended(Max(n, 1) * sizeof(int32), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
		wanted[i] = (Range){no_num[i] ? 0 : DatumGetInt64(nums[i]), i};
	sorted = ledger_sort(wanted, scratch, n);
	for (int i = 0; i < npages; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!no_page[i] && !no_number[i])
			ledger_mark(DatumGetByteaPP(pages[i]), DatumGetInt32(numbers[i]), sorted, n, last_page);
	}
	result = palloc_extended(Max(n, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
		result[i] = Int32GetDatum(last_page[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(result, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}
