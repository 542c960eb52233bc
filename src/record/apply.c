/*
 * apply.c
 *	  Compares the records of a page with the stored rows and writes only the
 *	  difference.  SPI must be connected.
 *
 * Three steps: look the keys up, insert the new ones, update the changed and
 * the returning ones; the last two are one statement each, and only when there
 * are any.
 * - The lookup is no statement but a scan of the one index that fits (lookup.c).
 * - Rows that come back are matched by key, never by position.
 * - observed_at guards every write: what was observed later stays.  A time in
 *   the future can only come from a clock that was set back; it guards nothing.
 * - What was written is noted for whoever has to know (changes.c).
 * - An insert gives way to a tombstone that is newer than the observation.  That
 *   is looked at again after the insert: a deletion under way meanwhile did not
 *   see the new row, but it is committed before the insert can go on
 *   (sql/74_webhook).
 *
 * - The lookup is not a statement but a scan of the matching index (lookup.c).
 * - Returned rows are matched by key, never by position.
 * - observed_at guards every write: the later observation wins.  A time in the
 *   future can only come from a clock that was set back; it is ignored.
 * - Written records are added to the cache's outbox (outbox.c).
 * - An insert yields to a tombstone that is newer than the observation.  That is
 *   checked again after the insert: a concurrent deletion did not see the new
 *   row, but it is committed before the insert can continue (sql/74_webhook).
 *
 * A pass does not write unchanged rows; that they were seen is in the ledger.
 * After a change of hash_ignore, rows with another hash are compared by content:
 * where it is the same by the new rule, the row gets the new hash, and counts
 * as unchanged.
 * Records observed individually are not in any ledger, so their rows do get the
 * new observed_at, and are compared with the stored row's actual synced_at.  They
 * come from a user's transaction, where an insert that meets a concurrent one
 * must not fail: it does nothing and looks again.  In a pass it does fail, and
 * the worker retries the page (run.c): inserting is cheaper that way.
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

#include "base/bytes.h"
#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "base/memory_page.h"
#include "record/apply.h"
#include "record/changes.h"
#include "record/lookup.h"
#include "record/outbox.h"
#include "record/write.h"

#define APPLY_ROUNDS 20
#define APPLY_MANY	 100

/* The ids of stored rows as uuid[]. */
static Datum
apply_ids(const ExistingRow *prior, const int *which, int n)
{
	pg_uuid_t *ids = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	Datum	   array;

	for (int i = 0; i < n; i++)
		ids[i] = prior[which[i]].id;
	array = db_uuid_array(ids, n);
	pfree(ids);
	return array;
}

/* The columns of some records as arrays: id, name, e-mail, attributes, hash. */
static void
apply_columns(const ApplyScope *scope, const Record *records, const int *which, int n, Datum *v)
{
	Slice *slices = palloc(sizeof(Slice) * n);

	for (int column = 0; column < 5; column++)
	{
		Size bytes = 0;

		for (int i = 0; i < n; i++)
		{
			const Record *r = &records[which[i]];

			slices[i] = column == 0 ? r->external_id :
				column == 1			? r->display_name :
				column == 2			? r->email :
				column == 3			? (scope->parser ? page_stored_attributes(scope->parser, r) :
													   r->attributes) :
									  (Slice){r->hash, FLOHSYNC_HASH_HEX};
			bytes += slices[i].len + sizeof(int32) * 2;
		}
		/* Beside the array, PostgreSQL makes jsonb of the attributes, one after the other. */
		memory_expect(scope->memory, bytes + scope->heaviest);
		v[column] = db_text_array(slices, n);
	}
	pfree(slices);
}

/* The first test is made once, and mostly there is no tombstone at all. */
#define APPLY_INSERT \
	"insert into flohsync.resource_record (connector_id, resource_type, external_id," \
	" display_name, email, attributes, sync_hash, observed_at, event_at, event_keys)" \
	" select $1, $2, u.id, u.name, u.email, u.attributes::pg_catalog.jsonb, u.hash, $8, $9, $10" \
	" from unnest($3, $4, $5, $6, $7) u(id, name, email, attributes, hash)" \
	" where not (exists (select from _flohsync.resource_tombstone)" \
	" and " RECORD_HAS_TOMBSTONE("$1", "$2", "u.id", "$8", "$9") ")"

static uint64
apply_insert(const ApplyScope *scope, const Record *records, const int *which, int n)
{
	static DbQuery plain = {APPLY_INSERT " returning external_id, record_no, id",
							10,
							{UUIDOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
							 TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
							.plan_as = PLAN_GENERIC};
	static DbQuery yielding = {
		APPLY_INSERT " on conflict (external_id, resource_type, connector_id) do nothing returning"
					 " external_id, record_no, id",
		10,
		{UUIDOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		 TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_GENERIC};
	Datum v[10] = {scope->connector, scope->resource_type};
	char  nulls[10];

	apply_columns(scope, records, which, n, v + 2);
	v[7] = TimestampTzGetDatum(scope->observed_at);
	v[8] = TimestampTzGetDatum(scope->event_at);
	v[9] = PointerGetDatum(scope->event_keys);
	memset(nulls, ' ', sizeof(nulls));
	nulls[8] = scope->event_at == 0 ? 'n' : ' ';
	nulls[9] = scope->event_keys == NULL ? 'n' : ' ';
	return db_execute(scope->individual ? &yielding : &plain, v, nulls);
}

/* Takes back those inserts that a deletion committed meanwhile forbids. */
static void
apply_recheck_tombstones(const ApplyScope *scope, const Record *records, ExistingRow *prior,
						 const int *which, int n, bool *written)
{
	static DbQuery query = {"delete from flohsync.resource_record r where r.id = any ($1)",
							1,
							{UUIDARRAYOID},
							.plan_as = PLAN_BY_INDEX};
	int			  *dead = palloc(sizeof(int) * n);
	int			   ndead = lookup_deleted(scope->connector, scope->resource_type, records, which, n,
										  scope->observed_at, scope->event_at, dead);
	Datum		   ids;

	if (ndead > 0)
	{
		ids = apply_ids(prior, dead, ndead);
		db_execute(&query, &ids, NULL);
		for (int k = 0; k < ndead; k++)
		{
			prior[dead[k]].num = 0;
			written[dead[k]] = false;
		}
	}
	pfree(dead);
}

static uint64
apply_update(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
			 const int *which, int n)
{
	static DbQuery query = {
		"update flohsync.resource_record r set display_name = u.name, email = u.email,"
		" attributes = u.attributes::pg_catalog.jsonb,"
		" sync_hash = u.hash, stale_since = null, observed_at = $6, event_at = coalesce($8,"
		" r.event_at), event_keys = $9"
		" from unnest($1, $2, $3, $4, $5) u(id, name, email, attributes, hash)"
		" where r.id = u.id and " RECORD_IS_OLDER(
			"r", "$6", "$8", "$7") " returning r.external_id, r.record_no, r.id",
		9,
		{UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID,
		 TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_BY_INDEX};
	Datum columns[5];
	Datum v[9];
	char  nulls[9];

	apply_columns(scope, records, which, n, columns);
	v[0] = apply_ids(prior, which, n);
	memcpy(v + 1, columns + 1, sizeof(Datum) * 4);
	v[5] = TimestampTzGetDatum(scope->observed_at);
	v[6] = TimestampTzGetDatum(scope->confirmed_at);
	v[7] = TimestampTzGetDatum(scope->event_at);
	memset(nulls, ' ', sizeof(nulls));
	nulls[6] = scope->confirmed_at == 0 ? 'n' : ' ';
	nulls[7] = scope->event_at == 0 ? 'n' : ' ';
	v[8] = PointerGetDatum(scope->event_keys);
	nulls[8] = scope->event_keys == NULL ? 'n' : ' ';
	return db_execute(&query, v, nulls);
}

static uint64
apply_touch(const ApplyScope *scope, const ExistingRow *prior, const int *which, int n)
{
	static DbQuery query = {
		"update flohsync.resource_record r set observed_at = $2, event_at = coalesce($4,"
		" r.event_at), event_keys = $5 from unnest($1) u(id)"
		" where r.id = u.id and r.stale_since is null and " RECORD_IS_OLDER(
			"r", "$2", "$4", "$3") " returning r.external_id, r.record_no, r.id",
		5,
		{UUIDARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_BY_INDEX};
	Datum v[5] = {apply_ids(prior, which, n), TimestampTzGetDatum(scope->observed_at),
				  TimestampTzGetDatum(scope->confirmed_at), TimestampTzGetDatum(scope->event_at),
				  PointerGetDatum(scope->event_keys)};
	char  nulls[5] = {' ', ' ', scope->confirmed_at == 0 ? 'n' : ' ',
					  scope->event_at == 0 ? 'n' : ' ', scope->event_keys == NULL ? 'n' : ' '};

	return db_execute(&query, v, nulls);
}

/* Gives those rows their new hash whose content is the same by the rule of now. */
static uint64
apply_rehash(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
			 const int *which, int n)
{
	static DbQuery query = {
		"update flohsync.resource_record r set sync_hash = u.hash, observed_at = case when $4"
		" then $5 else r.observed_at end,"
		" event_at = coalesce($7, r.event_at), event_keys = case when $4 then $8 else"
		" r.event_keys end"
		" from unnest($1, $2) u(id, hash)"
		" where r.id = u.id and r.stale_since is null and " RECORD_IS_OLDER(
			"r", "$5", "$7",
			"$6") " and _flohsync.record_hash(r.external_id, r.display_name, r.email,"
				  " r.attributes, $3) = u.hash"
				  " returning r.external_id, r.record_no, r.id",
		8,
		{UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		 TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_BY_INDEX};
	Slice *hashes = palloc(sizeof(Slice) * n);
	Datum  v[8] = {apply_ids(prior, which, n),
				   0,
				   scope->hash_ignore,
				   BoolGetDatum(scope->individual),
				   TimestampTzGetDatum(scope->observed_at),
				   TimestampTzGetDatum(scope->confirmed_at),
				   TimestampTzGetDatum(scope->event_at),
				   PointerGetDatum(scope->event_keys)};
	char   nulls[8] = {' ',
					   ' ',
					   ' ',
					   ' ',
					   ' ',
					   scope->confirmed_at == 0 ? 'n' : ' ',
					   scope->event_at == 0 ? 'n' : ' ',
					   scope->event_keys == NULL ? 'n' : ' '};

	for (int i = 0; i < n; i++)
		hashes[i] = (Slice){records[which[i]].hash, FLOHSYNC_HASH_HEX};
	v[1] = db_text_array(hashes, n);
	pfree(hashes);
	return db_execute(&query, v, nulls);
}

/* Notes which records a write returned. */
static void
apply_returned(const Record *records, int n, uint64 rows, ExistingRow *prior, bool *written)
{
	int hint = 0;

	for (uint64 r = 0; r < rows; r++)
	{
		Datum row[3];
		bool  isnull[3];
		text *key;
		int	  i;

		heap_deform_tuple(SPI_tuptable->vals[r], SPI_tuptable->tupdesc, row, isnull);
		key = DatumGetTextPP(row[0]);
		/* Rows mostly come in the order of the records. */
		if (hint < n &&
			page_compare_ids(records[hint].external_id.data, records[hint].external_id.len,
							 VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)) == 0)
			i = hint;
		else
			i = page_find_id(records, n, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
		if (i < 0)
			continue;
		hint = i + 1;
		prior[i].num = DatumGetInt64(row[1]);
		prior[i].id = *DatumGetUUIDP(row[2]);
		written[i] = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * What the cache has to forget: what was written.  Of a single record that is
 * unchanged as well: who tells us of it knows of a change.  When most of a page
 * has changed, the whole type goes instead.
 */
static void
apply_note_cached(const ApplyScope *scope, const Record *records, const ApplyOutcome *outcome,
				  int n, RecordChanges *note)
{
	Slice *ids = NULL;
	int	   changed = 0;

	for (int i = 0; i < n; i++)
	{
		if (outcome[i] == APPLY_IGNORED || outcome[i] == APPLY_UNDECIDED ||
			(outcome[i] == APPLY_UNCHANGED && !scope->individual))
			continue;
		if (ids == NULL)
		{
			if (!outbox_begin())
				return;
			ids = palloc(sizeof(Slice) * n);
		}
		ids[changed++] = records[i].external_id;
	}
	if (changed == 0)
		return;
	if (changed >= APPLY_MANY && changed > n / 2)
		note->all_external_ids = true;
	else
		note->external_ids = db_text_array(ids, changed);
	pfree(ids);
}

/* Notes which records were changed, and how; the caller is told as well. */
static void
apply_note_changes(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
				   const ApplyOutcome *outcome, int n)
{
	static const ApplyOutcome outcomes[3] = {APPLY_ADDED, APPLY_UPDATED, APPLY_RESTORED};
	static const ChangeKind	  kinds[3] = {CHANGE_ADDED, CHANGE_UPDATED, CHANGE_RESTORED};
	RecordChanges note = {scope->connector, scope->resource_type, .queue = scope->queue_changes};

	for (int k = 0; k < 3; k++)
	{
		pg_uuid_t *ids = NULL;
		int		   changed = 0;

		for (int i = 0; i < n; i++)
		{
			if (outcome[i] != outcomes[k])
				continue;
			if (ids == NULL)
				ids = palloc(sizeof(pg_uuid_t) * n);
			ids[changed++] = prior[i].id;
		}
		if (changed > 0)
			note.ids[kinds[k]] = db_uuid_array(ids, changed);
		if (scope->changes)
		{
			scope->changes->ids[k] = ids;
			scope->changes->n[k] = changed;
		}
		else if (ids)
			pfree(ids);
	}
	apply_note_cached(scope, records, outcome, n, &note);
	changes_note(&note);
}

/*
 * apply_records writes sorted records.  counts are added to; seen, with room
 * for n more, gets the nums of all records that are stored afterwards;
 * outcomes (or NULL) tell what became of each.
 */
void
apply_records(ApplyScope *scope, const Record *records, int n, PageCounts *counts, int64 *seen,
			  int *nseen, ApplyOutcome *outcomes)
{
	ExistingRow	 *prior;
	int			 *which[3]; /* to insert, to update, unchanged */
	int			  nwhich[3];
	bool		 *written;
	uint8		 *tried; /* 1: to insert, 2: to update */
	ApplyOutcome *outcome = outcomes;
	instr_time	  t0, t1;

	if (scope->changes)
		memset(scope->changes, 0, sizeof(*scope->changes));
	if (n == 0)
		return;
	prior = palloc(sizeof(ExistingRow) * n);
	written = palloc0(sizeof(bool) * n);
	tried = palloc0(sizeof(uint8) * n);
	for (int k = 0; k < 3; k++)
		which[k] = palloc(sizeof(int) * n);
	if (outcome == NULL)
		outcome = palloc(sizeof(ApplyOutcome) * n);
	memset(outcome, 0, sizeof(ApplyOutcome) * n);

	for (int round = 0;; round++)
	{
		bool again = false;

		INSTR_TIME_SET_CURRENT(t0);
		lookup_records(scope->connector, scope->resource_type, records, n, prior);
		INSTR_TIME_SET_CURRENT(t1);
		INSTR_TIME_SUBTRACT(t1, t0);
		scope->lookup_us += INSTR_TIME_GET_MICROSEC(t1);

		nwhich[0] = nwhich[1] = nwhich[2] = 0;
		for (int i = 0; i < n; i++)
		{
			int k = prior[i].num == 0 ? 0 :
				prior[i].stale || memcmp(prior[i].hash, records[i].hash, FLOHSYNC_HASH_HEX) != 0 ?
										1 :
										2;

			if (outcome[i] == APPLY_UNDECIDED && !(scope->expect_absent && k > 0))
				which[k][nwhich[k]++] = i;
		}

		INSTR_TIME_SET_CURRENT(t0);
		if (nwhich[0] > 0)
		{
			apply_returned(records, n, apply_insert(scope, records, which[0], nwhich[0]), prior,
						   written);
			apply_recheck_tombstones(scope, records, prior, which[0], nwhich[0], written);
			for (int k = 0; k < nwhich[0]; k++)
			{
				int i = which[0][k];

				/* Not written: there is a tombstone, or, individually, a concurrent insert. */
				if (written[i])
					outcome[i] = APPLY_ADDED;
				else if (!scope->individual || tried[i] & 1)
					outcome[i] = APPLY_IGNORED;
				else
				{
					tried[i] |= 1;
					again = true;
				}
			}
		}
		if (nwhich[1] > 0 && scope->rehash)
		{
			int left = 0;

			apply_returned(records, n, apply_rehash(scope, records, prior, which[1], nwhich[1]),
						   prior, written);
			for (int k = 0; k < nwhich[1]; k++)
			{
				int i = which[1][k];

				if (written[i])
					outcome[i] = APPLY_UNCHANGED;
				else
					which[1][left++] = i;
			}
			nwhich[1] = left;
		}
		if (nwhich[1] > 0)
		{
			apply_returned(records, n, apply_update(scope, records, prior, which[1], nwhich[1]),
						   prior, written);
			for (int k = 0; k < nwhich[1]; k++)
			{
				int i = which[1][k];

				/* Not written: the stored row is newer, or was deleted since it was looked up. */
				if (written[i])
					outcome[i] = prior[i].stale ? APPLY_RESTORED : APPLY_UPDATED;
				else if (tried[i] & 2)
					outcome[i] = APPLY_IGNORED;
				else
				{
					tried[i] |= 2;
					again = true;
				}
			}
		}
		if (nwhich[2] > 0 && scope->individual)
			apply_returned(records, n, apply_touch(scope, prior, which[2], nwhich[2]), prior,
						   written);
		for (int k = 0; k < nwhich[2]; k++)
		{
			int i = which[2][k];

			outcome[i] = !scope->individual || written[i] ? APPLY_UNCHANGED : APPLY_IGNORED;
		}
		INSTR_TIME_SET_CURRENT(t1);
		INSTR_TIME_SUBTRACT(t1, t0);
		scope->write_us += INSTR_TIME_GET_MICROSEC(t1);
		if (!again || round >= APPLY_ROUNDS)
			break;
	}

	for (int i = 0; i < n; i++)
	{
		if (prior[i].num != 0 && seen != NULL)
			seen[(*nseen)++] = prior[i].num;
		switch (outcome[i])
		{
			case APPLY_ADDED:
				counts->added++;
				break;
			case APPLY_UPDATED:
				counts->updated++;
				break;
			case APPLY_UNCHANGED:
				counts->unchanged++;
				break;
			case APPLY_RESTORED:
				counts->restored++;
				break;
			default:
				counts->ignored++;
		}
	}
	INSTR_TIME_SET_CURRENT(t0);
	apply_note_changes(scope, records, prior, outcome, n);
	INSTR_TIME_SET_CURRENT(t1);
	INSTR_TIME_SUBTRACT(t1, t0);
	scope->write_us += INSTR_TIME_GET_MICROSEC(t1);
	pfree(prior);
	pfree(written);
	pfree(tried);
	for (int k = 0; k < 3; k++)
		pfree(which[k]);
	if (outcome != outcomes)
		pfree(outcome);
}

/*
 * apply_known_faults adds the nums of stored records that came again in a form
 * that cannot be stored: they are there, so they must not go stale.
 */
void
apply_known_faults(ApplyScope *scope, const RecordFault *faults, int n, int64 *seen, int *nseen)
{
	static DbQuery query = {
		"select r.record_no from flohsync.resource_record r where r.connector_id = $1 and"
		" r.resource_type = $2"
		" and r.external_id = any ($3)",
		3,
		{UUIDOID, TEXTOID, TEXTARRAYOID},
		.plan_as = PLAN_BY_INDEX};
	Slice *ids = palloc(sizeof(Slice) * Max(n, 1));
	int	   known = 0;
	Datum  v[3] = {scope->connector, scope->resource_type};
	uint64 rows;

	for (int i = 0; i < n; i++)
	{
		if (faults[i].external_id.data == NULL)
			continue;
		ids[known].data = clean_id(faults[i].external_id.data, faults[i].external_id.len, 2048,
								   &ids[known].len);
		known++;
	}
	if (known == 0)
		return;
	v[2] = db_text_array(ids, known);
	rows = db_execute(&query, v, NULL);
	for (uint64 r = 0; r < rows && r < (uint64) n; r++)
		seen[(*nseen)++] = db_int64(r, 1, 0);
}
