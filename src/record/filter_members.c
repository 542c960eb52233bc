/*
 * filter_members.c
 *	  Which records are in scope: the filter rules, with memberOfSyncedGroups, for
 *	  which the groups that are stored are looked up.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/db_value.h"
#include "base/memory_page.h"
#include "record/apply.h"
#include "record/lookup.h"

/* Ids of groups, each once: of many users' groups there are few. */
typedef struct GroupEntry
{
	Slice  id;
	uint32 hash;
	bool   synced; /* there is such a group, and it is not stale */
	char   status; /* of simplehash.h */
} GroupEntry;

static uint32
apply_hash_slice(Slice slice)
{
	return hash_bytes((const unsigned char *) slice.data, slice.len);
}

#define SH_PREFIX		  groupset
#define SH_ELEMENT_TYPE	  GroupEntry
#define SH_KEY_TYPE		  Slice
#define SH_KEY			  id
#define SH_HASH_KEY(t, k) apply_hash_slice(k)
#define SH_EQUAL(t, a, b) (page_compare_ids((a).data, (a).len, (b).data, (b).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(t, e) ((e)->hash)
#define SH_SCOPE		  static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct GroupSearch
{
	groupset_hash *set;
	PageMemory	  *memory;
} GroupSearch;

static bool
apply_note_group(void *arg, Slice id)
{
	GroupSearch *search = arg;
	bool		 found;

	/* Room for when it doubles. */
	memory_expect(search->memory, (Size) search->set->size * 2 * sizeof(GroupEntry));
	groupset_insert(search->set, id, &found)->synced = false;
	return false;
}

static bool
apply_group_is_synced(void *arg, Slice id)
{
	GroupSearch *search = arg;
	GroupEntry	*entry = groupset_lookup(search->set, id);

	return entry != NULL && entry->synced;
}

/* Asks which of the groups are synced. */
static void
apply_find_groups(const ApplyScope *scope, GroupSearch *search)
{
	Size			  n = search->set->members;
	Size			  bytes = 0;
	Slice			 *ids;
	groupset_iterator it;
	GroupEntry		 *entry;
	uint64			  rows;
	int				  k = 0;

	memory_expect(search->memory, n * sizeof(Slice));
	ids = palloc_extended(n * sizeof(Slice), MCXT_ALLOC_HUGE);
	groupset_start_iterate(search->set, &it);
	while ((entry = groupset_iterate(search->set, &it)) != NULL)
	{
		bytes += entry->id.len + sizeof(int32) * 2;
		ids[k++] = entry->id;
	}
	/* The array, and as it is planned for what is in it, three copies. */
	memory_expect(search->memory, bytes * 4);
	lookup_synced_groups(scope->connector, db_text_array(ids, k));
	rows = SPI_processed;
	for (uint64 r = 0; r < rows; r++)
	{
		char *id = db_text(r, 1);

		entry = groupset_lookup(search->set, (Slice){id, (int) strlen(id)});
		if (entry != NULL)
			entry->synced = true;
		pfree(id);
	}
	pfree(ids);
}

/* Keeps the records that are members of a group that is synced and not stale. */
static int
apply_filter_members(ApplyScope *scope, PageParser *parser, Record *records, int n)
{
	GroupSearch search = {groupset_create(CurrentMemoryContext, 256, NULL), scope->memory};
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) page_group_ids(parser, &records[i], apply_note_group, &search);
	}
	if (search.set->members > 0)
	{
		apply_find_groups(scope, &search);
		for (int i = 0; i < n; i++)
			if (page_group_ids(parser, &records[i], apply_group_is_synced, &search))
				records[kept++] = records[i];
	}
	groupset_destroy(search.set);
	return kept;
}

/* apply_filter keeps, in place and in order, the records in scope; returns their number. */
int
apply_filter(const Filter *filter, ApplyScope *scope, PageParser *parser, Record *records, int n)
{
	int kept = 0;

	if (filter->name_pattern == NULL && filter->ngroup_ids < 0 && filter->ndomains < 0)
		kept = n;
	else
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (filter_passes(filter, &records[i]))
				records[kept++] = records[i];
		}
	if (filter->member_of_synced_groups)
		kept = apply_filter_members(scope, parser, records, kept);
	return kept;
}
