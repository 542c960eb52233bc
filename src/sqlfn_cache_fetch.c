/*
 * sqlfn_cache_fetch.c
 *	  Where cache_get_or_fetch gets a record that is not in the cache.
 *
 * From the caller's function, run with his rights; else from the upstream, if
 * it can be asked for one record; else from the synced records.  Whatever it
 * is, it sees what is committed now: a snapshot taken before the lease could
 * show what an invalidation, delivered before the lease, was about.
 *
 * A connector's address and the records are read with the rights of the
 * extension's owner; its queries run with the caller's.
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "clean.h"
#include "db.h"
#include "page.h"
#include "sqlfn_cache.h"
#include "store.h"

/* The owner of one of our functions is the owner of the extension. */
void
owner_rights_begin(OwnerRights *rights, Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&rights->user, &rights->context);
	SetUserIdAndSecContext(owner, rights->context | SECURITY_LOCAL_USERID_CHANGE);
	rights->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
owner_rights_end(OwnerRights *rights)
{
	AtEOXact_GUC(false, rights->guc_level);
	SetUserIdAndSecContext(rights->user, rights->context);
}

/* fetch_check raises unless a function is one that can fetch, and the caller may call it. */
void
fetch_check(Oid fetcher)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fetcher));
	Form_pg_proc proc;
	bool		good;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION), errmsg("function with OID %u does not exist", fetcher)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	good = proc->prokind == PROKIND_FUNCTION && !proc->proretset && proc->prorettype == JSONBOID &&
		proc->pronargs == 3 && proc->proargtypes.values[0] == UUIDOID &&
		proc->proargtypes.values[1] == TEXTOID && proc->proargtypes.values[2] == TEXTOID;
	ReleaseSysCache(tuple);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s cannot be a fetcher", format_procedure(fetcher)),
				 errhint("A fetcher takes (connector uuid, resource_type text, external_id text) and returns jsonb.")));
	if (!compat_may_execute(fetcher, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(fetcher));
}

static Jsonb *
fetch_by_function(const CacheKey *key, Oid fetcher)
{
	LOCAL_FCINFO(fcinfo, 3);
	FmgrInfo	function;
	Datum		value;

	fmgr_info(fetcher, &function);
	InitFunctionCallInfoData(*fcinfo, &function, 3, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = UUIDPGetDatum(&key->connector);
	fcinfo->args[1].value = key->type;
	fcinfo->args[2].value = key->external_id;
	for (int i = 0; i < 3; i++)
		fcinfo->args[i].isnull = false;
	value = FunctionCallInvoke(fcinfo);
	return fcinfo->isnull ? NULL : DatumGetJsonbPCopy(value);
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
fetch_to_jsonb(const Record *record)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"externalId\":");
	escape_json(&out, pnstrdup(record->external_id.data, record->external_id.len));
	fetch_member(&out, "displayName", &record->display_name);
	fetch_member(&out, "email", &record->email);
	appendStringInfoString(&out, ",\"attributes\":");
	if (record->attributes.data == NULL)
		appendStringInfoString(&out, "null");
	else
		appendBinaryStringInfo(&out, record->attributes.data, record->attributes.len);
	appendStringInfoChar(&out, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(out.data)));
}

/* The problem is fit to be told, or ours. */
static void
fetch_failed(const CacheKey *key, const char *error_class, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("could not fetch %s \"%s\": %s", clean(TextDatumGetCString(key->type)), clean(TextDatumGetCString(key->external_id)),
					clean(problem)),
			 error_class ? errdetail("Error class: %s.", error_class) : 0));
}

/* The record in an upstream's answer; NULL: the upstream has none. */
static Jsonb *
fetch_read_answer(Source *source, const CacheKey *key, SourceAnswer *answer)
{
	char	   *id = TextDatumGetCString(key->external_id);
	UpstreamPage page;
	int			i;

	if (answer->error_class || !source_read_one(source, page_parser_create(NULL, 0), answer, &page))
		fetch_failed(key, answer->error_class, answer->message);
	if (page.nrecords == 0 && page.nfaults > 0)
		fetch_failed(key, page.faults[0].error_class, page.faults[0].message);
	if (page.nrecords == 0)
		return NULL;
	i = page_find_id(page.records, page.nrecords, id, strlen(id));
	if (i < 0)
		fetch_failed(key, "protocol", "upstream answered with another record");
	return fetch_to_jsonb(&page.records[i]);
}

/* False: the upstream cannot be asked for one record. */
static bool
fetch_from_upstream(Oid function, const CacheKey *key, Jsonb **value)
{
	char	   *connector = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&key->connector)));
	SourceSpec	spec;
	OwnerRights rights;
	Source	   *volatile source = NULL;
	SourceAnswer answer;
	volatile bool supported = true;
	bool		found;
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	owner_rights_begin(&rights, function);
	found = store_source_spec(connector, TextDatumGetCString(key->type), &spec, context);
	owner_rights_end(&rights);
	SPI_finish();
	if (!found)
		fetch_failed(key, NULL, "the connector does not exist any more");
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
fetch_synced(Oid function, const CacheKey *key)
{
	static DbQuery query = {
		"select pg_catalog.jsonb_build_object('externalId', r.external_id, 'displayName', r.display_name, 'email', r.email, 'attributes', r.attributes)"
		" || case when r.stale_since is null then '{}' else pg_catalog.jsonb_build_object('staleSince', _flohsync.iso(r.stale_since)) end"
		" from flohsync.resource_record r where r.connector_id = $1 and r.resource_type = $2 and r.external_id = $3",
		3, {UUIDOID, TEXTOID, TEXTOID}, .by_index = true
	};
	Datum		v[3] = {UUIDPGetDatum(&key->connector), key->type, key->external_id};
	MemoryContext context = CurrentMemoryContext;
	OwnerRights rights;
	Jsonb	   *value = NULL;

	SPI_connect();
	owner_rights_begin(&rights, function);
	if (db_execute(&query, v, NULL) == 1)
	{
		bool		isnull;
		Datum		found = db_value(0, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(context);

		value = DatumGetJsonbPCopy(found);
		MemoryContextSwitchTo(old);
	}
	owner_rights_end(&rights);
	SPI_finish();
	return value;
}

/* fetch_record gets a record from where it comes from; function is one of ours. */
Jsonb *
fetch_record(Oid function, const CacheKey *key, Oid fetcher)
{
	Jsonb	   *value = NULL;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(fetcher))
		value = fetch_by_function(key, fetcher);
	else if (!fetch_from_upstream(function, key, &value))
		value = fetch_synced(function, key);
	PopActiveSnapshot();
	return value;
}
