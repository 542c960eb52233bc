/*
 * hooks.c
 *	  Commands on databases that workers must know of, and COPY into tables of
 *	  the extension (hooks_copy.c).
 *
 * Workers yield to commands that need exclusive access to a database: DROP
 * DATABASE, ALTER DATABASE … RENAME, CREATE DATABASE … TEMPLATE.  These
 * wait five seconds for other sessions to leave and then fail.  The workers in
 * the database are terminated, and none is started there until the command is
 * done; one that starts before its transaction ends waits for the database's lock.
 * Nothing is done for a role that may not execute the command.
 */
#include "postgres.h"

#include "base/compat.h"

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"

#include "server/hooks.h"
#include "server/hooks_copy.h"
#include "server/worker.h"
#include "shared/shmem.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/* Name of the database that a command needs for itself, or NULL. */
static const char *
hooks_database_of(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return castNode(DropdbStmt, statement)->dbname;
		case T_RenameStmt:
			return castNode(RenameStmt, statement)->renameType == OBJECT_DATABASE ?
				castNode(RenameStmt, statement)->subname :
				NULL;
		case T_CreatedbStmt:
		{
			ListCell *cell;

			foreach (cell, castNode(CreatedbStmt, statement)->options)
				if (strcmp(lfirst_node(DefElem, cell)->defname, "template") == 0 &&
					lfirst_node(DefElem, cell)->arg != NULL)
					return defGetString(lfirst_node(DefElem, cell));
			return NULL;
		}
		default:
			return NULL;
	}
}

/* Name of the database for which a command changes a setting of ours, or NULL. */
static const char *
hooks_flohsync_setting_of(Node *statement)
{
	VariableSetStmt *set;

	if (nodeTag(statement) != T_AlterDatabaseSetStmt)
		return NULL;
	set = castNode(AlterDatabaseSetStmt, statement)->setstmt;
	if (set->kind != VAR_RESET_ALL &&
		(set->name == NULL || pg_strncasecmp(set->name, "flohsync.", 9) != 0))
		return NULL;
	return castNode(AlterDatabaseSetStmt, statement)->dbname;
}

static void
hooks_go_on(PlannedStmt *statement, const char *text, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			DestReceiver *dest, QueryCompletion *completion)
{
	if (prev_process_utility)
		prev_process_utility(statement, text, read_only_tree, context, params, environment, dest,
							 completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, params, environment, dest,
								completion);
}

static void
hooks_restore(Relation rel, PlannedStmt *statement, const char *text, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			  DestReceiver *dest, QueryCompletion *completion)
{
	PG_TRY();
	{
		hooks_go_on(statement, text, read_only_tree, context, params, environment, dest,
					completion);
	}
	PG_CATCH();
	{
		hooks_copy_end(rel);
		PG_RE_THROW();
	}
	PG_END_TRY();
	hooks_copy_end(rel);
}

static void
hooks_process_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
					  ProcessUtilityContext context, ParamListInfo params,
					  QueryEnvironment *environment, DestReceiver *dest,
					  QueryCompletion *completion)
{
	const char *name = hooks_database_of(statement->utilityStmt);
	const char *sets_ours = hooks_flohsync_setting_of(statement->utilityStmt);

	Relation restored;
	Oid		 wanted = name != NULL ? get_database_oid(name, true) : InvalidOid;

	if (OidIsValid(wanted) && compat_owns_database(wanted, GetUserId()))
	{
		bool		drops = nodeTag(statement->utilityStmt) == T_DropdbStmt;
		TimestampTz held = shmem_clear_database(wanted);

		PG_TRY();
		{
			hooks_go_on(statement, text, read_only_tree, context, params, environment, dest,
						completion);
		}
		PG_CATCH();
		{
			shmem_cleared_database(wanted, held);
			PG_RE_THROW();
		}
		PG_END_TRY();
		if (!drops)
			shmem_cleared_database(wanted, held);
	}
	else if ((restored = hooks_copy_begin(statement->utilityStmt)) != NULL)
		hooks_restore(restored, statement, text, read_only_tree, context, params, environment, dest,
					  completion);
	else
		hooks_go_on(statement, text, read_only_tree, context, params, environment, dest,
					completion);
	if (sets_ours != NULL)
	{
		Oid database = get_database_oid(sets_ours, true);

		if (OidIsValid(database))
			worker_wake(database);
	}
}

void
hooks_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = hooks_process_utility;
}
