/*
 * filter.h
 *	  Which records are in scope.  See filter.c.
 */
#ifndef FLOHSYNC_FILTER_H
#define FLOHSYNC_FILTER_H

#include "page/page.h"

typedef struct Filter
{
	char  *name_pattern; /* folded, NULL: any */
	char **group_ids;	 /* sorted by bytes */
	int	   ngroup_ids;	 /* -1: any */
	char **domains;		 /* folded, sorted */
	int	   ndomains;	 /* -1: any */
	bool   member_of_synced_groups;
	int64  max_records; /* 0: no limit */
	Oid	   collation;	/* by whose rules case is folded */
} Filter;

extern void filter_prepare(Filter *filter);
extern bool filter_passes(const Filter *filter, const Record *record);

#endif /* FLOHSYNC_FILTER_H */
