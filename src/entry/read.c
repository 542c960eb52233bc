/*
 * read.c
 *	  SQL-callable: flohsync_api.resources and flohsync_api.resource, the answers
 *	  that applications ask for most.
 *
 * They answer what list_resources and get_resource do, member for member, but make
 * the text at once: as jsonb each record would be put together, sorted and taken apart
 * again, which is four times the work of finding it.  Whatever is not common (a search,
 * stale records alone, several types, what does not exist) is left to those functions.
 *
 * Records are found without a statement (record/find.c), one or a list.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "base/table_check.h"
#include "base/time_text.h"
#include "json/jsonb_text.h"
#include "net/crypto.h"
#include "record/find.h"

#define LIST_MOST		  2000 /* of a page, as check_page has it */
#define LIST_RECORD_BYTES 700  /* that a record takes, mostly */
#define ETAG_DIGITS		  32

/* What of a connector and a type is common to all records. */
typedef struct ReadScope
{
	Datum		connector;
	TimestampTz confirmed_at; /* of a complete pass; DT_NOBEGIN: none */
} ReadScope;

/* False: there is no such connector. */
static bool
read_scope(ReadScope *scope, text *connector, text *type)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	Oid		   worker = get_role_oid(flohsync_worker_role, true);

	if (OidIsValid(worker))
		table_check(worker);
	if (!find_connector(connector, id))
		return false;
	scope->connector = UUIDPGetDatum(id);
	scope->confirmed_at = find_confirmed_at(scope->connector, type);
	return true;
}

/* A literal. */
#define put(out, text) jsonb_put_bytes((out), (text), sizeof(text) - 1)

static void
put_uuid(StringInfo out, Datum value)
{
	static const char digits[] = "0123456789abcdef";
	const pg_uuid_t	 *uuid = DatumGetUUIDP(value);
	char			  text[38];
	char			 *p = text;

	*p++ = '"';
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid->data[i] >> 4];
		*p++ = digits[uuid->data[i] & 15];
	}
	*p++ = '"';
	jsonb_put_bytes(out, text, p - text);
}

static void
put_text(StringInfo out, Datum value, bool isnull)
{
	text *t;

	if (isnull)
	{
		put(out, "null");
		return;
	}
	t = DatumGetTextPP(value);
	jsonb_put_string(out, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* A time, with its text as it was last: those of a page are mostly the same. */
typedef struct KnownTime
{
	TimestampTz at;
	int			len;
	char		text[TIME_ISO_SIZE + 2];
} KnownTime;

static void
put_time(StringInfo out, TimestampTz at, bool isnull, KnownTime *known)
{
	if (isnull)
	{
		put(out, "null");
		return;
	}
	if (known->len == 0 || known->at != at)
	{
		known->at = at;
		known->text[0] = '"';
		if (time_iso_text(at, known->text + 1))
			strlcat(known->text, "\"", sizeof(known->text));
		else
			strlcpy(known->text, "null", sizeof(known->text));
		known->len = strlen(known->text);
	}
	jsonb_put_bytes(out, known->text, known->len);
}

/* Records of one scope, one after the other. */
typedef struct RecordWriter
{
	const ReadScope *scope;
	StringInfoData	 common; /* connectorId and resourceType */
	KnownTime		 synced;
	KnownTime		 created;
	KnownTime		 stale;
} RecordWriter;

static void
writer_start(RecordWriter *w, const ReadScope *scope, text *type)
{
	memset(w, 0, sizeof(*w));
	w->scope = scope;
	initStringInfo(&w->common);
	put(&w->common, ", \"connectorId\": ");
	put_uuid(&w->common, scope->connector);
	put(&w->common, ", \"resourceType\": ");
	put_text(&w->common, PointerGetDatum(type), false);
	put(&w->common, ", \"externalId\": ");
}

/* A record, in the form of _flohsync.resource_dto. */
static void
put_record(StringInfo out, const Datum *v, const bool *nulls, RecordWriter *w)
{
	TimestampTz seen;

	put(out, "{\"id\": ");
	put_uuid(out, v[FIND_ID]);
	jsonb_put_bytes(out, w->common.data, w->common.len);
	put_text(out, v[FIND_EXTERNAL_ID], nulls[FIND_EXTERNAL_ID]);
	put(out, ", \"displayName\": ");
	put_text(out, v[FIND_NAME], nulls[FIND_NAME]);
	put(out, ", \"email\": ");
	put_text(out, v[FIND_EMAIL], nulls[FIND_EMAIL]);
	put(out, ", \"attributes\": ");
	if (nulls[FIND_ATTRIBUTES])
		put(out, "null");
	else
		jsonb_put(out, DatumGetJsonbP(v[FIND_ATTRIBUTES]));
	put(out, ", \"syncHash\": ");
	put_text(out, v[FIND_HASH], nulls[FIND_HASH]);
	put(out, ", \"staleSince\": ");
	put_time(out, DatumGetTimestampTz(v[FIND_STALE]), nulls[FIND_STALE], &w->stale);
	/* As in the view connector_resource. */
	seen = DatumGetTimestampTz(v[FIND_OBSERVED]);
	if (nulls[FIND_STALE] && w->scope->confirmed_at > seen)
		seen = w->scope->confirmed_at;
	put(out, ", \"syncedAt\": ");
	put_time(out, seen, nulls[FIND_OBSERVED], &w->synced);
	put(out, ", \"createdAt\": ");
	put_time(out, DatumGetTimestampTz(v[FIND_CREATED]), nulls[FIND_CREATED], &w->created);
	put(out, "}");
}

/* nextAfter behind a record: what _flohsync.page_mark makes where there is no total to be carried along. */
static void
put_mark(StringInfo out, text *last, text *type)
{
	StringInfoData mark;
	char		  *encoded;

	initStringInfo(&mark);
	appendStringInfoChar(&mark, '[');
	escape_json(&mark, text_to_cstring(last));
	appendStringInfoString(&mark, ", ");
	escape_json(&mark, text_to_cstring(type));
	appendStringInfoString(&mark, ", \"\", null]");
	encoded = palloc(CRYPTO_BASE64_SIZE(mark.len));
	crypto_base64_encode(CRYPTO_BASE64URL, mark.data, mark.len, encoded);
	appendStringInfo(out, "\"%s\"", encoded);
}

/* The answer of list_resources, to the same arguments. */
static Datum
read_otherwise(FunctionCallInfo fcinfo)
{
	static DbQuery query = {
		"select flohsync.list_resources($1, nullif($2, ''), $3, $4, $5, $6, $7)::text",
		7,
		{TEXTOID, TEXTOID, TEXTOID, BOOLOID, INT4OID, INT4OID, TEXTOID}};
	Datum		  v[7];
	char		  nulls[8] = "       ";
	MemoryContext caller = CurrentMemoryContext;
	text		 *answer;
	bool		  isnull;

	for (int i = 0; i < 7; i++)
	{
		v[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	SPI_connect();
	db_execute(&query, v, nulls);
	{
		Datum value = db_value(0, 1, &isnull);

		MemoryContextSwitchTo(caller);
		answer = DatumGetTextPCopy(value);
	}
	SPI_finish();
	PG_RETURN_TEXT_P(answer);
}

/* The position that a nextAfter names; false: it is not one of ours, or carries a total. */
static bool
read_mark(text *mark, text *type, text **after)
{
	static DbQuery query = {"select m.external_id from _flohsync.read_page_mark($1, '') m"
							" where m.resource_type = $2 and m.total is null",
							2,
							{TEXTOID, TEXTOID}};
	Datum		   v[2] = {PointerGetDatum(mark), PointerGetDatum(type)};
	bool		   isnull;

	if (db_execute(&query, v, NULL) == 0)
		return false;
	*after = DatumGetTextPCopy(db_value(0, 1, &isnull));
	return true;
}

PG_FUNCTION_INFO_V1(flohsync_api_resources);
PGDLLEXPORT Datum
flohsync_api_resources(PG_FUNCTION_ARGS)
{
	text		  *type;
	text		  *after = NULL;
	int32		   page;
	int32		   size;
	ReadScope	   scope;
	StringInfoData out;
	MemoryContext  caller = CurrentMemoryContext;
	MemoryContext  old;
	Find		   list;
	text		  *last = NULL;
	bool		   more = true;
	int			   n = 0;
	int64		   total;
	RecordWriter   writer;

	/* connector, resource_type, search, stale, page, page_size, after */
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(4) || PG_ARGISNULL(5) ||
		!PG_ARGISNULL(3) || (!PG_ARGISNULL(2) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(2)) > 0))
		return read_otherwise(fcinfo);
	type = PG_GETARG_TEXT_PP(1);
	page = PG_GETARG_INT32(4);
	size = PG_GETARG_INT32(5);
	if (page < 1 || size < 1 || size > LIST_MOST)
		return read_otherwise(fcinfo);

	SPI_connect();
	if (!read_scope(&scope, PG_GETARG_TEXT_PP(0), type) ||
		(!PG_ARGISNULL(6) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(6)) > 0 &&
		 !read_mark(PG_GETARG_TEXT_PP(6), type, &after)))
	{
		SPI_finish();
		return read_otherwise(fcinfo);
	}
	total = find_total(scope.connector, type);
	/* There is no such type, or none can have that name: that is told there. */
	if (total == 0 || !find_list(&list, scope.connector, type, after ? after : cstring_to_text("")))
	{
		SPI_finish();
		return read_otherwise(fcinfo);
	}
	for (int64 passed = after ? 0 : ((int64) page - 1) * size; passed > 0 && more; passed--)
		more = find_next(&list);

	writer_start(&writer, &scope, type);
	/* The answer is made where it is returned. */
	old = MemoryContextSwitchTo(caller);
	initStringInfo(&out);
	enlargeStringInfo(&out, VARHDRSZ + size * LIST_RECORD_BYTES);
	MemoryContextSwitchTo(old);
	out.len = VARHDRSZ;
	put(&out, "{\"data\": [");
	while (more && (more = find_next(&list)) && n < size)
	{
		Datum values[FIND_RECORD_COLUMNS];
		bool  nulls[FIND_RECORD_COLUMNS];

		for (int i = 0; i < FIND_RECORD_COLUMNS; i++)
			values[i] = find_value(&list, i, &nulls[i]);
		if (n++ > 0)
			put(&out, ", ");
		put_record(&out, values, nulls, &writer);
		if (n == size)
			last = DatumGetTextPCopy(values[FIND_EXTERNAL_ID]);
	}
	find_end(&list);
	appendStringInfo(&out,
					 "], \"total\": " INT64_FORMAT
					 ", \"page\": %d, \"pageSize\": %d, \"totalPages\": " INT64_FORMAT
					 ", \"nextAfter\": ",
					 total, page, size, (total + size - 1) / size);
	if (more)
		put_mark(&out, last, type);
	else
		appendStringInfoString(&out, "null");
	appendStringInfoChar(&out, '}');
	SET_VARSIZE(out.data, out.len);
	SPI_finish();
	PG_RETURN_TEXT_P(out.data);
}

/* Of the same text as _flohsync.etag has it. */
static void
answer_etag(const char *data, size_t len)
{
	unsigned char hash[CRYPTO_SHA256_BYTES];
	char		  header[ETAG_DIGITS + 40];
	int			  n;

	if (!crypto_sha256(data, len, hash))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute a digest")));
	n = snprintf(header, sizeof(header), "[{\"ETag\": \"\\\"");
	for (int i = 0; i < ETAG_DIGITS / 2; i++)
		n += snprintf(header + n, sizeof(header) - n, "%02x", hash[i]);
	snprintf(header + n, sizeof(header) - n, "\\\"\"}]");
	(void) set_config_option("response.headers", header, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Says that there is no such record, or connector, or what is wrong with its type. */
static void
no_record(FunctionCallInfo fcinfo)
{
	static DbQuery query = {"select _flohsync.no_resource($1, $2, $3)",
							3,
							{TEXTOID, TEXTOID, TEXTOID}};
	Datum		   v[3];
	char		   nulls[4] = "   ";

	for (int i = 0; i < 3; i++)
	{
		v[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	SPI_connect();
	db_execute(&query, v, nulls);
	elog(ERROR, "_flohsync.no_resource() raised no error");
}

PG_FUNCTION_INFO_V1(flohsync_api_resource);
PGDLLEXPORT Datum
flohsync_api_resource(PG_FUNCTION_ARGS)
{
	ReadScope	   scope;
	StringInfoData out;
	RecordWriter   writer;
	Find		   record;
	Datum		   values[FIND_RECORD_COLUMNS];
	bool		   nulls[FIND_RECORD_COLUMNS];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) ||
		!read_scope(&scope, PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1)) ||
		!find_record(&record, scope.connector, PG_GETARG_TEXT_PP(1), PG_GETARG_TEXT_PP(2)))
		no_record(fcinfo);
	for (int i = 0; i < FIND_RECORD_COLUMNS; i++)
		values[i] = find_value(&record, i, &nulls[i]);
	writer_start(&writer, &scope, PG_GETARG_TEXT_PP(1));
	initStringInfo(&out);
	put_record(&out, values, nulls, &writer);
	find_end(&record);
	answer_etag(out.data, out.len);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
