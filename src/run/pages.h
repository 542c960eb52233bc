/*
 * pages.h
 *	  The pages of a pass in the ledger.  See run/pages.c.
 */
#ifndef FLOHSYNC_RUN_PAGES_H
#define FLOHSYNC_RUN_PAGES_H

#include "utils/uuid.h"

#include "base/bytes.h"
#include "record/apply.h"

typedef struct PageEntry
{
	int				 page;
	const char		*cursor;
	const char		*next_cursor;
	TimestampTz		 fetched_at;
	int				 records;
	int64			 bytes;
	double			 fetch_ms;
	double			 apply_ms;
	int64			 total_estimate; /* -1: unknown */
	const Slice		*deleted;
	int				 ndeleted;
	const char		*incomplete; /* these two as of UpstreamPage */
	bool			 unread;
	const char		*link;
	PageCounts		 counts;
	int64			*seen; /* sorted in place */
	int				 nseen;
	struct varlena	*ledger;  /* of these; made by pages_add */
	const pg_uuid_t *changed; /* added, updated, restored; NULL: not needed */
	int				 nchanged;
} PageEntry;

extern void	 pages_add(int64 run, PageEntry *entry);
extern char *pages_overlap(int64 run, MemoryContext context);
extern bool	 pages_had_several(int64 run);
extern int64 pages_repeated(int64 pass);
extern int	 pages_seen_cursors(int64 pass, uint64 **hashes, MemoryContext context);

#endif /* FLOHSYNC_RUN_PAGES_H */
