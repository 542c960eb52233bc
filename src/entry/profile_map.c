/*
 * profile_map.c
 *	  SQL: what the attribute mappings make of the records of users.
 *
 * A statement gives rows (user, external id, values of the rules) in the order of users and
 * external ids, a row a record; here they become patches of profiles, a patch a user.  The
 * rows are taken as the executor has them, one after the other: of a large value there is
 * never more than one in memory.
 *
 * profile_map(cursor, fields, modes, configuration, n) reads on in a cursor, by n users or
 * some more.  The last user's records may go on behind the last row: what is known of that
 * user waits in the memory of the cursor, and goes with it.
 *
 * profile_map_cached(sql, connector, type, users, fields, modes, configuration) reads all of a
 * statement whose plan is kept.
 *
 * A text of moderate size is a value as it is; all else is converted by profile_field().
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"
#include "parser/parse_func.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "entry/cached_plan.h"
#include "entry/profile.h"

#define MAP_CHUNK		500	 /* rows */
#define MAP_PLAIN_BYTES 2000 /* a longer text may be one too many bytes as JSON */
#define MAP_SHOWN_CHARS 1000 /* of a value that is invalid */

typedef struct MapRule
{
	Datum	   field; /* text */
	JsonbValue key;	  /* the same */
	bool	   always;
	bool	   converts; /* whatever its value is */
	int		   slot;	 /* first rule for that field */
} MapRule;

/* What a user's records have said of a field so far; 0: nothing. */
typedef struct MapSlot
{
	Datum last;	 /* of the rules that always write, */
	Datum first; /* of those that write where there is nothing, and have something */
} MapSlot;

/* A reader of rows: what it makes of them goes to the arrays of one call. */
typedef struct MapReader
{
	DestReceiver  dest; /* must be first */
	MemoryContext memory;
	int			  nrules;
	MapRule		 *rules;

	/* The user whose records are being read. */
	MemoryContext	 of_user;
	bool			 reading;
	pg_uuid_t		 user;
	Datum			 record; /* external id of the row at hand; 0: none */
	MapSlot			*slots;
	JsonbParseState *faults;

	/* The call. */
	MemoryContext of_call;
	FmgrInfo	 *convert;
	Datum		  config;
	int			  n;
	int			  room;
	Datum		 *users;
	Datum		 *patches;
	Datum		 *problems;
	bool		 *no_patch;
	bool		 *no_problem;

	/* With a cursor. */
	Portal				  portal;
	dlist_node			  link;
	MemoryContextCallback gone;
} MapReader;

static dlist_head readers = DLIST_STATIC_INIT(readers);

static void
map_key(JsonbValue *key, const char *text, int len)
{
	key->type = jbvString;
	key->val.string.val = (char *) text;
	key->val.string.len = len;
}

static void
map_push_text(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue value;

	map_key(&value, text, strlen(text));
	pushJsonbValue(state, token, &value);
}

static Datum
map_keep(MemoryContext memory, Datum value)
{
	struct varlena *from = (struct varlena *) DatumGetPointer(value);
	void		   *to = MemoryContextAlloc(memory, VARSIZE_ANY(from));

	return PointerGetDatum(memcpy(to, from, VARSIZE_ANY(from)));
}

/* The arrays of rules, in memory of the reader. */
static void
map_rules(MapReader *reader, ArrayType *fields, ArrayType *modes)
{
	MemoryContext old = MemoryContextSwitchTo(reader->memory);
	Datum		 *names;
	Datum		 *ways;
	int			  n;

	deconstruct_array(DatumGetArrayTypePCopy(PointerGetDatum(fields)), TEXTOID, -1, false,
					  TYPALIGN_INT, &names, NULL, &reader->nrules);
	deconstruct_array(modes, TEXTOID, -1, false, TYPALIGN_INT, &ways, NULL, &n);
	if (n != reader->nrules)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the arrays must have the same number of elements")));
	reader->rules = palloc0(sizeof(MapRule) * Max(n, 1));
	reader->slots = palloc0(sizeof(MapSlot) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		MapRule *rule = &reader->rules[i];
		text	*name = DatumGetTextPP(names[i]);
		text	*mode = DatumGetTextPP(ways[i]);
		int		 column;

		rule->field = names[i];
		map_key(&rule->key, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
		rule->always = profile_is(VARDATA_ANY(mode), VARSIZE_ANY_EXHDR(mode), PROFILE_ALWAYS);
		column = profile_column(&rule->key);
		rule->converts = column != PROFILE_CUSTOM &&
			(strcmp(profile_columns[column].field, "startDate") == 0 ||
			 strcmp(profile_columns[column].field, "managerId") == 0);
		while (!profile_is(rule->key.val.string.val, rule->key.val.string.len,
						   TextDatumGetCString(reader->rules[rule->slot].field)))
			rule->slot++;
	}
	MemoryContextSwitchTo(old);
}

/* Why a value of the record is invalid, for who is told: [external id, message, value]. */
static void
map_fault(MapReader *reader, const MapRule *rule, const char *problem, Jsonb *value)
{
	char	  *shown = JsonbToCString(NULL, &value->root, VARSIZE(value));
	JsonbValue none = {.type = jbvNull};

	shown = pnstrdup(shown, pg_mbcharcliplen(shown, strlen(shown), MAP_SHOWN_CHARS));
	if (reader->faults == NULL)
		pushJsonbValue(&reader->faults, WJB_BEGIN_ARRAY, NULL);
	pushJsonbValue(&reader->faults, WJB_BEGIN_ARRAY, NULL);
	if (reader->record == (Datum) 0)
		pushJsonbValue(&reader->faults, WJB_ELEM, &none);
	else
		map_push_text(&reader->faults, WJB_ELEM, TextDatumGetCString(reader->record));
	map_push_text(&reader->faults, WJB_ELEM,
				  psprintf("%s: %s", TextDatumGetCString(rule->field), problem));
	map_push_text(&reader->faults, WJB_ELEM, shown);
	pushJsonbValue(&reader->faults, WJB_END_ARRAY, NULL);
}

/* The value that profile_field() makes of one, or 0. */
static Datum
map_convert(MapReader *reader, const MapRule *rule, Jsonb *value)
{
	LOCAL_FCINFO(fcinfo, 3);
	HeapTupleHeader result;
	Datum			converted;
	Datum			problem;
	bool			isnull;

	InitFunctionCallInfoData(*fcinfo, reader->convert, 3, DEFAULT_COLLATION_OID, NULL, NULL);
	fcinfo->args[0].value = rule->field;
	fcinfo->args[1].value = JsonbPGetDatum(value);
	fcinfo->args[2].value = reader->config;
	for (int i = 0; i < 3; i++)
		fcinfo->args[i].isnull = false;
	result = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
	problem = GetAttributeByNum(result, 2, &isnull);
	if (!isnull)
	{
		map_fault(reader, rule, TextDatumGetCString(problem), value);
		return (Datum) 0;
	}
	converted = GetAttributeByNum(result, 1, &isnull);
	return isnull ? (Datum) 0 : converted;
}

/* Makes the user's patch of what the records have said. */
static void
map_end_user(MapReader *reader)
{
	JsonbParseState *state = NULL;
	MemoryContext	 old;
	int				 n = reader->n;

	if (!reader->reading)
		return;
	reader->reading = false;
	old = MemoryContextSwitchTo(reader->of_user);
	for (int i = 0; i < reader->nrules; i++)
	{
		MapSlot	  *slot = &reader->slots[i];
		bool	   always = slot->last != (Datum) 0;
		JsonbValue value;

		if (!always && slot->first == (Datum) 0)
			continue;
		profile_value(DatumGetJsonbP(always ? slot->last : slot->first), &value);
		slot->last = slot->first = (Datum) 0;
		if (state == NULL)
			pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(&state, WJB_KEY, &reader->rules[i].key);
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		map_push_text(&state, WJB_KEY, "mode");
		map_push_text(&state, WJB_VALUE, always ? PROFILE_ALWAYS : PROFILE_IF_EMPTY);
		map_push_text(&state, WJB_KEY, "value");
		pushJsonbValue(&state, WJB_VALUE, &value);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	if (state || reader->faults)
	{
		if (n == reader->room)
		{
			reader->room *= 2;
			reader->users = repalloc(reader->users, sizeof(Datum) * reader->room);
			reader->patches = repalloc(reader->patches, sizeof(Datum) * reader->room);
			reader->problems = repalloc(reader->problems, sizeof(Datum) * reader->room);
			reader->no_patch = repalloc(reader->no_patch, sizeof(bool) * reader->room);
			reader->no_problem = repalloc(reader->no_problem, sizeof(bool) * reader->room);
		}
		reader->users[n] = PointerGetDatum(
			memcpy(MemoryContextAlloc(reader->of_call, UUID_LEN), &reader->user, UUID_LEN));
		reader->no_patch[n] = state == NULL;
		if (state)
			reader->patches[n] = map_keep(reader->of_call,
										  JsonbPGetDatum(JsonbValueToJsonb(
											  pushJsonbValue(&state, WJB_END_OBJECT, NULL))));
		reader->no_problem[n] = reader->faults == NULL;
		if (reader->faults)
			reader->problems[n] = map_keep(reader->of_call,
										   JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(
											   &reader->faults, WJB_END_ARRAY, NULL))));
		reader->n++;
	}
	reader->faults = NULL;
	MemoryContextSwitchTo(old);
	MemoryContextReset(reader->of_user);
}

/* What one rule finds in a record. */
static void
map_value(MapReader *reader, const MapRule *rule, Datum datum)
{
	MapSlot	  *slot = &reader->slots[rule->slot];
	Jsonb	  *jsonb = DatumGetJsonbP(datum);
	JsonbValue value;

	profile_value(jsonb, &value);
	if (value.type == jbvNull)
		return;
	if (rule->converts || value.type != jbvString || value.val.string.len > MAP_PLAIN_BYTES)
	{
		datum = map_convert(reader, rule, jsonb);
		if (datum == (Datum) 0)
			return;
		jsonb = DatumGetJsonbP(datum);
		profile_value(jsonb, &value);
	}
	if (rule->always)
		slot->last = map_keep(reader->of_user, JsonbPGetDatum(jsonb));
	else if (slot->first == (Datum) 0 && !profile_is_blank(&value))
		slot->first = map_keep(reader->of_user, JsonbPGetDatum(jsonb));
}

static bool
map_receive(TupleTableSlot *row, DestReceiver *dest)
{
	MapReader	 *reader = (MapReader *) dest;
	MemoryContext old;
	pg_uuid_t	 *user;
	Datum		 *values;
	bool		 *nulls;
	int			  n;

	slot_getallattrs(row);
	if (row->tts_isnull[0] || row->tts_isnull[2])
		return true;
	user = DatumGetUUIDP(row->tts_values[0]);
	old = MemoryContextSwitchTo(reader->of_user);
	if (reader->reading && memcmp(user, &reader->user, UUID_LEN) != 0)
		map_end_user(reader);
	reader->user = *user;
	reader->record = row->tts_isnull[1] ? (Datum) 0 : row->tts_values[1];
	reader->reading = true;
	deconstruct_array(DatumGetArrayTypeP(row->tts_values[2]), JSONBOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &n);
	if (n != reader->nrules)
		elog(ERROR, "a row has values of %d rules instead of %d", n, reader->nrules);
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			map_value(reader, &reader->rules[i], values[i]);
	MemoryContextSwitchTo(old);
	return true;
}

/* Nothing is taken for granted of a statement that somebody has made of settings. */
static void
map_startup(DestReceiver *dest, int operation, TupleDesc row)
{
	static const Oid types[] = {UUIDOID, TEXTOID, JSONBARRAYOID};

	for (int i = 0; i < (int) lengthof(types); i++)
		if (row->natts != (int) lengthof(types) || TupleDescAttr(row, i)->atttypid != types[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("rows of records must have a user, an external id and values")));
}

static void
map_nothing(DestReceiver *dest)
{
}

/* A reader in memory of its own, which goes with "parent". */
static MapReader *
map_make(MemoryContext parent, ArrayType *fields, ArrayType *modes)
{
	MemoryContext memory = AllocSetContextCreate(parent, "flohsync mapping", ALLOCSET_SMALL_SIZES);
	MapReader	 *reader = MemoryContextAllocZero(memory, sizeof(MapReader));

	reader->dest.receiveSlot = map_receive;
	reader->dest.rStartup = map_startup;
	reader->dest.rShutdown = map_nothing;
	reader->dest.rDestroy = map_nothing;
	reader->dest.mydest = DestNone;
	reader->memory = memory;
	reader->of_user = AllocSetContextCreate(memory, "flohsync mapping of a user",
											ALLOCSET_DEFAULT_SIZES);
	map_rules(reader, fields, modes);
	return reader;
}

static void
map_gone(void *arg)
{
	dlist_delete(&((MapReader *) arg)->link);
}

/* The reader of a cursor. */
static MapReader *
map_of_portal(Portal portal, ArrayType *fields, ArrayType *modes)
{
	MapReader *reader;
	dlist_iter at;

	dlist_foreach(at, &readers)
	{
		reader = dlist_container(MapReader, link, at.cur);
		if (reader->portal == portal)
			return reader;
	}
	reader = map_make(portal->portalContext, fields, modes);
	reader->portal = portal;
	dlist_push_head(&readers, &reader->link);
	reader->gone.func = map_gone;
	reader->gone.arg = reader;
	MemoryContextRegisterResetCallback(reader->memory, &reader->gone);
	return reader;
}

static void
map_begin_call(MapReader *reader, FunctionCallInfo fcinfo, int config, int room)
{
	Oid	  types[] = {TEXTOID, JSONBOID, get_fn_expr_argtype(fcinfo->flinfo, config)};
	List *name = list_make2(makeString(FLOHSYNC_INTERNAL_SCHEMA), makeString("profile_field"));

	reader->of_call = CurrentMemoryContext;
	reader->convert = palloc0(sizeof(FmgrInfo));
	fmgr_info(LookupFuncName(name, lengthof(types), types, false), reader->convert);
	reader->config = PG_GETARG_DATUM(config);
	reader->n = 0;
	reader->room = room;
	reader->users = palloc(sizeof(Datum) * room);
	reader->patches = palloc(sizeof(Datum) * room);
	reader->problems = palloc(sizeof(Datum) * room);
	reader->no_patch = palloc(sizeof(bool) * room);
	reader->no_problem = palloc(sizeof(bool) * room);
}

static Datum
map_array(Datum *values, bool *nulls, int n, Oid type, int16 len, char align)
{
	int lower = 1;

	return PointerGetDatum(
		construct_md_array(values, nulls, 1, &n, &lower, type, len, false, align));
}

/* A row of the users, their patches and their problems; null when there are none. */
static Datum
map_result(MapReader *reader, FunctionCallInfo fcinfo)
{
	TupleDesc row;
	Datum	  values[3] = {0};
	bool	  nulls[3] = {true, true, true};

	if (get_call_result_type(fcinfo, NULL, &row) != TYPEFUNC_COMPOSITE || row->natts != 3)
		elog(ERROR, "the result of a function is not a row of three");
	if (reader->n > 0)
	{
		values[0] = map_array(reader->users, NULL, reader->n, UUIDOID, UUID_LEN, TYPALIGN_CHAR);
		values[1] = map_array(reader->patches, reader->no_patch, reader->n, JSONBOID, -1,
							  TYPALIGN_INT);
		nulls[0] = nulls[1] = false;
	}
	for (int i = 0; i < reader->n && nulls[2]; i++)
		nulls[2] = reader->no_problem[i];
	if (!nulls[2])
		values[2] = map_array(reader->problems, reader->no_problem, reader->n, JSONBOID, -1,
							  TYPALIGN_INT);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row), values, nulls));
}

static void
map_require(FunctionCallInfo fcinfo, int first)
{
	for (int i = first; i < PG_NARGS(); i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("an argument of a function must not be null")));
}

PG_FUNCTION_INFO_V1(flohsync_profile_map);
PGDLLEXPORT Datum
flohsync_profile_map(PG_FUNCTION_ARGS)
{
	Portal	   portal;
	MapReader *reader;
	int		   n;

	map_require(fcinfo, 0);
	portal = GetPortalByName(TextDatumGetCString(PG_GETARG_DATUM(0)));
	if (!PortalIsValid(portal) || portal->strategy != PORTAL_ONE_SELECT)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_CURSOR), errmsg("there is no such cursor")));
	n = PG_GETARG_INT32(4);
	reader = map_of_portal(portal, PG_GETARG_ARRAYTYPE_P(1), PG_GETARG_ARRAYTYPE_P(2));
	map_begin_call(reader, fcinfo, 3, Max(n, 0) + MAP_CHUNK + 1);
	while (reader->n < n && !portal->atEnd)
		(void) PortalRunFetch(portal, FETCH_FORWARD, MAP_CHUNK, &reader->dest);
	if (portal->atEnd)
		map_end_user(reader);
	return map_result(reader, fcinfo);
}

PG_FUNCTION_INFO_V1(flohsync_profile_map_cached);
PGDLLEXPORT Datum
flohsync_profile_map_cached(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {UUIDOID, TEXTOID, UUIDARRAYOID};
	Datum			 values[] = {PG_GETARG_DATUM(1), PG_GETARG_DATUM(2), PG_GETARG_DATUM(3)};
	MapReader		*reader;
	Datum			 result;

	map_require(fcinfo, 0);
	reader = map_make(CurrentMemoryContext, PG_GETARG_ARRAYTYPE_P(4), PG_GETARG_ARRAYTYPE_P(5));
	map_begin_call(reader, fcinfo, 6, 64);
	cached_plan_read(fcinfo->flinfo->fn_oid, PG_GETARG_TEXT_PP(0), lengthof(types), types, values,
					 &reader->dest);
	map_end_user(reader);
	result = map_result(reader, fcinfo);
	MemoryContextDelete(reader->memory);
	return result;
}
