/*
 * cache.c
 *	  SQL-callable: the cache of single records.
 *
 * These read tables with scans of their own (outbox.c) and check no privileges
 * but EXECUTE, which has to be granted.  They are SECURITY
 * DEFINER: what they ask of tables they ask as the owner of these.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "base/guc.h"
#include "base/run_as.h"
#include "base/wait.h"
#include "entry/cache.h"
#include "net/redis.h"
#include "server/worker.h"
#include "shared/cache.h"

#define ACTIVATE_MS		  2000
#define ACTIVATE_AGAIN_MS 5000
#define DELIVER_AGAIN_MS  300

static bool
good_type(const char *type, int len)
{
	if (len < 1 || len > FLOHSYNC_MAX_TYPE_BYTES)
		return false;
	for (int i = 0; i < len; i++)
	{
		char c = type[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		if (!letter && (i == 0 || !((c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-')))
			return false;
	}
	return true;
}

/* The SQL functions that check arguments know what to say; or they find the connector after all. */
static void
ask_sql(FunctionCallInfo fcinfo, DbQuery *query, int argument, pg_uuid_t *id)
{
	Datum v = PG_ARGISNULL(argument) ? (Datum) 0 : PG_GETARG_DATUM(argument);
	bool  isnull;

	SPI_connect();
	db_execute(query, &v, PG_ARGISNULL(argument) ? "n" : NULL);
	if (id)
		*id = *DatumGetUUIDP(db_value(0, 1, &isnull));
	SPI_finish();
}

/* Takes the first three arguments for a key; raises when they are none. */
static void
key_from_arguments(FunctionCallInfo fcinfo, CacheKey *key)
{
	static DbQuery find_connector = {"select _flohsync.connector_id($1)", 1, {TEXTOID}};
	static DbQuery check_type = {"select _flohsync.check_resource_type($1)", 1, {TEXTOID}};
	static DbQuery check_id = {"select _flohsync.check_external_id($1)", 1, {TEXTOID}};
	text		  *connector = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	text		  *type = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	text		  *id = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);

	key->name = PointerGetDatum(connector);
	key->writes = shmem_cache_writes();
	if (connector == NULL || type == NULL ||
		!outbox_known_connector(key->name, PointerGetDatum(type), key->writes, &key->connector))
		if (connector == NULL ||
			!outbox_find_connector(VARDATA_ANY(connector), VARSIZE_ANY_EXHDR(connector),
								   &key->connector))
			ask_sql(fcinfo, &find_connector, 0, &key->connector);
	if (type == NULL || !good_type(VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type)))
		ask_sql(fcinfo, &check_type, 1, NULL);
	if (id == NULL || VARSIZE_ANY_EXHDR(id) == 0 ||
		(VARSIZE_ANY_EXHDR(id) > FLOHSYNC_MAX_NAME_CHARS &&
		 pg_mbstrlen_with_len(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id)) > FLOHSYNC_MAX_NAME_CHARS))
		ask_sql(fcinfo, &check_id, 2, NULL);
	key->type = PointerGetDatum(type);
	key->external_id = PointerGetDatum(id);
	key->text = cache_key_text(&key->connector, type, id, &key->len);
}

/*
 * Has the invalidator note which Redis this is, and waits for that a little:
 * the first who uses a cache, or finds another Redis, should find it working.
 */
static CacheState
activate(const CacheKey *key, OutboxView *view)
{
	static TimestampTz last = 0;
	TimestampTz		   begun = GetCurrentTimestamp();
	long			   pause = 2;

	if (!flohsync_enabled || outbox_blocks_activation())
		return CACHE_BYPASS;
	if (last != 0 && begun >= last && !TimestampDifferenceExceeds(last, begun, ACTIVATE_AGAIN_MS))
	{
		worker_cache_now();
		return CACHE_BYPASS;
	}
	worker_cache_now();
	do
	{
		wait_ms(pause, WAIT_REDIS);
		pause = Min(50, pause * 2);
		outbox_look(&key->connector, key->type, key->external_id, view);
		if (view->server != 0 && view->server == redis_server())
			return view->pending ? CACHE_BYPASS : CACHE_READY;
	} while (!TimestampDifferenceExceeds(begun, GetCurrentTimestamp(), ACTIVATE_MS));
	/* No worker can start, or a transaction keeps it waiting: ask, and do not wait again soon. */
	last = GetCurrentTimestamp();
	return CACHE_BYPASS;
}

/* A row in the outbox needs an invalidator, which may just have failed because Redis refused. */
static void
deliver_soon(void)
{
	static TimestampTz last = 0;
	TimestampTz		   now = GetCurrentTimestamp();

	if (!flohsync_enabled ||
		(last != 0 && now >= last && !TimestampDifferenceExceeds(last, now, DELIVER_AGAIN_MS)))
		return;
	last = now;
	worker_cache_now();
}

static CacheState
enter(const CacheKey *key, OutboxView *view)
{
	CacheState state = cache_enter(key, view);

	if (state == CACHE_INACTIVE)
		state = activate(key, view);
	else if (view->pending)
		deliver_soon();
	if (state == CACHE_BYPASS)
		shmem_cache_count(CACHE_BYPASSED, 1);
	return state;
}

PG_FUNCTION_INFO_V1(flohsync_cache_get);
PGDLLEXPORT Datum
flohsync_cache_get(PG_FUNCTION_ARGS)
{
	CacheKey   key;
	OutboxView view;
	Jsonb	  *value = NULL;

	key_from_arguments(fcinfo, &key);
	if (enter(&key, &view) != CACHE_READY)
		cache_get_denied(&key);
	else if (cache_get(&key, &view, &value) == CACHE_HIT)
		PG_RETURN_JSONB_P(value);
	PG_RETURN_NULL();
}

/* A time to live in milliseconds. */
static int64
ttl_from_argument(FunctionCallInfo fcinfo, int argument)
{
	Interval *ttl;
	double	  ms;

	if (PG_ARGISNULL(argument))
		return flohsync_cache_ttl * INT64CONST(1000);
	ttl = PG_GETARG_INTERVAL_P(argument);
	ms = ttl->time / 1000.0 + (ttl->day + ttl->month * 30.0) * 86400000.0;
	if (ms < 1 || ms > 10 * 365 * 86400000.0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"ttl\": it must be positive and at most ten years")));
	return (int64) ms;
}

PG_FUNCTION_INFO_V1(flohsync_cache_put);
PGDLLEXPORT Datum
flohsync_cache_put(PG_FUNCTION_ARGS)
{
	CacheKey   key;
	OutboxView view;
	int64	   ttl_ms = ttl_from_argument(fcinfo, 4);

	key_from_arguments(fcinfo, &key);
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the value of cache_put() must not be null"),
				 errhint("To remove a record from the cache, call flohsync.cache_invalidate().")));
	if (enter(&key, &view) != CACHE_READY)
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(cache_put(&key, &view, PG_GETARG_JSONB_P(3), ttl_ms));
}

/* Values stored together must not all expire together. */
static int64
spread_ttl(void)
{
	int64  ttl = flohsync_cache_ttl * INT64CONST(1000);
	uint32 random;

	if (!pg_strong_random(&random, sizeof(random)))
		return ttl;
	return ttl - ttl / 10 + (int64) (ttl / 5.0 * (random / 4294967296.0));
}

/*
 * What a caller's own function returns is stored for all readers: only if the caller
 * may execute cache_put, too.
 */
static bool
may_put(void)
{
	Oid types[5] = {TEXTOID, TEXTOID, TEXTOID, JSONBOID, INTERVALOID};
	Oid function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("cache_put"),
								   PointerGetDatum(buildoidvector(types, lengthof(types))),
								   ObjectIdGetDatum(get_namespace_oid(FLOHSYNC_SCHEMA, false)));

	return OidIsValid(function) && compat_may_execute(function, run_as_caller());
}

/* Fetches with a lease, and stores. */
static Jsonb *
fetch_and_store(const CacheKey *key, const OutboxView *view, const CacheLease *lease, Oid fetcher)
{
	Jsonb *volatile value = NULL;
	bool invalidated = false;

	PG_TRY();
	{
		value = fetch_record(key, fetcher);
	}
	PG_CATCH();
	{
		if (lease->held)
			cache_post_give_up(key, lease);
		PG_RE_THROW();
	}
	PG_END_TRY();
	/* The fetcher may have written. */
	if (value != NULL && cache_may_store())
		(void) cache_store(key, view, lease, value, spread_ttl(), &invalidated);
	else if (lease->held)
		cache_give_up(key, lease);
	/* What we have began before that: once more, and whatever happens then is later still. */
	if (invalidated)
		value = fetch_record(key, fetcher);
	return value;
}

PG_FUNCTION_INFO_V1(flohsync_cache_get_or_fetch);
PGDLLEXPORT Datum
flohsync_cache_get_or_fetch(PG_FUNCTION_ARGS)
{
	CacheKey   key;
	OutboxView view;
	CacheLease lease = {.held = false};
	Oid		   fetcher = PG_ARGISNULL(3) ? InvalidOid : PG_GETARG_OID(3);
	Jsonb	  *value = NULL;

	key_from_arguments(fcinfo, &key);
	if (OidIsValid(fetcher))
		fetch_check(fetcher);
	if (enter(&key, &view) == CACHE_READY)
	{
		bool store = cache_may_store() && (!OidIsValid(fetcher) || may_put());

		if (cache_read(&key, &view, &value, store ? &lease : NULL) == CACHE_HIT)
			PG_RETURN_JSONB_P(value);
		if (lease.held || (store && flohsync_cache_without_lease))
			value = fetch_and_store(&key, &view, &lease, fetcher);
		else
			value = fetch_record(&key, fetcher);
	}
	else
		value = fetch_record(&key, fetcher);
	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(value);
}

/* Names and ids of connectors are among what readers remember. */
PG_FUNCTION_INFO_V1(flohsync_connectors_changed);
PGDLLEXPORT Datum
flohsync_connectors_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function connectors_changed() can only be called as a trigger")));
	outbox_touch();
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(flohsync_caching);
PGDLLEXPORT Datum
flohsync_caching(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(outbox_begin());
}

PG_FUNCTION_INFO_V1(flohsync_invalidate);
PGDLLEXPORT Datum
flohsync_invalidate(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_VOID();
	SPI_connect();
	outbox_add(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2));
	SPI_finish();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(flohsync_invalidate_all);
PGDLLEXPORT Datum
flohsync_invalidate_all(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	SPI_connect();
	outbox_add_all(PG_GETARG_DATUM(0),
				   PG_ARGISNULL(1) ? CStringGetTextDatum("") : PG_GETARG_DATUM(1));
	SPI_finish();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(flohsync_cache_metrics);
PGDLLEXPORT Datum
flohsync_cache_metrics(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *family;
		const char *labels;
	} samples[CACHE_COUNTERS] = {
		[CACHE_HITS] = {"flohsync_cache_reads_total", "outcome=\"hit\""},
		[CACHE_MISSES] = {"flohsync_cache_reads_total", "outcome=\"miss\""},
		[CACHE_BYPASSED] = {"flohsync_cache_reads_total", "outcome=\"bypassed\""},
		[CACHE_STORED] = {"flohsync_cache_stores_total", "outcome=\"stored\""},
		[CACHE_REFUSED] = {"flohsync_cache_stores_total", "outcome=\"invalidated\""},
		[CACHE_WAITED] = {"flohsync_cache_waits_total", NULL},
		[CACHE_POISONED] = {"flohsync_cache_poisoned_total", NULL},
		[CACHE_ERRORS] = {"flohsync_cache_errors_total", NULL},
		[CACHE_INVALIDATED] = {"flohsync_cache_invalidations_total", NULL},
		[CACHE_CLEARED] = {"flohsync_cache_clears_total", NULL},
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CacheFigures   figures;

	InitMaterializedSRF(fcinfo, 0);
	if (!shmem_cache_figures(&figures))
		return (Datum) 0;
	for (int i = 0; i < CACHE_COUNTERS + 2; i++)
	{
		Datum v[3];
		bool  nulls[3] = {false, true, false};
		int64 value = i < CACHE_COUNTERS ? (int64) figures.counters[i] :
			i == CACHE_COUNTERS			 ? figures.open :
										   (int64) figures.opened;

		v[0] = CStringGetTextDatum(i < CACHE_COUNTERS	   ? samples[i].family :
									   i == CACHE_COUNTERS ? "flohsync_cache_breaker_open" :
															 "flohsync_cache_breaker_opened_total");
		v[1] = (Datum) 0;
		if (i < CACHE_COUNTERS && samples[i].labels != NULL)
		{
			v[1] = CStringGetTextDatum(samples[i].labels);
			nulls[1] = false;
		}
		v[2] = DirectFunctionCall1(int8_numeric, Int64GetDatum(value));
		tuplestore_putvalues(result->setResult, result->setDesc, v, nulls);
	}
	return (Datum) 0;
}

/* Nobody is asked: what processes know by now. */
PG_FUNCTION_INFO_V1(flohsync_redis_state);
PGDLLEXPORT Datum
flohsync_redis_state(PG_FUNCTION_ARGS)
{
	CacheFigures figures;
	const char	*state = "off";

	if (flohsync_redis_url != NULL && *flohsync_redis_url != '\0')
		state = !shmem_cache_figures(&figures) ? "unknown" : figures.open ? "down" : "up";
	PG_RETURN_TEXT_P(cstring_to_text(state));
}
