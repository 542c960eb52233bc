/*
 * profile_new.c
 *	  SQL: the profiles of users who have none yet.
 *
 * profile_new(user, patch, source) is the profile that a patch makes of none;
 * profile_insert(users, patches, source) writes those of many users.
 *
 * The foreign key of user_profile looks for the user of each row and locks it, with a query
 * a row: that takes twice as long as all else about a new profile.  The statement here has
 * found and locked the users already, as the key would, so it runs without that check: as
 * with ALTER TABLE … DISABLE TRIGGER, but of this one execution alone.  Where a trigger of
 * others may change a row before it is written, the key checks it as always.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "entry/profile.h"

/* Columns of a profile besides those of profile_columns. */
enum
{
	NEW_CUSTOM = PROFILE_CUSTOM,
	NEW_SOURCES,
	NEW_USER,
	NEW_COLUMNS
};

typedef struct NewProfile
{
	TupleDesc  row;
	AttrNumber places[NEW_COLUMNS];
	Datum	   empty; /* an empty object */
	Datum	  *values;
	bool	  *nulls;
} NewProfile;

static DbQuery insert_profiles = {
	.sql =
		"with made as ("
		"insert into flohsync.user_profile as p (user_id, title, department, phone_number, location,"
		" employee_id, cost_center, start_date, manager_id, custom_attributes, attribute_sources) "
		"select c.user_id, (c.new).title, (c.new).department, (c.new).phone_number,"
		" (c.new).location, (c.new).employee_id, (c.new).cost_center, (c.new).start_date,"
		" (c.new).manager_id, (c.new).custom_attributes, (c.new).attribute_sources "
		"from (select l.user_id, _flohsync.profile_new(l.user_id, l.patch, $3) as new"
		" from (select u.user_id, u.patch from rows from (pg_catalog.unnest($1),"
		" pg_catalog.unnest($2)) as u(user_id, patch)"
		" join flohsync.floh_user x on x.id = u.user_id"
		" where not exists (select from flohsync.user_profile q where q.user_id = u.user_id)"
		" order by u.user_id for key share of x) l"
		" offset 0) c " /* so that "new" is computed once */
		"where (c.new).user_id is not null "
		"on conflict do nothing "
		"returning p.user_id) "
		"select pg_catalog.array_agg(m.user_id) from made m",
	.nargs = 3,
	.types = {UUIDARRAYOID, JSONBARRAYOID, TEXTOID},
	.plan_as = PLAN_BY_INDEX,
};

/* That statement is about to begin. */
static bool inserting = false;

static ExecutorStart_hook_type prev_executor_start = NULL;

static NewProfile *
profile_new_columns(FunctionCallInfo fcinfo)
{
	NewProfile *new = fcinfo->flinfo->fn_extra;
	MemoryContext old;
	TupleDesc	  row;

	if (new)
		return new;
	if (get_call_result_type(fcinfo, NULL, &row) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the result of a function is no row");
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	new = palloc0(sizeof(NewProfile));
	new->row = BlessTupleDesc(CreateTupleDescCopy(row));
	for (int i = 0; i < NEW_COLUMNS; i++)
	{
		const char *name = i == NEW_CUSTOM ? "custom_attributes" :
			i == NEW_SOURCES			   ? "attribute_sources" :
			i == NEW_USER				   ? "user_id" :
											 profile_columns[i].column;

		new->places[i] = SPI_fnumber(row, name);
		if (new->places[i] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of a profile does not exist", name)));
	}
	new->values = palloc0(sizeof(Datum) * row->natts);
	new->nulls = palloc0(sizeof(bool) * row->natts);
	new->empty = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	fcinfo->flinfo->fn_extra = new;
	MemoryContextSwitchTo(old);
	return new;
}

/* A value as ->> has it; NULL for null. */
static char *
profile_new_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		case jbvNumeric:
			return DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvBinary:
			return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
		default:
			elog(ERROR, "unexpected type of a value: %d", (int) value->type);
	}
}

static void
profile_new_set(NewProfile *new, int column, const JsonbValue *value)
{
	int	  place = new->places[column] - 1;
	Oid	  type = TupleDescAttr(new->row, place)->atttypid;
	char *text;

	if (type == TEXTOID && value->type == jbvString)
	{
		new->values[place] = PointerGetDatum(
			cstring_to_text_with_len(value->val.string.val, value->val.string.len));
		new->nulls[place] = false;
		return;
	}
	text = profile_new_text(value);
	new->nulls[place] = text == NULL;
	if (text == NULL)
		return;
	switch (type)
	{
		case DATEOID:
			new->values[place] = DirectFunctionCall1(date_in, CStringGetDatum(text));
			break;
		case UUIDOID:
			new->values[place] = DirectFunctionCall1(uuid_in, CStringGetDatum(text));
			break;
		case TEXTOID:
			new->values[place] = CStringGetTextDatum(text);
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of a profile has a different type",
							profile_columns[column].column)));
	}
}

static void
profile_new_put(NewProfile *new, int column, Datum value)
{
	new->values[new->places[column] - 1] = value;
	new->nulls[new->places[column] - 1] = false;
}

PG_FUNCTION_INFO_V1(flohsync_profile_new);
PGDLLEXPORT Datum
flohsync_profile_new(PG_FUNCTION_ARGS)
{
	NewProfile *new;
	Jsonb			  *patch;
	JsonbIterator	  *it;
	JsonbIteratorToken token;
	JsonbValue		   field;
	JsonbValue		   entry;
	JsonbValue		   value;
	JsonbValue		   source = {.type = jbvNull};
	JsonbParseState	  *sources = NULL;
	JsonbParseState	  *custom = NULL;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	patch = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_OBJECT(patch))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the patch of a profile must be a JSON object")));
	if (!PG_ARGISNULL(2))
	{
		text *name = PG_GETARG_TEXT_PP(2);

		source.type = jbvString;
		source.val.string.val = VARDATA_ANY(name);
		source.val.string.len = VARSIZE_ANY_EXHDR(name);
	}
	new = profile_new_columns(fcinfo);
	memset(new->nulls, true, new->row->natts);
	it = JsonbIteratorInit(&patch->root);
	while ((token = JsonbIteratorNext(&it, &field, true)) != WJB_DONE)
	{
		int column;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &entry, true);
		if (!profile_writes(&entry, NULL, &field, &value))
			continue;
		if (sources == NULL)
			pushJsonbValue(&sources, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(&sources, WJB_KEY, &field);
		pushJsonbValue(&sources, WJB_VALUE, &source);
		column = profile_column(&field);
		if (column != PROFILE_CUSTOM)
		{
			profile_new_set(new, column, &value);
			continue;
		}
		if (custom == NULL)
			pushJsonbValue(&custom, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(&custom, WJB_KEY, &field);
		pushJsonbValue(&custom, WJB_VALUE, &value);
	}
	if (sources == NULL)
		PG_RETURN_NULL();
	profile_new_put(new, NEW_USER, PG_GETARG_DATUM(0));
	profile_new_put(new, NEW_SOURCES,
					JsonbPGetDatum(
						JsonbValueToJsonb(pushJsonbValue(&sources, WJB_END_OBJECT, NULL))));
	profile_new_put(new, NEW_CUSTOM,
					custom ? JsonbPGetDatum(
								 JsonbValueToJsonb(pushJsonbValue(&custom, WJB_END_OBJECT, NULL))) :
							 new->empty);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(new->row, new->values, new->nulls)));
}

/* The foreign key of a table from user_id alone to floh_user (id). */
static Oid
profile_new_key(Relation table)
{
	Oid		   schema = get_namespace_oid(FLOHSYNC_SCHEMA, false);
	Oid		   users = get_relname_relid("floh_user", schema);
	AttrNumber id = get_attnum(users, "id");
	AttrNumber user_id = get_attnum(RelationGetRelid(table), "user_id");
	ListCell  *cell;

	if (RelationGetNamespace(table) != schema ||
		strcmp(RelationGetRelationName(table), "user_profile") != 0)
		return InvalidOid;
	foreach (cell, RelationGetFKeyList(table))
	{
		ForeignKeyCacheInfo *key = lfirst(cell);

		if (key->confrelid == users && key->nkeys == 1 && key->conkey[0] == user_id &&
			key->confkey[0] == id)
			return key->conoid;
	}
	return InvalidOid;
}

/* The triggers of a target are a copy for this execution. */
static void
profile_new_spare(ResultRelInfo *target)
{
	TriggerDesc *triggers = target->ri_TrigDesc;
	Oid			 key;

	if (triggers == NULL || triggers->trig_insert_before_row)
		return;
	key = profile_new_key(target->ri_RelationDesc);
	for (int i = 0; OidIsValid(key) && i < triggers->numtriggers; i++)
		if (triggers->triggers[i].tgconstraint == key &&
			triggers->triggers[i].tgfoid == F_RI_FKEY_CHECK_INS)
			triggers->triggers[i].tgenabled = TRIGGER_DISABLED;
}

static void
profile_new_executor_start(QueryDesc *queryDesc, int eflags)
{
	bool	  ours = inserting && strcmp(queryDesc->sourceText, insert_profiles.sql) == 0;
	ListCell *cell;

	if (ours)
		inserting = false;
	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	if (ours)
		foreach (cell, queryDesc->estate->es_opened_result_relations)
			profile_new_spare(lfirst(cell));
}

void
profile_new_init(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = profile_new_executor_start;
}

PG_FUNCTION_INFO_V1(flohsync_profile_insert);
PGDLLEXPORT Datum
flohsync_profile_insert(PG_FUNCTION_ARGS)
{
	Datum values[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2)};
	char  nulls[] = {PG_ARGISNULL(0) ? 'n' : ' ', PG_ARGISNULL(1) ? 'n' : ' ',
					 PG_ARGISNULL(2) ? 'n' : ' ', '\0'};
	Datum result;

	SPI_connect();
	inserting = true;
	PG_TRY();
	{
		(void) db_execute(&insert_profiles, values, nulls);
	}
	PG_FINALLY();
	{
		inserting = false;
	}
	PG_END_TRY();
	result = db_value(0, 1, &fcinfo->isnull);
	if (!fcinfo->isnull)
		result = SPI_datumTransfer(result, false, -1);
	SPI_finish();
	return result;
}
