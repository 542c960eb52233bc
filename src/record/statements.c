/*
 * statements.c
 *	  The statements by which records of a page are written: one each for those that
 *	  are new, changed, seen again, or have another hash; and by which one is locked.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/db_value.h"
#include "base/memory_page.h"
#include "record/statements.h"
#include "record/write.h"

/* The first test is made once, and mostly there is no tombstone at all. */
#define APPLY_INSERT \
	"insert into flohsync.resource_record (connector_id, resource_type, external_id," \
	" display_name, email, attributes, sync_hash, observed_at, event_at, event_keys)" \
	" select $1, $2, u.id, u.name, u.email, u.attributes::pg_catalog.jsonb, u.hash, $8, $9, $10" \
	" from unnest($3, $4, $5, $6, $7) u(id, name, email, attributes, hash)" \
	" where not (exists (select from _flohsync.resource_tombstone)" \
	" and " RECORD_HAS_TOMBSTONE("$1", "$2", "u.id", "$8", "$9") ")"

/* The ids of stored rows as uuid[]. */
static Datum
apply_ids(const ExistingRow *prior, const int *which, int n)
{
	pg_uuid_t *ids = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	Datum	   array;

	for (int i = 0; i < n; i++)
		ids[i] = prior[which[i]].id;
	array = db_uuid_array(ids, n);
	pfree(ids);
	return array;
}

/* The columns of some records as arrays: id, name, e-mail, attributes, hash. */
static void
apply_columns(const ApplyScope *scope, const Record *records, const int *which, int n, Datum *v)
{
	Slice *slices = palloc(sizeof(Slice) * n);

	for (int column = 0; column < 5; column++)
	{
		Size bytes = 0;

		for (int i = 0; i < n; i++)
		{
			const Record *r = &records[which[i]];

			slices[i] = column == 0 ? r->external_id :
				column == 1			? r->display_name :
				column == 2			? r->email :
				column == 3			? (scope->parser ? page_stored_attributes(scope->parser, r) :
													   r->attributes) :
									  (Slice){r->hash, FLOHSYNC_HASH_HEX};
			bytes += slices[i].len + sizeof(int32) * 2;
		}
		/* Beside the array, PostgreSQL makes jsonb of the attributes, one after the other. */
		memory_expect(scope->memory, bytes + scope->heaviest);
		v[column] = db_text_array(slices, n);
	}
	pfree(slices);
}

uint64
apply_insert(const ApplyScope *scope, const Record *records, const int *which, int n)
{
	static DbQuery plain = {APPLY_INSERT " returning external_id, record_no, id",
							10,
							{UUIDOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
							 TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
							.plan_as = PLAN_GENERIC};
	static DbQuery yielding = {
		APPLY_INSERT " on conflict (external_id, resource_type, connector_id) do nothing returning"
					 " external_id, record_no, id",
		10,
		{UUIDOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		 TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_GENERIC};
	Datum v[10] = {scope->connector, scope->resource_type};
	char  nulls[10];

	apply_columns(scope, records, which, n, v + 2);
	v[7] = TimestampTzGetDatum(scope->observed_at);
	v[8] = TimestampTzGetDatum(scope->event_at);
	v[9] = PointerGetDatum(scope->event_keys);
	memset(nulls, ' ', sizeof(nulls));
	nulls[8] = scope->event_at == 0 ? 'n' : ' ';
	nulls[9] = scope->event_keys == NULL ? 'n' : ' ';
	return db_execute(scope->individual ? &yielding : &plain, v, nulls);
}

/* Takes back those inserts that a deletion committed meanwhile forbids. */
void
apply_recheck_tombstones(const ApplyScope *scope, const Record *records, ExistingRow *prior,
						 const int *which, int n, bool *written)
{
	static DbQuery query = {"delete from flohsync.resource_record r where r.id = any ($1)",
							1,
							{UUIDARRAYOID},
							.plan_as = PLAN_BY_INDEX};
	int			  *dead = palloc(sizeof(int) * n);
	int			   ndead = lookup_deleted(scope->connector, scope->resource_type, records, which, n,
										  scope->observed_at, scope->event_at, dead);
	Datum		   ids;

	if (ndead > 0)
	{
		ids = apply_ids(prior, dead, ndead);
		db_execute(&query, &ids, NULL);
		for (int k = 0; k < ndead; k++)
		{
			prior[dead[k]].num = 0;
			written[dead[k]] = false;
		}
	}
	pfree(dead);
}

/* Locks and reads the row of one record. */
uint64
apply_lock(Datum connector, Datum resource_type, Datum id)
{
	static DbQuery query = {
		"select r.id, r.event_at, r.observed_at, r.stale_since is not null, r.event_keys,"
		" r.display_name, r.email, r.attributes, r.record_no, r.sync_hash"
		" from flohsync.resource_record r"
		" where r.external_id = $3 and r.resource_type = $2 and r.connector_id = $1 for no key"
		" update",
		3,
		{UUIDOID, TEXTOID, TEXTOID},
		.plan_as = PLAN_BY_INDEX};
	Datum v[3] = {connector, resource_type, id};

	return db_execute(&query, v, NULL);
}

uint64
apply_update(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
			 const int *which, int n)
{
	static DbQuery query = {
		"update flohsync.resource_record r set display_name = u.name, email = u.email,"
		" attributes = u.attributes::pg_catalog.jsonb,"
		" sync_hash = u.hash, stale_since = null, observed_at = $6, event_at = coalesce($8,"
		" r.event_at), event_keys = $9"
		" from unnest($1, $2, $3, $4, $5) u(id, name, email, attributes, hash)"
		" where r.id = u.id and " RECORD_IS_OLDER(
			"r", "$6", "$8", "$7") " returning r.external_id, r.record_no, r.id",
		9,
		{UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID,
		 TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_BY_INDEX};
	Datum columns[5];
	Datum v[9];
	char  nulls[9];

	apply_columns(scope, records, which, n, columns);
	v[0] = apply_ids(prior, which, n);
	memcpy(v + 1, columns + 1, sizeof(Datum) * 4);
	v[5] = TimestampTzGetDatum(scope->observed_at);
	v[6] = TimestampTzGetDatum(scope->confirmed_at);
	v[7] = TimestampTzGetDatum(scope->event_at);
	memset(nulls, ' ', sizeof(nulls));
	nulls[6] = scope->confirmed_at == 0 ? 'n' : ' ';
	nulls[7] = scope->event_at == 0 ? 'n' : ' ';
	v[8] = PointerGetDatum(scope->event_keys);
	nulls[8] = scope->event_keys == NULL ? 'n' : ' ';
	return db_execute(&query, v, nulls);
}

uint64
apply_touch(const ApplyScope *scope, const ExistingRow *prior, const int *which, int n)
{
	static DbQuery query = {
		"update flohsync.resource_record r set observed_at = $2, event_at = coalesce($4,"
		" r.event_at), event_keys = $5 from unnest($1) u(id)"
		" where r.id = u.id and r.stale_since is null and " RECORD_IS_OLDER(
			"r", "$2", "$4", "$3") " returning r.external_id, r.record_no, r.id",
		5,
		{UUIDARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_BY_INDEX};
	Datum v[5] = {apply_ids(prior, which, n), TimestampTzGetDatum(scope->observed_at),
				  TimestampTzGetDatum(scope->confirmed_at), TimestampTzGetDatum(scope->event_at),
				  PointerGetDatum(scope->event_keys)};
	char  nulls[5] = {' ', ' ', scope->confirmed_at == 0 ? 'n' : ' ',
					  scope->event_at == 0 ? 'n' : ' ', scope->event_keys == NULL ? 'n' : ' '};

	return db_execute(&query, v, nulls);
}

/* Gives those rows their new hash whose content is the same by the rule of now. */
uint64
apply_rehash(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
			 const int *which, int n)
{
	static DbQuery query = {
		"update flohsync.resource_record r set sync_hash = u.hash, observed_at = case when $4"
		" then $5 else r.observed_at end,"
		" event_at = coalesce($7, r.event_at), event_keys = case when $4 then $8 else"
		" r.event_keys end"
		" from unnest($1, $2) u(id, hash)"
		" where r.id = u.id and r.stale_since is null and " RECORD_IS_OLDER(
			"r", "$5", "$7",
			"$6") " and _flohsync.record_hash(r.external_id, r.display_name, r.email,"
				  " r.attributes, $3) = u.hash"
				  " returning r.external_id, r.record_no, r.id",
		8,
		{UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		 TIMESTAMPTZOID, JSONBOID},
		.plan_as = PLAN_BY_INDEX};
	Slice *hashes = palloc(sizeof(Slice) * n);
	Datum  v[8] = {apply_ids(prior, which, n),
				   0,
				   scope->hash_ignore,
				   BoolGetDatum(scope->individual),
				   TimestampTzGetDatum(scope->observed_at),
				   TimestampTzGetDatum(scope->confirmed_at),
				   TimestampTzGetDatum(scope->event_at),
				   PointerGetDatum(scope->event_keys)};
	char   nulls[8] = {' ',
					   ' ',
					   ' ',
					   ' ',
					   ' ',
					   scope->confirmed_at == 0 ? 'n' : ' ',
					   scope->event_at == 0 ? 'n' : ' ',
					   scope->event_keys == NULL ? 'n' : ' '};

	for (int i = 0; i < n; i++)
		hashes[i] = (Slice){records[which[i]].hash, FLOHSYNC_HASH_HEX};
	v[1] = db_text_array(hashes, n);
	pfree(hashes);
	return db_execute(&query, v, nulls);
}

/* Notes which records a write returned. */
void
apply_returned(const Record *records, int n, uint64 rows, ExistingRow *prior, bool *written)
{
	int hint = 0;

	for (uint64 r = 0; r < rows; r++)
	{
		Datum row[3];
		bool  isnull[3];
		text *key;
		int	  i;

		heap_deform_tuple(SPI_tuptable->vals[r], SPI_tuptable->tupdesc, row, isnull);
		key = DatumGetTextPP(row[0]);
		/* Rows mostly come in the order of the records. */
		if (hint < n &&
			page_compare_ids(records[hint].external_id.data, records[hint].external_id.len,
							 VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)) == 0)
			i = hint;
		else
			i = page_find_id(records, n, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
		if (i < 0)
			continue;
		hint = i + 1;
		prior[i].num = DatumGetInt64(row[1]);
		prior[i].id = *DatumGetUUIDP(row[2]);
		written[i] = true;
	}
	SPI_freetuptable(SPI_tuptable);
}
