/*
 * tally.h
 *	  Sums of rows that a statement has added or taken away.  See tally.c.
 */
#ifndef FLOHSYNC_RECORD_TALLY_H
#define FLOHSYNC_RECORD_TALLY_H

#include "utils/uuid.h"

#include "base/bytes.h"

/* varchar(64), of any characters */
#define TALLY_TYPE_BYTES  (64 * 4)
#define TALLY_STATE_BYTES 31

typedef struct TallyKey
{
	SubTransactionId subid;
	pg_uuid_t		 connector;
	char			 type[TALLY_TYPE_BYTES + 1];
	char			 state[TALLY_STATE_BYTES + 1];
	char			 confidence[TALLY_STATE_BYTES + 1]; /* of a match; of a record empty */
} TallyKey;

typedef struct TallySum
{
	TallyKey key;
	int64	 n;
} TallySum;

extern void		 tally_add(const pg_uuid_t *connector, Slice type, Slice state, Slice confidence,
						   int64 n);
extern void		 tally_add_records(const pg_uuid_t *connector, Slice type, bool stale, int64 n);
extern TallySum *tally_take(int *n);

#endif /* FLOHSYNC_RECORD_TALLY_H */
