/*
 * tally.c
 *	  The sums from which the counts of sql/53_tally.sql are kept: what the rows of
 *	  a statement come to, by connector, type and state, until its end (entry/tally.c).
 *
 * Sums belong to the subtransaction that made them: only when it is rolled back
 * may they be left behind, and then they are not used any more.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "record/tally.h"

static HTAB		*tally_sums = NULL;
static TallySum *tally_last = NULL;

static void
tally_forget(void *arg)
{
	tally_sums = NULL;
	tally_last = NULL;
}

/* The sums go with the transaction. */
static void
tally_begin(void)
{
	HASHCTL				   ctl = {.keysize = sizeof(TallyKey),
								  .entrysize = sizeof(TallySum),
								  .hcxt = TopTransactionContext};
	MemoryContextCallback *callback = MemoryContextAllocZero(TopTransactionContext,
															 sizeof(*callback));

	tally_sums = hash_create("flohsync tally", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	callback->func = tally_forget;
	MemoryContextRegisterResetCallback(TopTransactionContext, callback);
}

static void
tally_put(char *to, int size, Slice text)
{
	memcpy(to, text.data, Min(text.len, size - 1));
}

/* tally_add notes that a statement has added n rows, or taken them away. */
void
tally_add(const pg_uuid_t *connector, Slice type, Slice state, Slice confidence, int64 n)
{
	TallyKey key;

	/* Compared byte by byte, with what is between the fields. */
	memset(&key, 0, sizeof(key));
	key.subid = GetCurrentSubTransactionId();
	key.connector = *connector;
	tally_put(key.type, sizeof(key.type), type);
	tally_put(key.state, sizeof(key.state), state);
	tally_put(key.confidence, sizeof(key.confidence), confidence);
	if (tally_sums == NULL)
		tally_begin();
	/* Row after row has the same key. */
	if (tally_last == NULL || memcmp(&tally_last->key, &key, sizeof(key)) != 0)
	{
		bool found;

		tally_last = hash_search(tally_sums, &key, HASH_ENTER, &found);
		if (!found)
			tally_last->n = 0;
	}
	tally_last->n += n;
}

void
tally_add_records(const pg_uuid_t *connector, Slice type, bool stale, int64 n)
{
	tally_add(connector, type, stale ? (Slice){"stale", 5} : (Slice){"live", 4}, (Slice){"", 0}, n);
}

/* tally_take ends the sums of this subtransaction: those that are not zero. */
TallySum *
tally_take(int *n)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	HASH_SEQ_STATUS	 scan;
	TallySum		*sum;
	TallySum		*sums;

	*n = 0;
	if (tally_sums == NULL || hash_get_num_entries(tally_sums) == 0)
		return NULL;
	sums = palloc(sizeof(TallySum) * hash_get_num_entries(tally_sums));
	tally_last = NULL;
	hash_seq_init(&scan, tally_sums);
	while ((sum = hash_seq_search(&scan)) != NULL)
	{
		bool mine = sum->key.subid == subid;

		if (mine && sum->n != 0)
			sums[(*n)++] = *sum;
		if (mine || !SubTransactionIsActive(sum->key.subid))
			hash_search(tally_sums, &sum->key, HASH_REMOVE, NULL);
	}
	return sums;
}
