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
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/bytes.h"
#include "base/clean.h"
#include "base/db.h"
#include "base/run_as.h"
#include "entry/cache.h"
#include "source/one.h"

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
	Oid	  code_owner = run_as_function_owner(fetcher);
	Oid	  role = superuser_arg(caller) && superuser_arg(code_owner) ? caller :
																	  run_as_role(caller, code_owner);
	Datum args[3] = {UUIDPGetDatum(&key->connector), key->type, key->external_id};
	bool  isnull;
	Datum value = run_as_call(role, fetcher, 3, args, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(value);
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

/* False: the upstream does not support requests for one record. */
static bool
fetch_from_upstream(const CacheKey *key, Jsonb **value)
{
	char *connector = DatumGetCString(
		DirectFunctionCall1(uuid_out, UUIDPGetDatum(&key->connector)));
	SourceOne one;

	source_fetch_one(connector, TextDatumGetCString(key->type),
					 TextDatumGetCString(key->external_id), &one);
	if (!one.supported)
		return false;
	if (one.problem)
		fetch_failed(key, one.error_class, one.problem);
	if (one.record)
		*value = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(one.record)));
	return true;
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
