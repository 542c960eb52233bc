/*
 * table_check.c
 *	  Rejects tables of the extension with objects that silently change what
 *	  is read or written there:
 *	  - row level security: hidden rows would be treated as missing;
 *	  - rules, which can skip or change what is written;
 *	  - a disabled trigger of the extension: its counts and checks would be wrong.
 *
 * Objects that cannot do silent damage are ignored: views, foreign keys,
 * constraints, indexes.  Foreign triggers are checked when they run
 * (table_trigger.c).
 *
 * Invariant: no statement of the extension runs in a session or worker that has
 * not called this since its catalogs last changed.  The result is cached until
 * one of these tables is changed.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "base/clean.h"
#include "base/flohsync.h"
#include "base/table_check.h"

typedef struct CheckedTable
{
	Oid	 oid;
	bool row_security;
} CheckedTable;

static bool			 valid = false;			 /* nothing of what follows has changed */
static Oid			 listed_of = InvalidOid; /* the extension that the list is of */
static CheckedTable *tables = NULL;
static int			 ntables = 0;
static bool			 secured = false; /* some table has row level security */
static Oid			 faulty_table = InvalidOid;
static char			 fault_kind = 0; /* of that table: 'r'ule, 'd'isabled trigger, or 0 */
static NameData		 fault_name;

/* Called for each change of a relation in this database; must do no more than note it. */
static void
table_changed(Datum arg, Oid relation)
{
	if (!OidIsValid(relation))
		valid = false;
	for (int i = 0; valid && i < ntables; i++)
		valid = tables[i].oid != relation;
}

/*
 * By what depends on the extension: a query would cost a new worker as much as all else
 * before its first page.
 */
static void
list_tables(Oid extension)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	int			room = 64;

	listed_of = InvalidOid;
	ntables = 0;
	if (tables)
		pfree(tables);
	tables = MemoryContextAlloc(TopMemoryContext, sizeof(CheckedTable) * room);
	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend d = (Form_pg_depend) GETSTRUCT(tuple);
		char		   kind;

		if (d->classid != RelationRelationId || d->objsubid != 0)
			continue;
		kind = get_rel_relkind(d->objid);
		if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
			continue;
		if (ntables == room)
			tables = repalloc(tables, sizeof(CheckedTable) * (room *= 2));
		tables[ntables++] = (CheckedTable){d->objid, false};
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	listed_of = extension;
}

/* Keeps the first fault that is found. */
static void
note_fault(Oid table, char kind, const NameData *name)
{
	if (fault_kind != 0)
		return;
	faulty_table = table;
	fault_kind = kind;
	fault_name = *name;
}

static void
look_at_rules(Oid table)
{
	Relation	rewrite = table_open(RewriteRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_rewrite_ev_class, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(rewrite, RewriteRelRulenameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		note_fault(table, 'r', &((Form_pg_rewrite) GETSTRUCT(tuple))->rulename);
	systable_endscan(scan);
	table_close(rewrite, AccessShareLock);
}

/*
 * A trigger is the extension's when its function is: in a schema where only its owner may
 * make any.
 */
static void
look_at_triggers(Oid table, Oid internals)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger t = (Form_pg_trigger) GETSTRUCT(tuple);
		bool			fires = t->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
			t->tgenabled == TRIGGER_FIRES_ALWAYS;

		if (!fires && (t->tgisinternal || get_func_namespace(t->tgfoid) == internals))
			note_fault(table, 'd', &t->tgname);
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
}

static void
look_at_tables(Oid extension)
{
	Oid internals = get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, true);

	/* What changes while we look makes us look again. */
	listed_of = InvalidOid;
	secured = false;
	faulty_table = InvalidOid;
	fault_kind = 0;
	list_tables(extension);
	valid = true;
	for (int i = 0; i < ntables; i++)
	{
		HeapTuple	  tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(tables[i].oid));
		Form_pg_class c;
		bool		  rules, triggers;

		if (!HeapTupleIsValid(tuple))
			continue;
		c = (Form_pg_class) GETSTRUCT(tuple);
		secured |= tables[i].row_security = c->relrowsecurity;
		rules = c->relhasrules;
		triggers = c->relhastriggers;
		ReleaseSysCache(tuple);
		if (rules)
			look_at_rules(tables[i].oid);
		if (triggers)
			look_at_triggers(tables[i].oid, internals);
	}
}

static char *
table_name(Oid table)
{
	return psprintf("%s.%s", quote_identifier(get_namespace_name(get_rel_namespace(table))),
					quote_identifier(get_rel_name(table)));
}

/*
 * table_fault reports what prevents a role (InvalidOid: the current one) from using the
 * tables; false: nothing does.
 */
bool
table_fault(Oid role, TableFault *fault)
{
	static bool registered = false;
	const char *table;
	const char *name;

	/* An extension that is dropped takes its tables along: that is a change of them. */
	if (!valid || !OidIsValid(listed_of))
	{
		Oid extension = get_extension_oid(FLOHSYNC_EXTENSION, true);

		if (!OidIsValid(extension))
			return false;
		if (!registered)
			CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
		registered = true;
		look_at_tables(extension);
	}
	for (int i = 0; secured && i < ntables; i++)
	{
		if (!tables[i].row_security || check_enable_rls(tables[i].oid, role, true) != RLS_ENABLED)
			continue;
		table = table_name(tables[i].oid);
		fault->message = psprintf("row level security is on for table \"%s\"", table);
		fault->detail = "Rows that it hides would be treated as missing.";
		fault->hint = psprintf(
			"Run ALTER TABLE %s DISABLE ROW LEVEL SECURITY; use flohsync.grant_reader() to control who may read.",
			table);
		return true;
	}
	if (fault_kind == 0)
		return false;
	table = table_name(faulty_table);
	name = clean(NameStr(fault_name));
	if (fault_kind == 'r')
	{
		fault->message = psprintf("table \"%s\" has the rule \"%s\"", table, name);
		fault->detail = "It could change or skip rows that flohsync writes.";
		fault->hint = psprintf("Run DROP RULE %s ON %s; use an AFTER trigger instead.",
							   quote_identifier(name), table);
	}
	else
	{
		fault->message = psprintf("trigger \"%s\" of table \"%s\" is disabled", name, table);
		fault->detail = "Counts and checks of flohsync would be wrong.";
		fault->hint = psprintf("ALTER TABLE %s ENABLE TRIGGER %s.", table, quote_identifier(name));
	}
	return true;
}

/* table_check raises when there is something. */
void
table_check(Oid role)
{
	TableFault fault;

	if (table_fault(role, &fault))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("%s", fault.message),
				 errdetail("%s", fault.detail), errhint("%s", fault.hint)));
}
