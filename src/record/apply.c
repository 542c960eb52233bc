/*
 * apply.c
 *	  Compares the records of a page with the stored rows and writes only the
 *	  difference.  SPI must be connected.
 *
 * Three steps: look the keys up, insert the new ones, update the changed and
 * the returning ones.
 * - None of them is a statement, unless something about the table, or about a row, asks
 *   for one: lookup.c, insert.c and stored_write.c say when.
 * - Returned rows are matched by key, never by position.
 * - observed_at guards every write: the later observation wins.  A time in the
 *   future can only come from a clock that was set back; it is ignored.
 * - What was written is noted for whoever has to know (changes.c).
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
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "record/apply.h"
#include "record/changes.h"
#include "record/insert.h"
#include "record/ledger.h"
#include "record/outbox.h"
#include "record/statements.h"
#include "record/stored.h"

#define APPLY_ROUNDS 20
#define APPLY_MANY	 100

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
	RecordChanges note = {scope->connector, scope->resource_type, .queue = scope->queue_changes,
						  .pass = scope->pass};
	int64		 *nums = NULL;
	int			  nnums = 0;

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
			if (nums == NULL)
				nums = palloc(sizeof(int64) * n);
			nums[nnums++] = prior[i].num;
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
	if (nnums > 0 && !scope->not_dirty)
		note.dirty = PointerGetDatum(ledger_encode(nums, nnums));
	changes_note(&note);
}

/* Records on their way into the table. */
typedef struct ApplyWork
{
	ApplyScope	 *scope;
	const Record *records;
	int			  n;
	ExistingRow	 *prior;
	ApplyOutcome *outcome;
	bool		 *written;
	uint8		 *tried;	/* 1: to insert, 2: to update */
	int			 *which[3]; /* to insert, to update, unchanged */
	int			  nwhich[3];
} ApplyWork;

enum
{
	APPLY_NEW,
	APPLY_CHANGED,
	APPLY_SAME
};

/* Adds what has passed since a time to a sum of microseconds. */
static void
apply_add_time(int64 *us, instr_time since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	*us += INSTR_TIME_GET_MICROSEC(now);
}

/* Looks up what is stored, and decides by it what is to be done with each record that is undecided. */
static void
apply_decide(ApplyWork *w)
{
	const ApplyScope *scope = w->scope;
	instr_time		  t;

	INSTR_TIME_SET_CURRENT(t);
	/* A row that is locked is what it was when it was read. */
	if (scope->stored)
		w->prior[0] = scope->stored->row;
	else
		lookup_records(scope->connector, scope->resource_type, w->records, w->n, w->prior);
	apply_add_time(&w->scope->lookup_us, t);
	memset(w->nwhich, 0, sizeof(w->nwhich));
	for (int i = 0; i < w->n; i++)
	{
		const ExistingRow *row = &w->prior[i];
		int				   k = APPLY_SAME;

		if (row->num == 0)
			k = APPLY_NEW;
		else if (row->stale || memcmp(row->hash, w->records[i].hash, FLOHSYNC_HASH_HEX) != 0)
			k = APPLY_CHANGED;
		if (w->outcome[i] == APPLY_UNDECIDED && !(scope->expect_absent && k != APPLY_NEW))
			w->which[k][w->nwhich[k]++] = i;
	}
}

/* True, of this and the next one: some records have to be looked up again. */
static bool
apply_new(ApplyWork *w)
{
	const int *which = w->which[APPLY_NEW];
	int		   n = w->nwhich[APPLY_NEW];
	bool	   again = false;

	if (n == 0)
		return false;
	if (!insert_records(w->scope, w->records, which, n, w->prior, w->written))
		apply_returned(w->records, w->n, apply_insert(w->scope, w->records, which, n), w->prior,
					   w->written);
	apply_recheck_tombstones(w->scope, w->records, w->prior, which, n, w->written);
	for (int k = 0; k < n; k++)
	{
		int i = which[k];

		/* Not written: there is a tombstone, or, individually, a concurrent insert. */
		if (w->written[i])
			w->outcome[i] = APPLY_ADDED;
		else if (!w->scope->individual || w->tried[i] & 1)
			w->outcome[i] = APPLY_IGNORED;
		else
		{
			w->tried[i] |= 1;
			again = true;
		}
	}
	return again;
}

static bool
apply_changed(ApplyWork *w)
{
	int *which = w->which[APPLY_CHANGED];
	int	 n = w->nwhich[APPLY_CHANGED];
	int	 done;
	bool again = false;

	if (n > 0 && w->scope->rehash &&
		!(w->scope->stored && stored_differs(w->scope->stored, w->records)))
	{
		int left = 0;

		apply_returned(w->records, w->n, apply_rehash(w->scope, w->records, w->prior, which, n),
					   w->prior, w->written);
		for (int k = 0; k < n; k++)
		{
			if (w->written[which[k]])
				w->outcome[which[k]] = APPLY_UNCHANGED;
			else
				which[left++] = which[k];
		}
		n = left;
	}
	if (n == 0)
		return false;
	if (w->scope->stored)
		done = stored_write(w->scope, w->records, w->written);
	else
		done = stored_write_page(w->scope, w->records, w->prior, which, n, w->written);
	if (done < n)
		apply_returned(w->records, w->n,
					   apply_update(w->scope, w->records, w->prior, which + done, n - done),
					   w->prior, w->written);
	for (int k = 0; k < n; k++)
	{
		int i = which[k];

		/* Not written: the stored row is newer, or was deleted since it was looked up. */
		if (w->written[i])
			w->outcome[i] = w->prior[i].stale ? APPLY_RESTORED : APPLY_UPDATED;
		else if (w->tried[i] & 2 || w->scope->stored)
			w->outcome[i] = APPLY_IGNORED;
		else
		{
			w->tried[i] |= 2;
			again = true;
		}
	}
	return again;
}

static void
apply_same(ApplyWork *w)
{
	const int *which = w->which[APPLY_SAME];
	int		   n = w->nwhich[APPLY_SAME];

	if (n > 0 && w->scope->individual)
		apply_returned(w->records, w->n, apply_touch(w->scope, w->prior, which, n), w->prior,
					   w->written);
	for (int k = 0; k < n; k++)
		w->outcome[which[k]] = !w->scope->individual || w->written[which[k]] ? APPLY_UNCHANGED :
																			   APPLY_IGNORED;
}

static void
apply_count(const ApplyWork *w, PageCounts *counts, int64 *seen, int *nseen)
{
	for (int i = 0; i < w->n; i++)
	{
		if (w->prior[i].num != 0 && seen != NULL)
			seen[(*nseen)++] = w->prior[i].num;
		switch (w->outcome[i])
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
	ApplyWork  w = {.scope = scope, .records = records, .n = n, .outcome = outcomes};
	instr_time t;
	bool	   again = true;

	if (scope->changes)
		memset(scope->changes, 0, sizeof(*scope->changes));
	if (n == 0)
		return;
	w.prior = palloc(sizeof(ExistingRow) * n);
	w.written = palloc0(sizeof(bool) * n);
	w.tried = palloc0(sizeof(uint8) * n);
	for (int k = 0; k < 3; k++)
		w.which[k] = palloc(sizeof(int) * n);
	if (outcomes == NULL)
		w.outcome = palloc(sizeof(ApplyOutcome) * n);
	memset(w.outcome, 0, sizeof(ApplyOutcome) * n);

	for (int round = 0; again && round <= APPLY_ROUNDS; round++)
	{
		apply_decide(&w);
		INSTR_TIME_SET_CURRENT(t);
		again = apply_new(&w);
		again |= apply_changed(&w);
		apply_same(&w);
		apply_add_time(&scope->write_us, t);
	}

	apply_count(&w, counts, seen, nseen);
	for (int i = 0; scope->nums && i < n; i++)
		scope->nums[i] = w.prior[i].num;
	INSTR_TIME_SET_CURRENT(t);
	apply_note_changes(scope, records, w.prior, w.outcome, n);
	apply_add_time(&scope->write_us, t);
	pfree(w.prior);
	pfree(w.written);
	pfree(w.tried);
	for (int k = 0; k < 3; k++)
		pfree(w.which[k]);
	if (outcomes == NULL)
		pfree(w.outcome);
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
