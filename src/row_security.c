/*
 * row_security.c
 *	  Row level security on a table of ours.
 *
 * It would hide rows from the workers' role, and what is hidden would be taken
 * for gone, or for not there: a wrong answer that nobody sees.  So whoever works
 * with that role's rights asks here first.  Tables that an application puts
 * behind the seam are its own affair.
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "flohsync.h"
#include "row_security.h"

static Oid	listed_of = InvalidOid;	/* the extension that the list is of */
static Oid *tables = NULL;
static int	ntables = 0;

/* By what depends on the extension: a query would cost a new worker as much as all else before its first page. */
static void
list_tables(Oid extension)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	int			room = 64;

	listed_of = InvalidOid;
	if (tables)
		pfree(tables);
	tables = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * room);
	ntables = 0;
	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(extension));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend d = (Form_pg_depend) GETSTRUCT(tuple);
		char		kind;

		if (d->classid != RelationRelationId || d->objsubid != 0)
			continue;
		kind = get_rel_relkind(d->objid);
		if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
			continue;
		if (ntables == room)
			tables = repalloc(tables, sizeof(Oid) * (room *= 2));
		tables[ntables++] = d->objid;
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	listed_of = extension;
}

/* row_security_table is a table of ours whose rows are hidden from a role (InvalidOid: the one in force), or NULL. */
const char *
row_security_table(Oid role)
{
	Oid			extension = get_extension_oid(FLOHSYNC_EXTENSION, true);

	if (!OidIsValid(extension))
		return NULL;
	if (extension != listed_of)
		list_tables(extension);
	for (int i = 0; i < ntables; i++)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(tables[i]));
		bool		on;

		if (!HeapTupleIsValid(tuple))
			continue;
		on = ((Form_pg_class) GETSTRUCT(tuple))->relrowsecurity;
		ReleaseSysCache(tuple);
		if (on && check_enable_rls(tables[i], role, true) == RLS_ENABLED)
			return psprintf("%s.%s", get_namespace_name(get_rel_namespace(tables[i])), get_rel_name(tables[i]));
	}
	return NULL;
}

/* row_security_check raises when there is one. */
void
row_security_check(Oid role)
{
	const char *table = row_security_table(role);

	if (table != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("row level security is on for table \"%s\"", table),
				 errdetail("Rows that it hides would be taken for gone."),
				 errhint("ALTER TABLE %s DISABLE ROW LEVEL SECURITY; who may read is what flohsync.grant_reader() decides.", table)));
}
