/*
 * fuzz_known.c
 *	  Any bytes as a stored list of known records, and as what is different from it: what is
 *	  read of them is written and read again as it was.  The first two bytes say where the
 *	  second text begins; at the very end: there is none.
 */
#include "base/standalone.h"

#include "keep.h"

#include "page/known.h"

jmp_buf *standalone_catch;

static void
check_same(const KnownText *text, const KnownRecord *records, int n)
{
	KnownRecord *again;
	int			 got;

	CHECK(known_decode(text, NULL, &again, &got) && got == n);
	for (int i = 0; i < n; i++)
		CHECK(again[i].num == records[i].num && again[i].len == records[i].len &&
			  again[i].id_hash == records[i].id_hash &&
			  memcmp(again[i].digest, records[i].digest, KNOWN_DIGEST_BYTES) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	KnownText	 text = {.base = 1};
	KnownText	 written = {.base = 1};
	KnownRecord *records;
	size_t		 at;
	int64		 base = 0;
	int			 n;

	if (size < 2)
		return 0;
	keep_begin();
	at = 2 + Min((size_t) (data[0] | data[1] << 8), size - 2);
	text.whole = (Slice){(char *) data + 2, at - 2};
	if (at < size)
		text.changes = (Slice){(char *) data + at, size - at};
	if (!known_decode(&text, NULL, &records, &n))
		CHECK(n == 0);
	else
	{
		CHECK(n <= KNOWN_MAX_RECORDS);
		written.whole.data = palloc(KNOWN_ENCODED(n));
		written.whole.len = known_encode(records, n, (char *) written.whole.data);
		CHECK(written.whole.len <= KNOWN_ENCODED(n));
		check_same(&written, records, n);
		written.whole = text.whole;
		written.changes.data = palloc(KNOWN_ENCODED_CHANGES(n));
		written.changes.len = known_encode_changes(records, n, (char *) written.changes.data,
												   &base);
		CHECK(written.changes.len <= KNOWN_ENCODED_CHANGES(n));
		if (written.changes.len > 0)
		{
			CHECK(base == 1);
			check_same(&written, records, n);
		}
	}
	keep_end();
	return 0;
}
