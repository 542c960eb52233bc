/*
 * outbox.c
 *	  The tables behind the cache, and what is written to them when a record
 *	  changes.
 *
 * Three tables.  cache_state, one row: the Redis server that the cache uses,
 * and a random number (epoch).  cache_epoch: random numbers for a connector and
 * for a type of it.  cache_outbox: invalidations that are committed and not
 * delivered; an empty id means all ids, an empty type all types.
 *
 * A value in Redis is valid only with the epoch of its key, which combines the
 * three numbers and the identity of the database; a new number invalidates all
 * values at once, without asking Redis, and no value can become valid again,
 * whatever dump Redis starts from.
 *
 * Writers only insert into the outbox: an open transaction does not prevent
 * others from invalidating the same key, or everything.  A duplicate key costs a
 * row; it is deleted once.  Only the invalidator changes the numbers.
 *
 * Readers look with a snapshot taken when the read begins (outbox_look): either
 * the key is pending, or all invalidations committed before have been delivered,
 * and a later reply of Redis is valid.  These are scans in C because there
 * is nothing to plan, and because a hit should cost as much as asking Redis.
 *
 * Enabling and disabling: without a server in cache_state nothing is written, so
 * the cache must not be used either.  A writer holds a shared lock while it
 * relies on that (outbox_begin); setting a server takes the lock exclusively, so
 * that all transactions that saw none have ended, and changes the epoch.
 * The timeline of the server is checked as well: the state of a cluster restored
 * to an earlier point does not match Redis.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/db_lock.h"
#include "base/flohsync.h"
#include "base/look.h"
#include "record/outbox.h"
#include "shared/cache.h"

void (*outbox_wake)(void) = NULL;

/* Columns, in the order of sql/70_cache.sql. */
#define STATE_SERVER   2
#define STATE_EPOCH	   3
#define STATE_TIMELINE 4
#define EPOCH_TYPE	   2
#define EPOCH_EPOCH	   3

#define OUTBOX_MAX_AT_ONCE 10000
#define KNOWN			   16
#define KNOWN_NAME		   128

static Oid
outbox_relation(const char *name)
{
	return look_relation(FLOHSYNC_INTERNAL_SCHEMA, name);
}

static void
outbox_open(Look *look, const char *table, const char *index, Snapshot snapshot, int nkeys)
{
	look_open(look, outbox_relation(table), outbox_relation(index), snapshot, nkeys);
}

/*
 * outbox_find_connector looks a connector up by its name.  False: there is none
 * of the name; it may be an id, or a mistake.
 */
bool
outbox_find_connector(const char *connector, int len, pg_uuid_t *id)
{
	Look		look;
	ScanKeyData key;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		isnull;
	bool		found;

	look_open(&look, look_relation(FLOHSYNC_SCHEMA, "connector_definition"),
			  look_relation(FLOHSYNC_SCHEMA, "connector_definition_name_key"), snapshot, 1);
	look_text_key(&key, &look, 1, PointerGetDatum(cstring_to_text_with_len(connector, len)));
	index_rescan(look.scan, &key, 1, NULL, 0);
	found = look_next(&look);
	if (found)
		*id = *DatumGetUUIDP(look_value(&look, 1, &isnull));
	look_close(&look);
	UnregisterSnapshot(snapshot);
	return found;
}

/* Is there a row in the outbox for this key? */
static bool
look_pending(Look *look, const pg_uuid_t *connector, Datum type, Datum external_id)
{
	ScanKeyData keys[3];

	look_uuid_key(&keys[0], 1, connector);
	look_text_key(&keys[1], look, 2, type);
	look_text_key(&keys[2], look, 3, external_id);
	index_rescan(look->scan, keys, 3, NULL, 0);
	return look_next(look);
}

/* The empty text, which stands for all. */
static Datum
outbox_nothing(void)
{
	return PointerGetDatum(cstring_to_text_with_len("", 0));
}

/*
 * outbox_look tells what counts for a key, of all that is committed now and of our own
 * transaction.
 */
void
outbox_look(const pg_uuid_t *connector, Datum type, Datum external_id, OutboxView *view)
{
	Datum			all = outbox_nothing();
	Snapshot		snapshot = RegisterSnapshot(GetLatestSnapshot());
	Look			look;
	ScanKeyData		key;
	Relation		state;
	TableScanDesc	scan;
	TupleTableSlot *slot;
	bool			isnull;

	memset(view, 0, sizeof(*view));

	state = table_open(outbox_relation("cache_state"), AccessShareLock);
	slot = table_slot_create(state, NULL);
	scan = table_beginscan(state, snapshot, 0, NULL);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Datum server = slot_getattr(slot, STATE_SERVER, &isnull);

		if (!isnull && !RecoveryInProgress() &&
			DatumGetInt32(slot_getattr(slot, STATE_TIMELINE, &isnull)) == (int32) compat_timeline())
		{
			view->server = (uint64) DatumGetInt64(server);
			view->epoch = (uint64) DatumGetInt64(slot_getattr(slot, STATE_EPOCH, &isnull));
		}
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(state, AccessShareLock);

	if (view->server != 0)
	{
		text *wanted = DatumGetTextPP(type);

		outbox_open(&look, "cache_epoch", "cache_epoch_pkey", snapshot, 1);
		look_uuid_key(&key, 1, connector);
		index_rescan(look.scan, &key, 1, NULL, 0);
		while (look_next(&look))
		{
			text *found = DatumGetTextPP(look_value(&look, EPOCH_TYPE, &isnull));

			if (VARSIZE_ANY_EXHDR(found) == 0 ||
				(VARSIZE_ANY_EXHDR(found) == VARSIZE_ANY_EXHDR(wanted) &&
				 memcmp(VARDATA_ANY(found), VARDATA_ANY(wanted), VARSIZE_ANY_EXHDR(wanted)) == 0))
				view->epoch ^= (uint64) DatumGetInt64(look_value(&look, EPOCH_EPOCH, &isnull));
		}
		look_close(&look);

		outbox_open(&look, "cache_outbox", "cache_outbox_pkey", snapshot, 3);
		view->pending = look_pending(&look, connector, type, external_id) ||
			look_pending(&look, connector, type, all) || look_pending(&look, connector, all, all);
		look_close(&look);
		/* A copy of a database has the same numbers, and the same connectors. */
		view->epoch = hash_combine64(view->epoch,
									 hash_combine64(GetSystemIdentifier(), MyDatabaseId));
	}
	UnregisterSnapshot(snapshot);
}

/*
 * What this process knows of a connector and type, as of so many writes.  While
 * there were no more and the outbox is empty, the tables need not be asked.
 */
typedef struct Known
{
	uint64	   writes; /* 0: nothing is known */
	int		   name_len;
	int		   type_len;
	char	   name[KNOWN_NAME];
	char	   type[FLOHSYNC_MAX_TYPE_BYTES];
	pg_uuid_t  connector;
	OutboxView view;
} Known;

static Known known[KNOWN];

static Known *
known_find(const text *name, const text *type)
{
	for (int i = 0; i < KNOWN; i++)
		if (known[i].writes != 0 && known[i].name_len == VARSIZE_ANY_EXHDR(name) &&
			known[i].type_len == VARSIZE_ANY_EXHDR(type) &&
			memcmp(known[i].name, VARDATA_ANY(name), known[i].name_len) == 0 &&
			memcmp(known[i].type, VARDATA_ANY(type), known[i].type_len) == 0)
			return &known[i];
	return NULL;
}

/*
 * outbox_known_connector: what was known as of so many writes; false when the tables must be
 * asked.
 */
bool
outbox_known_connector(Datum name, Datum type, uint64 writes, pg_uuid_t *connector)
{
	Known *k = known_find(DatumGetTextPP(name), DatumGetTextPP(type));

	if (k == NULL || k->writes != writes)
		return false;
	*connector = k->connector;
	return true;
}

/*
 * outbox_view_memoized tells what counts for any key of a connector, called by this
 * name, and type, if that is known.
 */
bool
outbox_view_memoized(Datum name, const pg_uuid_t *connector, Datum type, OutboxView *view)
{
	uint64 writes = shmem_cache_writes();
	Known *k;

	if (!shmem_cache_is_clean(writes))
		return false;
	k = known_find(DatumGetTextPP(name), DatumGetTextPP(type));
	if (k == NULL || k->writes != writes || memcmp(&k->connector, connector, UUID_LEN) != 0)
		return false;
	*view = k->view;
	return true;
}

/* outbox_view_and_memoize looks, and remembers; writes are from before the name was looked up. */
void
outbox_view_and_memoize(Datum name, uint64 writes, const pg_uuid_t *connector, Datum type,
						Datum external_id, OutboxView *view)
{
	static int next = 0;
	text	  *n = DatumGetTextPP(name);
	text	  *t = DatumGetTextPP(type);
	Known	  *k;

	outbox_look(connector, type, external_id, view);
	if (writes == 0 || view->server == 0 || VARSIZE_ANY_EXHDR(n) > KNOWN_NAME ||
		VARSIZE_ANY_EXHDR(t) > FLOHSYNC_MAX_TYPE_BYTES)
		return;
	k = known_find(n, t);
	if (k == NULL)
	{
		k = &known[next];
		next = (next + 1) % KNOWN;
	}
	k->writes = writes;
	k->name_len = VARSIZE_ANY_EXHDR(n);
	k->type_len = VARSIZE_ANY_EXHDR(t);
	memcpy(k->name, VARDATA_ANY(n), k->name_len);
	memcpy(k->type, VARDATA_ANY(t), k->type_len);
	k->connector = *connector;
	k->view = *view;
	k->view.pending = false;
}

/* Writers */

static bool outbox_in_flight = false;

/* Must not raise. */
static void
outbox_at_end(XactEvent event, void *arg)
{
	/* A prepared transaction is in flight for ever: see shared/cache.c. */
	if (outbox_in_flight && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT))
		shmem_cache_write_end();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		outbox_in_flight = false;
}

/* outbox_touch: our transaction changes what readers may know.  To be called before it does. */
void
outbox_touch(void)
{
	static bool registered = false;

	if (outbox_in_flight)
		return;
	if (!registered)
	{
		RegisterXactCallback(outbox_at_end, NULL);
		registered = true;
	}
	outbox_in_flight = true;
	shmem_cache_write_begin();
}

/* The last transaction of this session that relied on the absence of a cache. */
static LocalTransactionId outbox_without = InvalidLocalTransactionId;

/*
 * outbox_begin: is there a cache, so that changes must be noted?  Holds until
 * the transaction ends.
 */
bool
outbox_begin(void)
{
	pg_uuid_t  nobody = {{0}};
	OutboxView view;

	db_lock_wait(DB_LOCK_CACHE, CACHE_LOCK_STATE, true);
	/* Not before we have the lock. */
	outbox_look(&nobody, outbox_nothing(), outbox_nothing(), &view);
	if (view.server == 0)
		outbox_without = compat_local_transaction();
	return view.server != 0;
}

/* outbox_blocks_activation: our own transaction is one of those that a switch-on must wait for. */
bool
outbox_blocks_activation(void)
{
	return outbox_without != InvalidLocalTransactionId &&
		outbox_without == compat_local_transaction();
}

static void
outbox_wake_later(void)
{
	if (outbox_wake)
		outbox_wake();
}

/*
 * outbox_add has the ids, a text[], of a type invalidated after commit.  More
 * than a few thousand are not worth a row each.  SPI must be connected.
 */
void
outbox_add(Datum connector, Datum type, Datum ids)
{
	static DbQuery query = {
		"insert into _flohsync.cache_outbox (connector_id, resource_type, external_id)"
		" select $1, $2, u.id from unnest($3) u(id) where u.id is not null and u.id <> ''",
		3,
		{UUIDOID, TEXTOID, TEXTARRAYOID}};
	Datum	   v[3] = {connector, type, ids};
	ArrayType *array = DatumGetArrayTypeP(ids);
	int		   n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

	if (n > OUTBOX_MAX_AT_ONCE)
	{
		outbox_add_all(connector, type);
		return;
	}
	if (n == 0 || !outbox_begin())
		return;
	outbox_touch();
	if (db_execute(&query, v, NULL) > 0)
		outbox_wake_later();
}

/*
 * outbox_add_all has all of a type, or with an empty type all of a connector, invalidated
 * after commit.
 */
void
outbox_add_all(Datum connector, Datum type)
{
	static DbQuery query = {
		"insert into _flohsync.cache_outbox (connector_id, resource_type) values ($1, $2)",
		2,
		{UUIDOID, TEXTOID}};
	Datum v[2] = {connector, type};

	if (!outbox_begin())
		return;
	outbox_touch();
	db_execute(&query, v, NULL);
	outbox_wake_later();
}
