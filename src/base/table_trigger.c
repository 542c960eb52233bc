/*
 * table_trigger.c
 *	  A foreign BEFORE ROW trigger on a table of the extension can skip or
 *	  change a row.  The extension would treat it as written, so either is an
 *	  error that names the trigger.
 *
 * The executor calls each trigger through an entry of ResultRelInfo; for
 * statements of the extension the entries of such triggers are preset with a
 * function that calls the trigger and checks its result.  Statements of others
 * are not affected, nor are the tables behind the seam (floh_user,
 * user_profile), where applications may have any triggers.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/clean.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "base/table_trigger.h"

static ExecutorStart_hook_type prev_executor_start = NULL;

/* The first column in which two rows differ, or NULL. */
static const char *
changed_column(Relation table, HeapTuple a, HeapTuple b)
{
	TupleDesc columns = RelationGetDescr(table);

	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(columns, i);
		bool			  a_null, b_null;
		Datum			  a_value, b_value;

		if (column->attisdropped || column->attgenerated)
			continue;
		a_value = heap_getattr(a, i + 1, columns, &a_null);
		b_value = heap_getattr(b, i + 1, columns, &b_null);
		if (a_null != b_null ||
			(!a_null && !datum_image_eq(a_value, b_value, column->attbyval, column->attlen)))
			return NameStr(column->attname);
	}
	return NULL;
}

/* Takes the place of a trigger's function, whose own entry is in fn_extra. */
static Datum
watched_trigger(PG_FUNCTION_ARGS)
{
	FmgrInfo	*entry = fcinfo->flinfo;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	 table = trigger->tg_relation;
	bool		 update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple	 written = update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	HeapTuple	 returned;
	Datum		 result;
	const char	*column;

	fcinfo->flinfo = entry->fn_extra;
	result = FunctionCallInvoke(fcinfo);
	fcinfo->flinfo = entry;
	returned = (HeapTuple) DatumGetPointer(result);
	if (returned == NULL && !fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("trigger \"%s\" skipped a row of table \"%s.%s\"",
						clean(trigger->tg_trigger->tgname),
						get_namespace_name(RelationGetNamespace(table)),
						RelationGetRelationName(table)),
				 errdetail("flohsync would treat the row as written."),
				 errhint("Use an AFTER trigger to record what flohsync writes.")));
	if (returned == NULL || returned == written || TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		return result;
	column = changed_column(table, written, returned);
	if (column != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("trigger \"%s\" changed column \"%s\" of a row of table \"%s.%s\"",
						clean(trigger->tg_trigger->tgname), clean(column),
						get_namespace_name(RelationGetNamespace(table)),
						RelationGetRelationName(table)),
				 errdetail("flohsync would treat the row as written unchanged."),
				 errhint("Use an AFTER trigger to record what flohsync writes.")));
	return result;
}

static bool
in_our_schema(Oid schema)
{
	return schema == get_namespace_oid(FLOHSYNC_SCHEMA, true) ||
		schema == get_namespace_oid(FLOHSYNC_INTERNAL_SCHEMA, true);
}

/* The extension writes as the owner of its tables, or as the workers' role. */
static bool
written_by_us(Relation table)
{
	const char *name = RelationGetRelationName(table);

	return in_our_schema(RelationGetNamespace(table)) &&
		(GetUserId() == table->rd_rel->relowner ||
		 GetUserId() == get_role_oid(flohsync_worker_role, true)) &&
		strcmp(name, "floh_user") != 0 && strcmp(name, "user_profile") != 0;
}

static void
watch_triggers(ResultRelInfo *target, MemoryContext context)
{
	TriggerDesc *triggers = target->ri_TrigDesc;

	if (triggers == NULL ||
		!(triggers->trig_insert_before_row || triggers->trig_update_before_row ||
		  triggers->trig_delete_before_row) ||
		!written_by_us(target->ri_RelationDesc))
		return;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger	 *trigger = &triggers->triggers[i];
		FmgrInfo *entry = &target->ri_TrigFunctions[i];
		FmgrInfo *function;

		if (!TRIGGER_FOR_ROW(trigger->tgtype) || !TRIGGER_FOR_BEFORE(trigger->tgtype) ||
			OidIsValid(entry->fn_oid) || in_our_schema(get_func_namespace(trigger->tgfoid)))
			continue;
		function = MemoryContextAllocZero(context, sizeof(FmgrInfo));
		fmgr_info_cxt(trigger->tgfoid, function, context);
		*entry = *function;
		entry->fn_addr = watched_trigger;
		entry->fn_extra = function;
	}
}

static void
table_trigger_executor_start(QueryDesc *queryDesc, int eflags)
{
	ListCell *cell;

	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	foreach (cell, queryDesc->estate->es_opened_result_relations)
		watch_triggers(lfirst(cell), queryDesc->estate->es_query_cxt);
}

void
table_trigger_init(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = table_trigger_executor_start;
}
