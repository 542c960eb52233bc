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

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "db.h"
#include "flohsync.h"
#include "row_security.h"

static Oid	listed_of = InvalidOid;	/* the extension that the list is of */
static Oid *tables = NULL;
static int	ntables = 0;

static void
list_tables(Oid extension)
{
	static DbQuery query = {
		"select c.oid from pg_catalog.pg_class c where c.relkind in ('r', 'p') and c.relnamespace = any ($1)", 1, {OIDARRAYOID}
	};
	Datum		schemas[2] = {ObjectIdGetDatum(get_namespace_oid(FLOHSYNC_SCHEMA, false)),
		ObjectIdGetDatum(get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, false))};
	Datum		value;
	bool		isnull;

	listed_of = InvalidOid;
	SPI_connect();
	value = PointerGetDatum(construct_array(schemas, 2, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	ntables = (int) db_execute(&query, &value, NULL);
	if (tables)
		pfree(tables);
	tables = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * Max(ntables, 1));
	for (int i = 0; i < ntables; i++)
		tables[i] = DatumGetObjectId(db_value(i, 1, &isnull));
	SPI_finish();
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
