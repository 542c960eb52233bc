/*
 * rules.h
 *	  What a configuration says about records.  See record/rules.c.
 */
#ifndef FLOHSYNC_RECORD_RULES_H
#define FLOHSYNC_RECORD_RULES_H

#include "page/filter.h"

/* The five columns of an alias's filter_rules that rules_get_filter reads. */
#define RULES_FILTER_COLUMNS(alias) \
	alias ".filter_rules ->> 'groupNamePattern'," \
		  " case when " alias ".filter_rules ? 'groupIds' then array(select * from" \
		  " pg_catalog.jsonb_array_elements_text(" alias ".filter_rules -> 'groupIds')) end," \
		  " case when " alias ".filter_rules ? 'emailDomains' then array(select * from" \
		  " pg_catalog.jsonb_array_elements_text(" alias ".filter_rules -> 'emailDomains')) end," \
		  " (" alias ".filter_rules ->> 'memberOfSyncedGroups')::boolean, (" alias \
		  ".filter_rules ->> 'maxRecords')::numeric::bigint"
/* May records have the hash of another rule?  See connector_sync_config.hash_ignore_since. */
#define RULES_REHASH(alias) \
	"(" alias ".hash_ignore_since >= coalesce(" alias ".last_full_pass_at, '-infinity'))"
#define RULES_HASH_IGNORE(alias) \
	"case when " alias \
	".hash_ignore is not null then array(select * from pg_catalog.jsonb_array_elements_text(" alias \
	".hash_ignore)) end"

/*
 * When all records that are not stale were confirmed: by the configuration c, or by one that
 * was deleted, _flohsync.former_pass f.  As _flohsync.confirmed_at, and find_confirmed_at.
 */
#define RULES_CONFIRMED_AT "greatest(c.last_full_pass_at, f.confirmed_at)"

extern void rules_get_filter(uint64 row, int column, Filter *filter, MemoryContext context);

#endif /* FLOHSYNC_RECORD_RULES_H */
