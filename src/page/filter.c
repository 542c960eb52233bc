/*
 * filter.c
 *	  Which records are in scope: the rules that a record alone decides.
 *	  (memberOfSyncedGroups needs the database: record/filter_members.c.)
 *
 * A record must pass every rule that is given.  Names and domains compare
 * without regard to case, by the Unicode rules of ICU where the server has
 * them, else by those of the database's locale.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_collation.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "utils/formatting.h"

#include "page/filter.h"

static char *
filter_fold(Oid collation, const char *text, int len)
{
	bool  ascii = true;
	char *folded;

	for (int i = 0; i < len && ascii; i++)
		ascii = (signed char) text[i] >= 0;
	if (!ascii)
		return str_tolower(text, len, collation);
	folded = pnstrdup(text, len);
	for (int i = 0; i < len; i++)
		folded[i] = pg_ascii_tolower((unsigned char) folded[i]);
	return folded;
}

static int
filter_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* filter_prepare folds and sorts what filter_passes looks up; like that, it reads catalogs. */
void
filter_prepare(Filter *filter)
{
	filter->collation =
		get_collation_oid(list_make2(makeString("pg_catalog"), makeString("und-x-icu")), true);
	if (!OidIsValid(filter->collation))
		filter->collation = DEFAULT_COLLATION_OID;
	if (filter->name_pattern)
		filter->name_pattern = filter_fold(filter->collation, filter->name_pattern,
										   strlen(filter->name_pattern));
	for (int i = 0; i < filter->ndomains; i++)
	{
		const char *domain = filter->domains[i];

		if (domain[0] == '@')
			domain++;
		filter->domains[i] = filter_fold(filter->collation, domain, strlen(domain));
	}
	if (filter->ndomains > 1)
		qsort(filter->domains, filter->ndomains, sizeof(char *), filter_compare);
	if (filter->ngroup_ids > 1)
		qsort(filter->group_ids, filter->ngroup_ids, sizeof(char *), filter_compare);
}

/*
 * filter_glob matches * (any characters) and ? (one character, not one byte).
 * On a mismatch it goes back to the last * only: linear in practice, and never
 * worse than pattern times text.
 */
static bool
filter_glob(const char *pattern, const char *text)
{
	const char *star = NULL;
	const char *retry = NULL;

	while (*text)
	{
		if (*pattern == '*')
		{
			star = pattern++;
			retry = text;
		}
		else if (*pattern == '?')
		{
			pattern++;
			text += pg_mblen(text);
		}
		else if (*pattern == *text)
		{
			pattern++;
			text++;
		}
		else if (star)
		{
			pattern = star + 1;
			retry += pg_mblen(retry);
			text = retry;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

bool
filter_passes(const Filter *filter, const Record *record)
{
	char *key;
	bool  passes;

	if (filter->ngroup_ids >= 0)
	{
		key = pnstrdup(record->external_id.data, record->external_id.len);
		passes = bsearch(&key, filter->group_ids, filter->ngroup_ids, sizeof(char *),
						 filter_compare) != NULL;
		pfree(key);
		if (!passes)
			return false;
	}
	if (filter->name_pattern)
	{
		key = filter_fold(filter->collation,
						  record->display_name.data ? record->display_name.data : "",
						  record->display_name.len);
		passes = filter_glob(filter->name_pattern, key);
		pfree(key);
		if (!passes)
			return false;
	}
	if (filter->ndomains >= 0)
	{
		const char *at = NULL;

		for (int i = 0; i < record->email.len; i++)
			if (record->email.data[i] == '@')
				at = record->email.data + i + 1;
		if (at == NULL)
			return false;
		key = filter_fold(filter->collation, at, record->email.data + record->email.len - at);
		passes = bsearch(&key, filter->domains, filter->ndomains, sizeof(char *), filter_compare) !=
			NULL;
		pfree(key);
		if (!passes)
			return false;
	}
	return true;
}
