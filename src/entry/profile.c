/*
 * profile.c
 *	  SQL: what the values of records make of a profile.
 *
 * profile_changes(profile, patch) is what of a patch is to be written over a profile, and
 * profile_sources(changes, source) what is noted of it.  Each looks at a few short values
 * for each of many users: as functions in SQL, that took five times as long as to write the
 * profile.  Patches come from profile_map.c; new profiles are made in profile_new.c.
 *
 * A value is empty when it is absent, null, or a text of white space alone.  What white space
 * is, PostgreSQL's regular expressions decide, by the rules of the database; only texts
 * without a printable ASCII character are shown to them.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "entry/profile.h"

const ProfileColumn profile_columns[PROFILE_COLUMNS] = {
	{"title", "title"},			 {"department", "department"},	{"phoneNumber", "phone_number"},
	{"location", "location"},	 {"employeeId", "employee_id"}, {"costCenter", "cost_center"},
	{"startDate", "start_date"}, {"managerId", "manager_id"},
};

bool
profile_is(const char *value, int len, const char *word)
{
	return len == (int) strlen(word) && memcmp(value, word, len) == 0;
}

static bool
profile_is_space(const char *value, int len)
{
	for (int i = 0; i < len; i++)
		if (value[i] > ' ' && value[i] < 0x7f)
			return false;
	return len == 0 ||
		!DatumGetBool(DirectFunctionCall2Coll(textregexeq, DEFAULT_COLLATION_OID,
											  PointerGetDatum(cstring_to_text_with_len(value, len)),
											  CStringGetTextDatum("\\S")));
}

/* Whether a value, or none, is empty. */
bool
profile_is_blank(const JsonbValue *value)
{
	return value == NULL || value->type == jbvNull ||
		(value->type == jbvString &&
		 profile_is_space(value->val.string.val, value->val.string.len));
}

/* The value that a jsonb is. */
void
profile_value(Jsonb *jsonb, JsonbValue *value)
{
	if (!JB_ROOT_IS_SCALAR(jsonb) || !JsonbExtractScalar(&jsonb->root, value))
	{
		value->type = jbvBinary;
		value->val.binary.data = &jsonb->root;
		value->val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
	}
}

/* As = compares them in SQL; none is null. */
static bool
profile_equal(JsonbValue *a, JsonbValue *b)
{
	Jsonb *left;
	Jsonb *right;

	if (a == NULL || b == NULL)
		return (a == NULL || a->type == jbvNull) && (b == NULL || b->type == jbvNull);
	if (a->type == jbvString && b->type == jbvString)
		return a->val.string.len == b->val.string.len &&
			memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
	left = JsonbValueToJsonb(a);
	right = JsonbValueToJsonb(b);
	return compareJsonbContainers(&left->root, &right->root) == 0;
}

/* Which of profile_columns a field has, or PROFILE_CUSTOM. */
int
profile_column(const JsonbValue *field)
{
	int i = 0;

	while (i < PROFILE_COLUMNS &&
		   !profile_is(field->val.string.val, field->val.string.len, profile_columns[i].field))
		i++;
	return i;
}

/* The value of a field in a profile; NULL when it has none. */
static JsonbValue *
profile_old(HeapTupleHeader profile, const JsonbValue *field, JsonbValue *value)
{
	int			i = profile_column(field);
	bool		custom = i == PROFILE_CUSTOM;
	const char *column = custom ? "custom_attributes" : profile_columns[i].column;
	bool		isnull;
	Datum		datum = GetAttributeByName(profile, column, &isnull);

	if (isnull)
		return NULL;
	if (custom)
		return getKeyJsonValueFromContainer(&DatumGetJsonbP(datum)->root, field->val.string.val,
											field->val.string.len, value);
	value->type = jbvString;
	if (strcmp(column, "start_date") == 0)
		value->val.string.val = JsonEncodeDateTime(NULL, datum, DATEOID, NULL);
	else if (strcmp(column, "manager_id") == 0)
		value->val.string.val = DatumGetCString(DirectFunctionCall1(uuid_out, datum));
	else
		value->val.string.val = TextDatumGetCString(datum);
	value->val.string.len = strlen(value->val.string.val);
	return value;
}

/* Whether an entry of a patch is to be written over what there is; its value then. */
bool
profile_writes(JsonbValue *entry, HeapTupleHeader profile, const JsonbValue *field,
			   JsonbValue *value)
{
	JsonbValue	mode;
	JsonbValue	old;
	JsonbValue *was = NULL;

	if (entry->type != jbvBinary || !JsonContainerIsObject(entry->val.binary.data) ||
		!getKeyJsonValueFromContainer(entry->val.binary.data, "mode", 4, &mode) ||
		mode.type != jbvString ||
		!getKeyJsonValueFromContainer(entry->val.binary.data, "value", 5, value))
		return false;
	if (profile)
		was = profile_old(profile, field, &old);
	if (profile_is(mode.val.string.val, mode.val.string.len, PROFILE_ALWAYS))
		return !profile_equal(was, value);
	if (profile_is(mode.val.string.val, mode.val.string.len, PROFILE_IF_EMPTY))
		return profile_is_blank(was) && !profile_is_blank(value);
	return false;
}

PG_FUNCTION_INFO_V1(flohsync_profile_changes);
PGDLLEXPORT Datum
flohsync_profile_changes(PG_FUNCTION_ARGS)
{
	HeapTupleHeader	   profile = PG_ARGISNULL(0) ? NULL : PG_GETARG_HEAPTUPLEHEADER(0);
	Jsonb			  *patch;
	JsonbIterator	  *it;
	JsonbIteratorToken token;
	JsonbValue		   field;
	JsonbValue		   entry;
	JsonbValue		   value;
	JsonbParseState	  *state = NULL;
	bool			   any = false;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	patch = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_OBJECT(patch))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the patch of a profile must be a JSON object")));
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	it = JsonbIteratorInit(&patch->root);
	while ((token = JsonbIteratorNext(&it, &field, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &entry, true);
		if (!profile_writes(&entry, profile, &field, &value))
			continue;
		pushJsonbValue(&state, WJB_KEY, &field);
		pushJsonbValue(&state, WJB_VALUE, &value);
		any = true;
	}
	if (!any)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Where each field of a set of changes comes from. */
PG_FUNCTION_INFO_V1(flohsync_profile_sources);
PGDLLEXPORT Datum
flohsync_profile_sources(PG_FUNCTION_ARGS)
{
	Jsonb			  *changes;
	JsonbIterator	  *it;
	JsonbIteratorToken token;
	JsonbValue		   key;
	JsonbValue		   source = {.type = jbvNull};
	JsonbParseState	  *state = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	changes = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(changes))
		PG_RETURN_NULL();
	if (!PG_ARGISNULL(1))
	{
		text *name = PG_GETARG_TEXT_PP(1);

		source.type = jbvString;
		source.val.string.val = VARDATA_ANY(name);
		source.val.string.len = VARSIZE_ANY_EXHDR(name);
	}
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	it = JsonbIteratorInit(&changes->root);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
		if (token == WJB_KEY)
		{
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &source);
		}
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
