/*
 * lookup.h
 *	  What is stored of a page's records.  See lookup.c.
 */
#ifndef FLOHSYNC_LOOKUP_H
#define FLOHSYNC_LOOKUP_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/uuid.h"

#include "page/page.h"

/* What the lookup found for a record. */
typedef struct ExistingRow
{
	int64			num; /* 0: not stored */
	pg_uuid_t		id;
	char			hash[FLOHSYNC_HASH_HEX];
	bool			stale;
	ItemPointerData tid; /* of the version that was seen */
} ExistingRow;

extern int	lookup_deleted(Datum connector, Datum resource_type, const Record *records,
						   const int *which, int n, TimestampTz observed_at, TimestampTz event_at,
						   int *deleted);
extern void lookup_records(Datum connector, Datum resource_type, const Record *records, int n,
						   ExistingRow *prior);

extern void lookup_synced_groups(Datum connector, Datum ids);

#endif /* FLOHSYNC_LOOKUP_H */
