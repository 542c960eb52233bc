/*
 * find.c
 *	  Rows, by an index, without a statement: a connector by its name or id, what is
 *	  common to the records of a type, one record, and records in the order of their ids.
 *
 * A statement, however well planned, takes several times as long to begin and to end as
 * its row takes to be found; and these are asked for thousands of times a second
 * (entry/read.c).  Who calls has called table_check.  Privileges, which the executor
 * would check, are checked here.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/flohsync.h"
#include "base/hex.h"
#include "base/look.h"
#include "record/find.h"

#define FIND_KEYS 3

struct FindTable
{
	const char *schema;
	const char *name;
	const char *index;
	const char *columns[FIND_RECORD_COLUMNS + 1];
	/* Their numbers, in this table. */
	Oid		   known;
	AttrNumber numbers[FIND_RECORD_COLUMNS];
};

static FindTable connectors_by_name = {
	FLOHSYNC_SCHEMA, "connector_definition", "connector_definition_name_key", {"id"}};
static FindTable connectors_by_id = {
	FLOHSYNC_SCHEMA, "connector_definition", "connector_definition_pkey", {"id"}};
static FindTable configurations = {FLOHSYNC_SCHEMA,
								   "connector_sync_config",
								   "connector_sync_config_connector_id_resource_type_key",
								   {"last_full_pass_at"}};
static FindTable former_passes = {
	FLOHSYNC_INTERNAL_SCHEMA, "former_pass", "former_pass_pkey", {"confirmed_at"}};
static FindTable counts = {FLOHSYNC_INTERNAL_SCHEMA, "tally", "tally_pkey", {"state", "n"}};

#define RECORD_COLUMNS \
	{ \
		"id", "external_id", "display_name", "email", "attributes", "sync_hash", "stale_since", \
			"observed_at", "created_at" \
	}

static FindTable records = {FLOHSYNC_SCHEMA, "resource_record", "resource_record_key",
							RECORD_COLUMNS};
static FindTable lists = {FLOHSYNC_SCHEMA, "resource_record", "resource_record_list",
						  RECORD_COLUMNS};

static void
find_columns(FindTable *from, Oid table)
{
	from->known = InvalidOid;
	for (int i = 0; from->columns[i] != NULL; i++)
	{
		from->numbers[i] = get_attnum(table, from->columns[i]);
		if (from->numbers[i] == InvalidAttrNumber)
			elog(ERROR, "%s has no column \"%s\"", from->name, from->columns[i]);
	}
	from->known = table;
}

static void
find_open(Find *find, FindTable *from, int nkeys)
{
	Oid table = look_relation(from->schema, from->name);

	look_may_read(table);
	if (from->known != table)
		find_columns(from, table);
	find->from = from;
	look_open(&find->look, table, look_relation(from->schema, from->index), GetActiveSnapshot(),
			  nkeys);
}

/* Rows with these values in the first columns of the index. */
static void
find_begin(Find *find, FindTable *from, int nkeys, const Datum *values)
{
	ScanKeyData keys[FIND_KEYS];

	find_open(find, from, nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		if (find->look.index->rd_opcintype[i] == UUIDOID)
			look_uuid_key(&keys[i], i + 1, DatumGetUUIDP(values[i]));
		else
			look_text_key(&keys[i], &find->look, i + 1, values[i]);
	}
	index_rescan(find->look.scan, keys, nkeys, NULL, 0);
}

Datum
find_value(Find *find, int column, bool *isnull)
{
	return look_value(&find->look, find->from->numbers[column], isnull);
}

void
find_end(Find *find)
{
	look_close(&find->look);
}

static bool
find_uuid(text *from, pg_uuid_t *uuid)
{
	const char *p = VARDATA_ANY(from);
	int			at = 0;

	if (VARSIZE_ANY_EXHDR(from) != 36)
		return false;
	for (int i = 0; i < 36; i++)
	{
		int digit;

		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (p[i] != '-')
				return false;
			continue;
		}
		digit = hex_digit((unsigned char) p[i]);
		if (digit < 0)
			return false;
		uuid->data[at / 2] = at % 2 == 0 ? digit << 4 : uuid->data[at / 2] | digit;
		at++;
	}
	return true;
}

static bool
find_connector_by(FindTable *from, Datum value, pg_uuid_t *id)
{
	Find find;
	bool isnull;
	bool found;

	find_begin(&find, from, 1, &value);
	found = look_next(&find.look);
	if (found)
		*id = *DatumGetUUIDP(find_value(&find, 0, &isnull));
	find_end(&find);
	return found;
}

/* The name of a connector comes before an id that looks the same. */
bool
find_connector(text *connector, pg_uuid_t *id)
{
	pg_uuid_t uuid;

	return find_connector_by(&connectors_by_name, PointerGetDatum(connector), id) ||
		(find_uuid(connector, &uuid) &&
		 find_connector_by(&connectors_by_id, UUIDPGetDatum(&uuid), id));
}

static TimestampTz
find_time(FindTable *from, Datum connector, text *type)
{
	Datum		key[2] = {connector, PointerGetDatum(type)};
	TimestampTz at = DT_NOBEGIN;
	Find		find;

	find_begin(&find, from, 2, key);
	if (look_next(&find.look))
	{
		bool  isnull;
		Datum value = find_value(&find, 0, &isnull);

		if (!isnull)
			at = DatumGetTimestampTz(value);
	}
	find_end(&find);
	return at;
}

/* As RULES_CONFIRMED_AT; DT_NOBEGIN: never. */
TimestampTz
find_confirmed_at(Datum connector, text *type)
{
	return Max(find_time(&configurations, connector, type),
			   find_time(&former_passes, connector, type));
}

/* How many records there are of a type. */
int64
find_total(Datum connector, text *type)
{
	Datum key[2] = {connector, PointerGetDatum(type)};
	int64 total = 0;
	Find  find;

	find_begin(&find, &counts, 2, key);
	while (look_next(&find.look))
	{
		bool  isnull;
		text *state = DatumGetTextPP(find_value(&find, 0, &isnull));
		int	  len = VARSIZE_ANY_EXHDR(state);

		if ((len == 4 && memcmp(VARDATA_ANY(state), "live", 4) == 0) ||
			(len == 5 && memcmp(VARDATA_ANY(state), "stale", 5) == 0))
			total += DatumGetInt64(find_value(&find, 1, &isnull));
	}
	find_end(&find);
	return total;
}

/* Its values are there until find_end, which is to be called if there is one. */
bool
find_record(Find *find, Datum connector, text *type, text *external_id)
{
	Datum key[3] = {PointerGetDatum(external_id), PointerGetDatum(type), connector};

	find_begin(find, &records, 3, key);
	if (look_next(&find->look))
		return true;
	find_end(find);
	return false;
}

/*
 * Records of a type in the order of their ids, behind one: find_next has one after the other.
 * False: the index is missing, which is others' to drop.
 */
bool
find_list(Find *find, Datum connector, text *type, text *after)
{
	Oid			schema = get_namespace_oid(lists.schema, false);
	Oid			index = get_relname_relid(lists.index, schema);
	ScanKeyData keys[3];

	if (!OidIsValid(index) || !get_index_isvalid(index))
		return false;
	find_open(find, &lists, 3);
	look_uuid_key(&keys[0], 1, DatumGetUUIDP(connector));
	look_text_key(&keys[1], &find->look, 2, PointerGetDatum(type));
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTGreaterStrategyNumber, InvalidOid,
						   find->look.index->rd_indcollation[2], F_TEXT_GT, PointerGetDatum(after));
	index_rescan(find->look.scan, keys, 3, NULL, 0);
	return true;
}

bool
find_next(Find *find)
{
	CHECK_FOR_INTERRUPTS();
	return look_next(&find->look);
}
