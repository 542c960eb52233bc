/*
 * upsert.h
 *	  Records that come singly.  See upsert.c.
 */
#ifndef FLOHSYNC_UPSERT_H
#define FLOHSYNC_UPSERT_H

#include "utils/jsonb.h"

#include "record/apply.h"

typedef struct UpsertScope
{
	ApplyScope	 apply;
	PageParser	*parser;
	ApplyChanges changes; /* of the last upsert_apply */
} UpsertScope;

extern void upsert_scope(UpsertScope *scope, Datum connector, Datum type, TimestampTz observed_at,
						 TimestampTz confirmed_at, Datum hash_ignore, bool rehash);
extern void upsert_read(UpsertScope *scope, const char *text, int len, UpstreamPage *page);
extern void upsert_apply(UpsertScope *scope, UpstreamPage *page, PageCounts *counts,
						 ApplyOutcome *outcomes);

#endif /* FLOHSYNC_UPSERT_H */
