/*
 * merge.h
 *	  Records that hold only what has changed, completed.  See merge.c.
 */
#ifndef FLOHSYNC_RECORD_MERGE_H
#define FLOHSYNC_RECORD_MERGE_H

#include "lib/stringinfo.h"

#include "base/bytes.h"
#include "record/apply.h"

/* A value of a record that is put together; NULL data: it has none. */
typedef struct MergeValue
{
	Slice text;
	bool  json; /* as JSON; else its characters */
} MergeValue;

extern void merge_members(StringInfo out, Slice object);
extern void merge_write(StringInfo out, Slice id, MergeValue name, MergeValue email,
						Slice attributes);

/* A page of such records */
typedef struct Merge Merge;

extern bool			*merge_known(ApplyScope *scope, const Record *records, int n);
extern Merge		*merge_begin(ApplyScope *scope, PageParser *parser, PageParser *merger,
								 const UpstreamPage *page, bool fresh_only);
extern bool			 merge_next(Merge *m, bool known_only, UpstreamPage *merged);
extern MemoryContext merge_context(const Merge *m);
extern int			 merge_duplicates(const Merge *m);

#endif /* FLOHSYNC_RECORD_MERGE_H */
