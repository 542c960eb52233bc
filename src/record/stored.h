/*
 * stored.h
 *	  Stored records that are written again.  See stored.c and stored_write.c.
 */
#ifndef FLOHSYNC_RECORD_STORED_H
#define FLOHSYNC_RECORD_STORED_H

#include "access/htup.h"

#include "record/apply.h"
#include "record/lookup.h"

typedef struct StoredRecord
{
	ExistingRow row;
	TimestampTz event_at; /* 0: unknown */
	TimestampTz observed_at;
	Jsonb	   *keys;		  /* which event has named which key last; see webhook/keys.c */
	char	   *display_name; /* these three: NULL when it has none */
	char	   *email;
	char	   *attributes; /* as JSON */
	HeapTuple	tuple;		/* the row itself; NULL: only a statement may write it */
} StoredRecord;

extern bool stored_lock(Datum connector, Datum resource_type, const char *id, StoredRecord *stored);
extern bool stored_differs(const StoredRecord *stored, const Record *record);

/* stored_write.c */
extern bool stored_write(const ApplyScope *scope, const Record *record, bool *written);
extern int	stored_write_page(const ApplyScope *scope, const Record *records,
							  const ExistingRow *prior, const int *which, int n, bool *written);

#endif /* FLOHSYNC_RECORD_STORED_H */
