/*
 * parent.c
 *	  The records that a list is made for each of (for_each), read in batches.
 *
 * They are read by id, so that a run can continue after any of them while others
 * change.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/flohsync.h"
#include "rest/rest.h"

#define PARENT_BATCH 200

static void
parent_begin(RestState *state)
{
	if (state->source->spec.in_transaction)
		SPI_connect();
	else
		db_begin("reading the parents of a list");
}

static void
parent_end(RestState *state)
{
	if (state->source->spec.in_transaction)
		SPI_finish();
	else
		db_commit();
}

/* rest_parents_ready: have the parents been synced?  False with the problem noted. */
bool
rest_parents_ready(RestState *state)
{
	static DbQuery query = {
		"select true from flohsync.connector_sync_config c where c.connector_id ="
		" $1::pg_catalog.uuid and c.resource_type = $2"
		" and c.last_full_pass_at is not null",
		2,
		{TEXTOID, TEXTOID}};
	MemoryContext old = CurrentMemoryContext;
	Datum		  v[2];

	/* A test of the connector does not need the parents. */
	if (state->parents_checked || state->source->spec.probe)
		return true;
	parent_begin(state);
	v[0] = CStringGetTextDatum(state->source->spec.connector_id);
	v[1] = CStringGetTextDatum(state->def->parent_type);
	state->parents_checked = db_execute(&query, v, NULL) > 0;
	parent_end(state);
	MemoryContextSwitchTo(old);
	if (!state->parents_checked)
		rest_problem(
			state, ERRCLASS_CONFIGURATION,
			"resource type \"%s\" has had no complete full sync, and its records are what the list is made for",
			state->def->parent_type);
	return state->parents_checked;
}

/* Reads a batch of parents, from an id on or behind it; NULL: from the first. */
static void
parent_read(RestState *state, const char *from, bool behind)
{
	static DbQuery query = {
		"select r.external_id::pg_catalog.text, r.display_name::pg_catalog.text,"
		" r.email::pg_catalog.text,"
		/* A text longer than a URL cannot be used in one. */
		" (select pg_catalog.jsonb_object_agg(k.name, r.attributes -> k.name) from"
		" pg_catalog.unnest($5) k(name)"
		" where pg_catalog.jsonb_typeof(r.attributes -> k.name) in ('string', 'number', 'boolean')"
		" and pg_catalog.octet_length(r.attributes ->> k.name) <= " CppAsString2(
			FLOHSYNC_MAX_LINK_BYTES) ")::pg_catalog.text"
									 " from flohsync.resource_record r"
									 " where r.connector_id = $1::pg_catalog.uuid and"
									 " r.resource_type = $2 and r.stale_since is null"
									 " and ($3 is null or r.external_id > $3 or (not $4 and"
									 " r.external_id = $3))"
									 " order by r.external_id limit 200",
		5,
		{TEXTOID, TEXTOID, TEXTOID, BOOLOID, TEXTARRAYOID},
		.plan_as = PLAN_CUSTOM};
	MemoryContext old = CurrentMemoryContext;
	MemoryContext fresh = AllocSetContextCreate(state->source->context, "flohsync parents",
												ALLOCSET_DEFAULT_SIZES);
	Datum		 *names;
	Datum		  v[5];
	char		  nulls[5] = {' ', ' ', from ? ' ' : 'n', ' ', ' '};
	int			  n;

	parent_begin(state);
	v[0] = CStringGetTextDatum(state->source->spec.connector_id);
	v[1] = CStringGetTextDatum(state->def->parent_type);
	v[2] = from ? CStringGetTextDatum(from) : (Datum) 0;
	v[3] = BoolGetDatum(behind);
	names = palloc(sizeof(Datum) * Max(state->def->nparent_attributes, 1));
	for (int i = 0; i < state->def->nparent_attributes; i++)
		names[i] = CStringGetTextDatum(state->def->parent_attributes[i]);
	v[4] = PointerGetDatum(
		construct_array(names, state->def->nparent_attributes, TEXTOID, -1, false, TYPALIGN_INT));
	n = (int) db_execute(&query, v, nulls);
	state->parents = MemoryContextAllocZero(fresh, sizeof(RestParent) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		char **fields[4] = {&state->parents[i].external_id, &state->parents[i].display_name,
							&state->parents[i].email, &state->parents[i].attributes};

		for (int k = 0; k < 4; k++)
		{
			char *text = db_text(i, k + 1);

			*fields[k] = text ? MemoryContextStrdup(fresh, text) : NULL;
		}
	}
	parent_end(state);
	MemoryContextSwitchTo(old);
	if (state->parent_context)
		MemoryContextDelete(state->parent_context);
	state->parent_context = fresh;
	state->parent_parsed = NULL;
	state->nparents = n;
	state->parent = 0;
	state->more_parents = n == PARENT_BATCH;
}

/* rest_parent_count is how many parents there are. */
int64
rest_parent_count(RestState *state)
{
	static DbQuery query = {
		"select pg_catalog.count(*) from flohsync.resource_record r"
		" where r.connector_id = $1::pg_catalog.uuid and r.resource_type = $2 and"
		" r.stale_since is null",
		2,
		{TEXTOID, TEXTOID}};
	MemoryContext old = CurrentMemoryContext;
	Datum		  v[2];
	int64		  n;

	parent_begin(state);
	v[0] = CStringGetTextDatum(state->source->spec.connector_id);
	v[1] = CStringGetTextDatum(state->def->parent_type);
	db_execute(&query, v, NULL);
	n = db_int64(0, 1, 0);
	parent_end(state);
	MemoryContextSwitchTo(old);
	return n;
}

/*
 * rest_parent_seek goes to the parent with an id, or the next one; false: there is
 * none.  So many are known behind it that requests for their lists can be sent ahead.
 */
bool
rest_parent_seek(RestState *state, const char *from)
{
	if (from && state->parent < state->nparents &&
		strcmp(state->parents[state->parent].external_id, from) == 0 &&
		(!state->more_parents || state->parent + state->source->concurrency - 1 < state->nparents))
		return true;
	parent_read(state, from, false);
	return state->nparents > 0;
}

/* rest_parent_next goes to the next parent; false: there is none. */
bool
rest_parent_next(RestState *state)
{
	if (state->parent + 1 < state->nparents)
	{
		state->parent++;
		return true;
	}
	if (state->more_parents)
	{
		char *last = pstrdup(state->parents[state->nparents - 1].external_id);

		parent_read(state, last, true);
		pfree(last);
		return state->nparents > 0;
	}
	state->parent = state->nparents;
	return false;
}

const RestParent *
rest_parent(const RestState *state)
{
	return state->parent < state->nparents ? &state->parents[state->parent] : NULL;
}
