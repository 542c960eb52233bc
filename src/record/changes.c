/*
 * changes.c
 *	  What is noted when records change, and who keeps a connector while its
 *	  records are written.
 *
 * Whoever changes records comes to changes_note: apply.c, and what writes them in
 * SQL (sql/61_record_write.sql), by _flohsync.records_changed.  So whatever is to
 * learn of changes is told of them there.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#include "base/add.h"
#include "base/db.h"
#include "base/db_lock.h"
#include "base/flohsync.h"
#include "record/changes.h"
#include "record/outbox.h"

#define CHANGES_FORGET_EVERY 1000

static const char *const change_names[CHANGE_KINDS] = {
	[CHANGE_ADDED] = "added",	[CHANGE_UPDATED] = "updated", [CHANGE_RESTORED] = "restored",
	[CHANGE_STALED] = "staled", [CHANGE_REMOVED] = "removed",
};

/* The change of a name; CHANGE_KINDS when there is none. */
ChangeKind
changes_kind(const char *name)
{
	ChangeKind kind = 0;

	while (kind < CHANGE_KINDS && strcmp(change_names[kind], name) != 0)
		kind++;
	return kind;
}

/*
 * Notes records that were written, so that pages which have seen them are not taken as
 * they were (sql/63_page_print).  The schema may be older than the library: then there
 * is nothing to be told.
 */
static void
changes_note_dirty(const RecordChanges *changes)
{
	static DbQuery note = {
		"insert into _flohsync.dirty_record (connector_id, resource_type, nums, pass_id)"
		" values ($1, $2, $3, nullif($4, 0)) returning seq",
		4,
		{UUIDOID, TEXTOID, BYTEAOID, INT8OID}};
	static DbQuery	forget = {"select _flohsync.forget_dirty_records()"};
	static AddTable table = {"dirty_record",
							 {{"seq", INT8OID},
							  {"connector_id", UUIDOID},
							  {"resource_type", VARCHAROID},
							  {"nums", BYTEAOID},
							  {"pass_id", INT8OID},
							  {"xid", XID8OID}}};
	Datum			v[4] = {changes->connector, changes->resource_type, changes->dirty,
							Int64GetDatum(changes->pass)};
	Oid				schema = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, true);
	Oid				sequence;
	int64			seq;

	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("dirty_record", schema)))
		return;
	sequence = get_relname_relid("dirty_record_seq_seq", schema);
	seq = OidIsValid(sequence) && !XactReadOnly ? nextval_internal(sequence, false) : 0;
	if (seq == 0 ||
		add_row(&table,
				(Datum[]){Int64GetDatum(seq), v[0], v[1], v[2], v[3],
						  FullTransactionIdGetDatum(GetTopFullTransactionId())},
				(bool[]){false, false, false, false, changes->pass == 0, false},
				false) == ADD_IMPOSSIBLE)
	{
		db_execute(&note, v, NULL);
		seq = db_int64(0, 1, 0);
	}
	/* Where there are no fingerprints, nobody else removes them. */
	if (seq % CHANGES_FORGET_EVERY == 0)
		db_execute(&forget, NULL, NULL);
}

/*
 * changes_note tells of changed records whoever has to know: the cache, the next post-sync,
 * and full passes.
 */
void
changes_note(const RecordChanges *changes)
{
	static DbQuery query = {"select _flohsync.note_changes($1, $2, $3, $4)",
							4,
							{UUIDOID, TEXTOID, UUIDARRAYOID, TEXTOID}};
	Datum		   v[4] = {changes->connector, changes->resource_type};

	if (changes->all_external_ids)
		outbox_add_all(changes->connector, changes->resource_type);
	else if (DatumGetPointer(changes->external_ids) != NULL)
		outbox_add(changes->connector, changes->resource_type, changes->external_ids);
	for (ChangeKind kind = 0; kind < CHANGE_KINDS && changes->queue; kind++)
	{
		if (DatumGetPointer(changes->ids[kind]) == NULL)
			continue;
		v[2] = changes->ids[kind];
		v[3] = CStringGetTextDatum(change_names[kind]);
		db_execute(&query, v, NULL);
	}
	if (DatumGetPointer(changes->dirty) != NULL)
		changes_note_dirty(changes);
}

/*
 * changes_hold_connector keeps a connector from being dropped until the end of
 * the transaction, as _flohsync.hold_connector does; an error when it has been
 * dropped meanwhile.  Before anything of it is locked.
 */
void
changes_hold_connector(Datum connector)
{
	static DbQuery query = {"select from flohsync.connector_definition d where d.id = $1",
							1,
							{UUIDOID}};
	uint64		   key = db_lock_key(DatumGetCString(DirectFunctionCall1(uuid_out, connector)));

	if (db_lock_try(DB_LOCK_CONNECTOR, key, true))
		return;
	db_lock_wait(DB_LOCK_CONNECTOR, key, true);
	if (db_execute(&query, &connector, NULL) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("connector has been dropped")));
}
