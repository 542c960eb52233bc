/*
 * cache_fetch.c
 *	  Where cache_get_or_fetch gets a record that is not in the cache.
 *
 * From the caller's function, run with the caller's rights; else from the
 * upstream, if it can be asked for one record; else from the synced records.
 * Whatever it is, it sees what is committed now: a snapshot taken before the
 * lease could show what an invalidation, delivered before the lease, was about.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/bytes.h"
#include "base/clean.h"
#include "base/db.h"
#include "base/run_as.h"
#include "entry/cache.h"
#include "page/page.h"
#include "source/spec.h"

static Oid
function_owner(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid		  owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* fetch_check raises unless a function is one that can fetch, and the caller may call it. */
void
fetch_check(Oid fetcher)
{
	HeapTuple	 tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fetcher));
	Form_pg_proc proc;
	bool		 good;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", fetcher)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	good = proc->prokind == PROKIND_FUNCTION && !proc->proretset && proc->prorettype == JSONBOID &&
		proc->pronargs == 3 && proc->proargtypes.values[0] == UUIDOID &&
		proc->proargtypes.values[1] == TEXTOID && proc->proargtypes.values[2] == TEXTOID;
	ReleaseSysCache(tuple);
	if (!good)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("%s cannot be a fetcher", format_procedure(fetcher)),
			 errhint(
				 "A fetcher takes (connector uuid, resource_type text, external_id text) and returns jsonb.")));
	if (!compat_may_execute(fetcher, run_as_caller()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(fetcher));
}

/*
 * A superuser's rights are lent to code that is a superuser's, which they could
 * call themselves; other code gets none that its owner has not (run_as.c).
 */
static Jsonb *
fetch_by_function(const CacheKey *key, Oid fetcher)
{
	Oid	  caller = run_as_caller();
	Oid	  code_owner = function_owner(fetcher);
	Oid	  role = superuser_arg(caller) && superuser_arg(code_owner) ? caller :
																	  run_as_role(caller, code_owner);
	Datum args[3] = {UUIDPGetDatum(&key->connector), key->type, key->external_id};
	bool  isnull;
	Datum value = run_as_call(role, fetcher, 3, args, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(value);
}

static void
fetch_member(StringInfo out, const char *key, const Slice *slice)
{
	appendStringInfo(out, ",\"%s\":", key);
	if (slice->data == NULL)
		appendStringInfoString(out, "null");
	else
		escape_json(out, pnstrdup(slice->data, slice->len));
}

static Jsonb *
fetch_to_jsonb(PageParser *parser, const Record *record)
{
	Slice		   attributes = page_stored_attributes(parser, record);
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"externalId\":");
	escape_json(&out, pnstrdup(record->external_id.data, record->external_id.len));
	fetch_member(&out, "displayName", &record->display_name);
	fetch_member(&out, "email", &record->email);
	appendStringInfoString(&out, ",\"attributes\":");
	if (attributes.data == NULL)
		appendStringInfoString(&out, "null");
	else
		appendBinaryStringInfo(&out, attributes.data, attributes.len);
	appendStringInfoChar(&out, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(out.data)));
}

/* The problem is sanitized, or a text of flohsync. */
static void
fetch_failed(const CacheKey *key, ErrorClass error_class, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("could not fetch %s \"%s\": %s", clean(TextDatumGetCString(key->type)),
					clean(TextDatumGetCString(key->external_id)), clean(problem)),
			 error_class ? errdetail("Error class: %s.", error_class_name(error_class)) : 0));
}

/* The record in an upstream's answer; NULL: the upstream has none. */
static Jsonb *
fetch_read_answer(Source *source, const CacheKey *key, SourceAnswer *answer)
{
	char		*id = TextDatumGetCString(key->external_id);
	PageParser	*parser = source_parser(source);
	UpstreamPage page;
	int			 i;

	if (answer->error_class || !source_read(source, parser, answer, &page))
		fetch_failed(key, answer->error_class, answer->message);
	if (page.nrecords == 0 && page.nfaults > 0)
		fetch_failed(key, page.faults[0].error_class, page.faults[0].message);
	if (page.nrecords == 0)
		return NULL;
	i = page_find_id(page.records, page.nrecords, id, strlen(id));
	if (i < 0)
		fetch_failed(key, ERRCLASS_PROTOCOL, "upstream returned a different record");
	return fetch_to_jsonb(parser, &page.records[i]);
}

/* False: the upstream does not support requests for one record. */
static bool
fetch_from_upstream(const CacheKey *key, Jsonb **value)
{
	char *connector = DatumGetCString(
		DirectFunctionCall1(uuid_out, UUIDPGetDatum(&key->connector)));
	SourceSpec spec;
	Source *volatile source = NULL;
	SourceAnswer  answer;
	volatile bool supported = true;
	bool		  found;
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	found = source_read_spec(connector, TextDatumGetCString(key->type), &spec, context);
	SPI_finish();
	if (!found)
		fetch_failed(key, ERRCLASS_NONE, "the connector no longer exists");
	spec.page_size = 1;
	spec.in_transaction = true;
	PG_TRY();
	{
		source = source_open(&spec);
		source_get(source, TextDatumGetCString(key->external_id), &answer);
		supported = !answer.not_supported;
		if (supported)
			*value = fetch_read_answer(source, key, &answer);
	}
	PG_FINALLY();
	{
		source_close(source);
	}
	PG_END_TRY();
	return supported;
}

static Jsonb *
fetch_synced(const CacheKey *key)
{
	static DbQuery query = {
		"select pg_catalog.jsonb_build_object('externalId', r.external_id, 'displayName',"
		" r.display_name, 'email', r.email, 'attributes', r.attributes)"
		" || case when r.stale_since is null then '{}' else"
		" pg_catalog.jsonb_build_object('staleSince', _flohsync.iso(r.stale_since)) end"
		" from flohsync.resource_record r where r.connector_id = $1 and r.resource_type = $2"
		" and r.external_id = $3",
		3,
		{UUIDOID, TEXTOID, TEXTOID},
		.plan_as = PLAN_BY_INDEX};
	Datum		  v[3] = {UUIDPGetDatum(&key->connector), key->type, key->external_id};
	MemoryContext context = CurrentMemoryContext;
	Jsonb		 *value = NULL;

	SPI_connect();
	if (db_execute(&query, v, NULL) == 1)
	{
		bool		  isnull;
		Datum		  found = db_value(0, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(context);

		value = DatumGetJsonbPCopy(found);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return value;
}

/* fetch_record gets a record from where it comes from. */
Jsonb *
fetch_record(const CacheKey *key, Oid fetcher)
{
	Jsonb *value = NULL;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(fetcher))
		value = fetch_by_function(key, fetcher);
	else if (!fetch_from_upstream(key, &value))
		value = fetch_synced(key);
	PopActiveSnapshot();
	return value;
}
