/*
 * rules.c
 *	  What a configuration says about records: which are wanted, and what of them counts.
 */
#include "postgres.h"

#include "base/compat.h"

#include "base/db.h"
#include "base/db_value.h"
#include "record/rules.h"

/* rules_get_filter reads what RULES_FILTER_COLUMNS selected, from a column on. */
void
rules_get_filter(uint64 row, int column, Filter *filter, MemoryContext context)
{
	filter->name_pattern = db_get_text(row, column, context);
	filter->ngroup_ids = db_get_texts(row, column + 1, &filter->group_ids, context);
	filter->ndomains = db_get_texts(row, column + 2, &filter->domains, context);
	filter->member_of_synced_groups = db_bool(row, column + 3);
	filter->max_records = db_int64(row, column + 4, 0);
}
