/*
 * search.c
 *	  SQL-callable: searches of list_resources and list_matches, and their indexes.
 *
 * What search_text() and search_marks() return is stored in indexes (enable_search), so
 * it must be immutable: a change of it, or of folding, requires new indexes.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#include "base/run_as.h"
#include "record/search.h"

PG_FUNCTION_INFO_V1(flohsync_search_fold);
PGDLLEXPORT Datum
flohsync_search_fold(PG_FUNCTION_ARGS)
{
	text	  *value = PG_GETARG_TEXT_PP(0);
	SearchText folded;
	text	  *result;

	search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
	result = cstring_to_text_with_len(folded.data, folded.len);
	search_free(&folded);
	PG_RETURN_TEXT_P(result);
}

/* The texts that are there, folded, one after the other. */
PG_FUNCTION_INFO_V1(flohsync_search_text);
PGDLLEXPORT Datum
flohsync_search_text(PG_FUNCTION_ARGS)
{
	SearchText folded[3];
	size_t	   len = 0;
	text	  *result;
	char	  *out;

	for (int i = 0; i < lengthof(folded); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		else
		{
			text *value = PG_GETARG_TEXT_PP(i);

			search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded[i]);
			len += folded[i].len + 1;
		}
	}
	result = palloc(VARHDRSZ + len);
	out = VARDATA(result);
	for (int i = 0; i < lengthof(folded); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		memcpy(out, folded[i].data, folded[i].len);
		out += folded[i].len;
		*out++ = SEARCH_SEPARATOR;
		search_free(&folded[i]);
	}
	SET_VARSIZE(result, VARHDRSZ + len);
	PG_RETURN_TEXT_P(result);
}

/* The marks of these texts; null if there are none. */
PG_FUNCTION_INFO_V1(flohsync_search_marks);
PGDLLEXPORT Datum
flohsync_search_marks(PG_FUNCTION_ARGS)
{
	Datum *marks = NULL;
	int	   n = 0;

	for (int i = 0; i < 3; i++)
	{
		SearchText folded;
		int32	  *found;
		int		   count;
		text	  *value;

		if (PG_ARGISNULL(i))
			continue;
		value = PG_GETARG_TEXT_PP(i);
		search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
		found = palloc(sizeof(int32) * SEARCH_MARKS(folded.len));
		count = search_marks(folded.data, folded.len, found);
		if (count > 0)
		{
			marks = marks ? repalloc(marks, sizeof(Datum) * (n + count)) :
							palloc(sizeof(Datum) * count);
			for (int j = 0; j < count; j++)
				marks[n++] = Int32GetDatum(found[j]);
		}
		pfree(found);
		search_free(&folded);
	}
	if (n == 0)
		PG_RETURN_NULL();
	PG_RETURN_ARRAYTYPE_P(construct_array(marks, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/*
 * Is a folded text part of one of the others?  Version 0.2 asks in queries; its step to 0.3
 * drops the function in SQL.
 */
PG_FUNCTION_INFO_V1(flohsync_search_found);
PGDLLEXPORT Datum
flohsync_search_found(PG_FUNCTION_ARGS)
{
	text *needle;
	bool  found = false;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	needle = PG_GETARG_TEXT_PP(0);
	for (int i = 1; i < PG_NARGS() && !found; i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		else
		{
			text	  *value = PG_GETARG_TEXT_PP(i);
			SearchText folded;

			search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
			found = memmem(folded.data, folded.len, VARDATA_ANY(needle),
						   VARSIZE_ANY_EXHDR(needle)) != NULL;
			search_free(&folded);
		}
	}
	PG_RETURN_BOOL(found);
}

static text *
search_text_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : PG_GETARG_TEXT_PP(i);
}

static int64
search_number_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? -1 : PG_GETARG_INT64(i);
}

static SearchStale
search_stale_argument(FunctionCallInfo fcinfo, int i)
{
	if (PG_ARGISNULL(i))
		return SEARCH_ANY;
	return PG_GETARG_BOOL(i) ? SEARCH_STALE : SEARCH_LIVE;
}

/* flohsync_search_page: a page of a search; see search_page.c. */
PG_FUNCTION_INFO_V1(flohsync_search_page);
PGDLLEXPORT Datum
flohsync_search_page(PG_FUNCTION_ARGS)
{
	SearchAsk	 ask;
	SearchAnswer answer;
	TupleDesc	 tupdesc;
	Datum		*types;
	Datum		*ids;
	Datum		 values[4];
	bool		 nulls[4] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(3) || PG_ARGISNULL(4) || PG_ARGISNULL(7) ||
		PG_ARGISNULL(11) || PG_ARGISNULL(12) || PG_ARGISNULL(13) ||
		PG_ARGISNULL(8) != PG_ARGISNULL(9) || (PG_ARGISNULL(8) && PG_ARGISNULL(10)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("search needs a list, a text and a page")));
	ask.matches = PG_GETARG_BOOL(0);
	ask.trigrams = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	ask.marks = PG_ARGISNULL(2) ? InvalidOid : PG_GETARG_OID(2);
	ask.connector = PG_GETARG_UUID_P(3);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(4), TEXTOID, -1, false, TYPALIGN_INT, &types, NULL,
					  &ask.ntypes);
	ask.types = palloc(sizeof(text *) * ask.ntypes);
	for (int i = 0; i < ask.ntypes; i++)
		ask.types[i] = DatumGetTextPP(types[i]);
	ask.status = search_text_argument(fcinfo, 5);
	ask.stale = search_stale_argument(fcinfo, 6);
	ask.needle = PG_GETARG_TEXT_PP(7);
	ask.after_id = search_text_argument(fcinfo, 8);
	ask.after_type = search_text_argument(fcinfo, 9);
	ask.before = search_number_argument(fcinfo, 10);
	ask.limit = PG_GETARG_INT32(11);
	ask.scope = PG_GETARG_INT64(12);
	ask.base = PG_GETARG_INT64(13);
	ask.total = search_number_argument(fcinfo, 14);
	ask.total_is_estimate = !PG_ARGISNULL(15) && PG_GETARG_BOOL(15);

	search_page(&ask, &answer);

	ids = palloc(sizeof(Datum) * answer.n);
	types = palloc(sizeof(Datum) * answer.n);
	for (int i = 0; i < answer.n; i++)
	{
		ids[i] = PointerGetDatum(answer.keys[i].external_id);
		types[i] = PointerGetDatum(ask.types[answer.keys[i].type]);
	}
	values[0] = Int64GetDatum(answer.total);
	values[1] = BoolGetDatum(answer.estimated);
	values[2] = PointerGetDatum(construct_array(ids, answer.n, TEXTOID, -1, false, TYPALIGN_INT));
	values[3] = PointerGetDatum(construct_array(types, answer.n, TEXTOID, -1, false, TYPALIGN_INT));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

static void
make_search_index(const char *sql)
{
	int rc = SPI_execute(sql, false, 0);

	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "could not create an index for searches: %s", SPI_result_code_string(rc));
}

/*
 * flohsync_make_search_indexes makes the indexes of enable_search(), as the
 * superuser: to make an index takes CREATE on the schema of its table, and USAGE
 * on that of its operator class, and the owner of our tables is not given
 * either.  Nothing in the statements comes from anybody but the name of the
 * operator class; what they evaluate runs as the owner of the tables.
 */
PG_FUNCTION_INFO_V1(flohsync_make_search_indexes);
PGDLLEXPORT Datum
flohsync_make_search_indexes(PG_FUNCTION_ARGS)
{
	static const char *const tables[][2] = {
		{"resource_record", "external_id, email, display_name"},
		{"connector_sync_match", "external_id, external_email, external_display_name"},
	};
	Oid				opclass = PG_GETARG_OID(0);
	HeapTuple		tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(opclass));
	Form_pg_opclass form;
	char		   *name;
	RunAs			saved;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("operator class with OID %u does not exist", opclass)));
	form = (Form_pg_opclass) GETSTRUCT(tuple);
	if (form->opcmethod != GIN_AM_OID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("operator class with OID %u does not belong to access method gin",
						opclass)));
	name = quote_qualified_identifier(get_namespace_name(form->opcnamespace),
									  NameStr(form->opcname));
	ReleaseSysCache(tuple);

	SPI_connect();
	run_as_begin(&saved, BOOTSTRAP_SUPERUSERID);
	for (int i = 0; i < lengthof(tables); i++)
	{
		const char *table = tables[i][0];
		const char *columns = tables[i][1];

		make_search_index(
			psprintf("create index if not exists %s_search on flohsync.%s using gin"
					 " (_flohsync.search_text(%s) %s) with (gin_pending_list_limit = 1024)",
					 table, table, columns, name));
		make_search_index(
			psprintf("create index if not exists %s_search_marks on flohsync.%s using gin"
					 " (_flohsync.search_marks(%s) pg_catalog.array_ops)"
					 " with (gin_pending_list_limit = 1024)"
					 " where _flohsync.search_marks(%s) is not null",
					 table, table, columns, columns));
	}
	run_as_end(&saved);
	SPI_finish();
	PG_RETURN_VOID();
}
