/*
 * prints_notes.c
 *	  What has been noted of records since the last complete full pass (sql/63_page_print):
 *	  is there anything, and is it about a page, or a record, at hand?
 *
 * The first is asked for each page, and mostly there is nothing.  So it is looked for in
 * the indexes without a statement, which would take three times as long; unless somebody
 * has dropped one of them.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/db_value.h"
#include "base/flohsync.h"
#include "base/look.h"
#include "run/prints.h"

/* So many notes of others are looked at for each page. */
#define PRINTS_MAX_NOTES 200

/* The pass's own notes are left out: there may be one for each page. */
#define PRINTS_NOTES_WHERE(which) \
	" from _flohsync.dirty_record d where d.connector_id = $2 and d.resource_type = $3" \
	" and d.pass_id " which
#define PRINTS_ANY_NOTES(which)	 "exists (select 1" PRINTS_NOTES_WHERE(which) ")"
#define PRINTS_SOME_NOTES(which) "(select d.nums" PRINTS_NOTES_WHERE(which) " limit $5 + 1)"

/* The tables and indexes that are looked into; false: one is missing. */
typedef struct NotesTables
{
	Oid scope;
	Oid scope_key;
	Oid notes;
	Oid notes_index;
} NotesTables;

static bool
notes_find_tables(NotesTables *t)
{
	return look_find(FLOHSYNC_INTERNAL_SCHEMA, "page_print_scope", "page_print_scope_pkey",
					 &t->scope, &t->scope_key) &&
		look_find(FLOHSYNC_INTERNAL_SCHEMA, "dirty_record", "dirty_record_scope", &t->notes,
				  &t->notes_index);
}

/* The last complete pass of the scope; 0: there is no scope, or none. */
static int64
notes_look_pass(const Run *run, const NotesTables *t)
{
	Look		look;
	ScanKeyData key;
	int64		pass = 0;

	look_may_read(t->scope);
	look_open(&look, t->scope, t->scope_key, GetActiveSnapshot(), 1);
	look_uuid_key(&key, 1, &run->prints->config);
	index_rescan(look.scan, &key, 1, NULL, 0);
	if (look_next(&look))
	{
		bool  isnull;
		Datum value = look_value(&look, get_attnum(t->scope, "pass_id"), &isnull);

		pass = isnull ? 0 : DatumGetInt64(value);
	}
	look_close(&look);
	return pass;
}

/* Is there a note of the type?  Of others only: of none of the passes that is under way. */
static bool
notes_look(const Run *run, const NotesTables *t, bool of_others)
{
	Look		look;
	ScanKeyData keys[3];
	bool		found = false;

	look_may_read(t->notes);
	look_open(&look, t->notes, t->notes_index, GetActiveSnapshot(), of_others ? 3 : 2);
	look_uuid_key(&keys[0], 1, DatumGetUUIDP(run->scope.connector));
	look_text_key(&keys[1], &look, 2, run->scope.resource_type);
	for (int which = 0; which < (of_others ? 3 : 1) && !found; which++)
	{
		if (which == 0)
			ScanKeyEntryInitialize(&keys[2], SK_ISNULL | SK_SEARCHNULL, 3, InvalidStrategy,
								   InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
		else
			ScanKeyEntryInitialize(&keys[2], 0, 3,
								   which == 1 ? BTLessStrategyNumber : BTGreaterStrategyNumber,
								   InvalidOid, InvalidOid, which == 1 ? F_INT8LT : F_INT8GT,
								   Int64GetDatum(run->prints->open_pass));
		index_rescan(look.scan, keys, of_others ? 3 : 2, NULL, 0);
		found = look_next(&look);
	}
	look_close(&look);
	return found;
}

/*
 * Has something been noted, by others only or by the pass as well?  False, too, when the
 * scope is another one: then nothing is known (prints_end).
 */
static bool
notes_any(Run *run, bool of_others, bool *any)
{
	static DbQuery query = {
		"select s.pass_id, case when $5 then " PRINTS_ANY_NOTES("is null") " or " PRINTS_ANY_NOTES(
			"< $4") " or " PRINTS_ANY_NOTES("> $4") " else exists (select 1"
													" from _flohsync.dirty_record d where d.connector_id = $2 and d.resource_type = $3) end"
													" from _flohsync.page_print_scope s where s.config_id = $1",
		5,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, BOOLOID},
		.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum	v[5] = {UUIDPGetDatum(&prints->config), run->scope.connector, run->scope.resource_type,
					Int64GetDatum(prints->open_pass), BoolGetDatum(of_others)};
	NotesTables tables;
	int64		pass = 0;

	if (notes_find_tables(&tables))
	{
		pass = notes_look_pass(run, &tables);
		*any = pass == prints->pass && notes_look(run, &tables, of_others);
	}
	else if (db_execute(&query, v, NULL) > 0)
	{
		pass = db_int64(0, 1, 0);
		*any = db_bool(0, 2);
	}
	/* Whoever has removed the scope has removed what was noted of it. */
	if (pass == prints->pass)
		return true;
	prints_end(prints);
	return false;
}

/* prints_stand: are the fingerprints still there that the pass began with?  In a transaction. */
bool
prints_stand(const Run *run)
{
	static DbQuery query = {
		"select s.pass_id from _flohsync.page_print_scope s where s.config_id = $1",
		1,
		{UUIDOID},
		.plan_as = PLAN_BY_INDEX};
	Datum		v = UUIDPGetDatum(&run->prints->config);
	NotesTables tables;
	int64		pass = 0;

	if (notes_find_tables(&tables))
		pass = notes_look_pass(run, &tables);
	else if (db_execute(&query, &v, NULL) > 0)
		pass = db_int64(0, 1, 0);
	return pass != 0 && pass == run->prints->pass;
}

/* prints_read_own_notes looks, once, at what earlier runs of the pass have noted; in a transaction. */
void
prints_read_own_notes(Run *run)
{
	static DbQuery query = {
		"select _flohsync.ledger_union(pg_catalog.array_agg(x.nums)) from _flohsync.dirty_record x"
		" where x.connector_id = $1 and x.resource_type = $2 and x.pass_id = $3"
		" having pg_catalog.count(*) > 0",
		3,
		{UUIDOID, TEXTOID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum v[3] = {run->scope.connector, run->scope.resource_type, Int64GetDatum(prints->open_pass)};

	if (prints->looked_back)
		return;
	if (db_execute(&query, v, NULL) == 1)
		prints->written_before = db_get_bytea(0, 1, run->context);
	prints->looked_back = true;
}

/*
 * prints_read_notes looks at the notes of others; in a transaction, before which so many others
 * had ended.  False when whatever is stored may have been written.
 */
bool
prints_read_notes(Run *run, uint64 ended)
{
	static DbQuery some = {
		"select pg_catalog.count(*) <= $5 and pg_catalog.count(*) = pg_catalog.count(x.nums),"
		" _flohsync.ledger_union(pg_catalog.array_agg(x.nums)) from"
		" (" PRINTS_SOME_NOTES("is null") " union all " PRINTS_SOME_NOTES(
			"< $4") " union all " PRINTS_SOME_NOTES("> $4") ") x",
		5,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, INT8OID},
		.plan_as = PLAN_BY_INDEX};
	Prints *prints = run->prints;
	Datum	v[5] = {UUIDPGetDatum(&prints->config), run->scope.connector, run->scope.resource_type,
					Int64GetDatum(prints->open_pass), Int64GetDatum(PRINTS_MAX_NOTES)};
	bool	any;

	/* Since the last page nobody else has committed anything, nor before it noted. */
	if (prints->noted_by_others == NULL && prints->others_ended == ended)
		return true;
	prints->others_ended = 0;
	if (prints->noted_by_others)
		pfree(prints->noted_by_others);
	prints->noted_by_others = NULL;
	if (!notes_any(run, true, &any))
		return false;
	if (!any)
	{
		prints->others_ended = ended;
		return true;
	}
	if (db_execute(&some, v, NULL) != 1 || !db_bool(0, 1))
		return false;
	prints->noted_by_others = db_get_bytea(0, 2, run->context);
	return true;
}

typedef struct CheckWork
{
	Run				*run;
	const PagePrint *print;
	bool			 clean;
} CheckWork;

static void
prints_check_work(void *arg)
{
	static DbQuery met = {
		"select d.any_record or _flohsync.ledger_meets(_flohsync.ledger_union(d.nums), p.seen)"
		" from _flohsync.page_print p"
		" cross join lateral (select coalesce(pg_catalog.bool_or(x.nums is null), false) as any_record,"
		" coalesce(pg_catalog.array_agg(x.nums) filter (where x.nums is not null), '{}') as nums"
		" from _flohsync.dirty_record x where x.connector_id = $2 and x.resource_type = $3) d"
		" where p.id = $1",
		3,
		{INT8OID, UUIDOID, TEXTOID},
		.plan_as = PLAN_BY_INDEX};
	CheckWork *work = arg;
	Run		  *run = work->run;
	Prints	  *prints = run->prints;
	Datum v[3] = {Int64GetDatum(work->print->id), run->scope.connector, run->scope.resource_type};

	/* Before there is a snapshot, which may see more. */
	prints->noted_at = db_transactions_ended();
	db_begin("comparing a page");
	work->clean = notes_any(run, false, &prints->noted) &&
		(!prints->noted || (db_execute(&met, v, NULL) == 1 && !db_bool(0, 1)));
	prints_read_ahead(run);
	db_commit();
}

/*
 * prints_check: are the records of a fingerprint as it left them?  Reads ahead by the
 * way.  Mostly nothing is noted, and then its own records do not matter; nor need it be looked
 * again until a transaction has ended, of whomever.
 */
bool
prints_check(Run *run, const PagePrint *print)
{
	const Prints *prints = run->prints;
	CheckWork	  work = {run, print, false};

	if (prints->pass != 0 && prints->noted_at != 0 && !prints->noted &&
		prints_ahead_suffices(prints) && prints->noted_at == db_transactions_ended())
		return true;
	db_retry(prints_check_work, &work);
	return work.clean;
}
