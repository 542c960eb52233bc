/*
 * upsert.c
 *	  Records that come singly: by upsert_resource() and its like, or by a
 *	  webhook.  The reader and the writer are those of a page of a pass.
 *
 * SPI must be connected.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "record/apply.h"
#include "record/upsert.h"

/*
 * upsert_scope prepares for records of a connector (uuid) and a type (text)
 * that were observed at a time.  confirmed_at is the start of the last complete
 * full pass, 0 for none; hash_ignore a text[], 0 for none; rehash as of ApplyScope.
 */
void
upsert_scope(UpsertScope *scope, Datum connector, Datum type, TimestampTz observed_at,
			 TimestampTz confirmed_at, Datum hash_ignore, bool rehash)
{
	Datum		*elements = NULL;
	bool		*nulls = NULL;
	int			 n = 0;
	const char **ignore;
	TimestampTz	 now = GetCurrentTimestamp();

	memset(scope, 0, sizeof(*scope));
	scope->apply.connector = PointerGetDatum(
		memcpy(palloc(UUID_LEN), DatumGetUUIDP(connector), UUID_LEN));
	scope->apply.resource_type = type;
	scope->apply.individual = true;
	/* An observation cannot be from the future; one that said so would keep all others out. */
	scope->apply.observed_at = Min(observed_at, now);
	scope->apply.confirmed_at = confirmed_at;
	if (DatumGetPointer(hash_ignore) != NULL)
		deconstruct_array(DatumGetArrayTypeP(hash_ignore), TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, &nulls, &n);
	scope->apply.rehash = rehash;
	scope->apply.hash_ignore = DatumGetPointer(hash_ignore) != NULL ?
		PointerGetDatum(DatumGetArrayTypePCopy(hash_ignore)) :
		PointerGetDatum(construct_empty_array(TEXTOID));
	ignore = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		ignore[i] = nulls[i] ? "" : TextDatumGetCString(elements[i]);
	scope->parser = scope->apply.parser = page_parser_create(ignore, n, NULL);
}

/* upsert_read reads a record, or an array of records. */
void
upsert_read(UpsertScope *scope, const char *text, int len, UpstreamPage *page)
{
	const char *problem = NULL;

	if (!page_parse_records(scope->parser, text, len, page, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not read records: %s", problem)));
}

/* upsert_apply stores what was read, and tells in scope->changes what that changed. */
void
upsert_apply(UpsertScope *scope, UpstreamPage *page, PageCounts *counts, ApplyOutcome *outcomes)
{
	scope->apply.changes = &scope->changes;
	scope->apply.memory = page_memory(scope->parser);
	scope->apply.heaviest = page->heaviest;
	apply_records(&scope->apply, page->records, page->nrecords, counts, NULL, NULL, outcomes);
}
