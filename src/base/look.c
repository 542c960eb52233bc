/*
 * look.c
 *	  Rows of a table of the extension, found by an index: for places where there is nothing
 *	  to plan, and a statement would cost more than what it finds.
 *
 * Rights, which the executor would check, are for the caller to ask for (look_may_read).
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "base/look.h"

/* look_relation is the id of a table or an index; an error when it is missing. */
Oid
look_relation(const char *schema, const char *name)
{
	Oid oid = get_relname_relid(name, get_namespace_oid(schema, false));

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("%s.%s is missing", schema, name)));
	return oid;
}

/* look_find finds a table and an index of it; false: one is missing, and it is for a statement to look. */
bool
look_find(const char *schema, const char *table, const char *index, Oid *table_id, Oid *index_id)
{
	Oid namespace_id = get_namespace_oid(schema, false);

	*table_id = get_relname_relid(table, namespace_id);
	*index_id = get_relname_relid(index, namespace_id);
	return OidIsValid(*table_id) && OidIsValid(*index_id);
}

/* look_may_read raises what a statement would, if the current role may not read a table. */
void
look_may_read(Oid table)
{
	if (pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(table));
}

void
look_open(Look *look, Oid table, Oid index, Snapshot snapshot, int nkeys)
{
	look->table = table_open(table, AccessShareLock);
	look->index = index_open(index, AccessShareLock);
	look->slot = table_slot_create(look->table, NULL);
	look->scan = compat_index_beginscan(look->table, look->index, snapshot, nkeys);
}

/* The locks stay until the end of the transaction, as those of a query do. */
void
look_close(Look *look)
{
	index_endscan(look->scan);
	ExecDropSingleTupleTableSlot(look->slot);
	index_close(look->index, NoLock);
	table_close(look->table, NoLock);
}

void
look_text_key(ScanKey key, const Look *look, int column, Datum value)
{
	ScanKeyEntryInitialize(key, 0, column, BTEqualStrategyNumber, InvalidOid,
						   look->index->rd_indcollation[column - 1], F_TEXTEQ, value);
}

void
look_uuid_key(ScanKey key, int column, const pg_uuid_t *value)
{
	ScanKeyEntryInitialize(key, 0, column, BTEqualStrategyNumber, InvalidOid, InvalidOid, F_UUID_EQ,
						   UUIDPGetDatum(value));
}

void
look_int8_key(ScanKey key, int column, int64 value)
{
	ScanKeyEntryInitialize(key, 0, column, BTEqualStrategyNumber, InvalidOid, InvalidOid, F_INT8EQ,
						   Int64GetDatum(value));
}

bool
look_next(Look *look)
{
	return index_getnext_slot(look->scan, ForwardScanDirection, look->slot);
}

Datum
look_value(Look *look, int column, bool *isnull)
{
	return slot_getattr(look->slot, column, isnull);
}
