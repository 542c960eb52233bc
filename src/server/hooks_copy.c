/*
 * hooks_copy.c
 *	  COPY into the tables of the extension, as pg_restore executes it.
 *
 * The foreign keys among these tables exist before the data, since they belong to
 * the extension; pg_restore -j loads the tables in any order.  So when a
 * superuser copies into one, its foreign key check triggers are disabled for that
 * command, as if the keys were created last, as for other tables.  All other
 * triggers fire.
 *
 * They are disabled in the relcache entry of this backend, from which COPY takes
 * its list of triggers: other backends are not affected, and if the entry is
 * rebuilt meanwhile, they are enabled again, and the copy is checked.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/rel.h"

#include "base/flohsync.h"
#include "server/hooks_copy.h"

/* Sets the foreign keys' triggers of an insertion from one state to another. */
static void
copy_switch(Relation rel, char from, char to)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (RI_FKey_trigger_type(triggers->triggers[i].tgfoid) == RI_TRIGGER_FK &&
			triggers->triggers[i].tgenabled == from)
			triggers->triggers[i].tgenabled = to;
}

/*
 * hooks_copy_begin opens the table that a command restores and has its keys stand aside;
 * NULL: it is no such command.
 */
Relation
hooks_copy_begin(Node *statement)
{
	CopyStmt *copy = IsA(statement, CopyStmt) ? castNode(CopyStmt, statement) : NULL;
	Oid		  table;
	Oid		  extension;
	Relation  rel;

	if (copy == NULL || !copy->is_from || copy->relation == NULL || !superuser())
		return NULL;
	table = RangeVarGetRelid(copy->relation, NoLock, true);
	if (!OidIsValid(table))
		return NULL;
	extension = getExtensionOfObject(RelationRelationId, table);
	if (!OidIsValid(extension) || extension != get_extension_oid(FLOHSYNC_EXTENSION, true))
		return NULL;
	rel = table_openrv(copy->relation, RowExclusiveLock);
	copy_switch(rel, TRIGGER_FIRES_ON_ORIGIN, TRIGGER_DISABLED);
	return rel;
}

/* hooks_copy_end has them back. */
void
hooks_copy_end(Relation rel)
{
	copy_switch(rel, TRIGGER_DISABLED, TRIGGER_FIRES_ON_ORIGIN);
	table_close(rel, NoLock);
}
