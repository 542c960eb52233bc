/*
 * faults.c
 *	  Records that were set aside, with what is wrong with them.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"

#include "base/bytes.h"
#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "record/faults.h"

/*
 * Notes records that were set aside; v and nulls begin with where: run and page, or
 * connector and type.
 */
static void
faults_note(const RecordFault *faults, int n, Datum v[8], const char nulls[8])
{
	static DbQuery query = {
		"insert into flohsync.sync_error (run_id, page, connector_id, resource_type,"
		" external_id, error_class, message, payload)"
		" select $1, $2, $3, $4, f.* from unnest($5, $6, $7, $8) f",
		8,
		{INT8OID, INT4OID, UUIDOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		 TEXTARRAYOID},
		.plan_as = PLAN_GENERIC};
	Slice *columns[4];

	for (int k = 0; k < 4; k++)
		columns[k] = palloc0(sizeof(Slice) * n);
	for (int i = 0; i < n; i++)
	{
		const RecordFault *f = &faults[i];

		if (f->external_id.data)
			columns[0][i].data = clean_id(f->external_id.data, f->external_id.len,
										  RECORD_FAULT_BYTES, &columns[0][i].len);
		columns[1][i].data = error_class_name(f->error_class);
		columns[1][i].len = strlen(columns[1][i].data);
		columns[2][i].data = f->message;
		columns[2][i].len = strlen(f->message);
		columns[3][i].data = clean_json(f->payload.data, f->payload.len, RECORD_FAULT_BYTES);
		columns[3][i].len = strlen(columns[3][i].data);
	}
	for (int k = 0; k < 4; k++)
		v[4 + k] = db_text_array(columns[k], n);
	db_execute(&query, v, nulls);
}

/* record_faults_of_page notes the records of a page that were set aside. */
void
record_faults_of_page(int64 run, int page, const RecordFault *faults, int n)
{
	Datum v[8] = {Int64GetDatum(run), Int32GetDatum(page)};

	faults_note(faults, n, v, "  nn    ");
}

/* record_faults_of_upsert notes those of upsert_resources(). */
void
record_faults_of_upsert(Datum connector, Datum type, const RecordFault *faults, int n)
{
	Datum v[8] = {0, 0, connector, type};

	faults_note(faults, n, v, "nn      ");
}
