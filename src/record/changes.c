/*
 * changes.c
 *	  Queues changed records for post-sync, and locks connectors while their records are written.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/db_lock.h"
#include "base/db_value.h"
#include "record/changes.h"

/* changes_note queues some records for the next post-sync. */
void
changes_note(Datum connector, Datum resource_type, const pg_uuid_t *ids, int n, const char *change)
{
	static DbQuery query = {"select _flohsync.note_changes($1, $2, $3, $4)", 4, {UUIDOID, TEXTOID, UUIDARRAYOID, TEXTOID}};
	Datum		v[4] = {connector, resource_type, db_uuid_array(ids, n), CStringGetTextDatum(change)};

	db_execute(&query, v, NULL);
}

/*
 * changes_hold_connector keeps a connector from being dropped until the end of
 * the transaction, as _flohsync.hold_connector does; an error when it has been
 * dropped meanwhile.  Before anything of it is locked.
 */
void
changes_hold_connector(Datum connector)
{
	static DbQuery query = {"select from flohsync.connector_definition d where d.id = $1", 1, {UUIDOID}};
	uint64		key = db_lock_key(DatumGetCString(DirectFunctionCall1(uuid_out, connector)));

	if (db_lock_try(DB_LOCK_CONNECTOR, key, true))
		return;
	db_lock_wait(DB_LOCK_CONNECTOR, key, true);
	if (db_execute(&query, &connector, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector has been dropped")));
}
