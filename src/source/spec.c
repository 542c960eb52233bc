/*
 * spec.c
 *	  What source_open needs to know of a connector, from the tables.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_value.h"
#include "source/secret_store.h"
#include "source/spec.h"

/* What of the config is not as the kind needs it, whoever wrote it; NULL: nothing. */
static const char *
spec_config_problem(const SourceSpec *spec)
{
	if (spec->config == NULL)
		return "it is not JSON";
	return spec->kind->check ? spec->kind->check(spec->config) : NULL;
}

/*
 * source_read_spec is what source_open needs for a type of a connector,
 * whatever is wanted of it; false when there is no such connector.  Raises when
 * its kind is not known or its config cannot be used.  The caller has a
 * transaction open, and sets in_transaction and page_size.
 */
bool
source_read_spec(const char *connector_id, const char *resource_type, SourceSpec *spec,
				 MemoryContext context)
{
	static DbQuery query = {
		"select d.kind, d.config::pg_catalog.text, d.definition::pg_catalog.text"
		" from flohsync.connector_definition d where d.id = $1::pg_catalog.uuid",
		1,
		{TEXTOID}};
	Datum		  v = CStringGetTextDatum(connector_id);
	const char	 *problem;
	MemoryContext old;

	memset(spec, 0, sizeof(*spec));
	if (db_execute(&query, &v, NULL) == 0)
		return false;
	spec->kind = source_kind(db_text(0, 1));
	old = MemoryContextSwitchTo(context);
	spec->config = source_config(db_get_text(0, 2, context));
	MemoryContextSwitchTo(old);
	problem = spec_config_problem(spec);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the connector's config cannot be used: %s", clean(problem))));
	spec->definition = db_get_text(0, 3, context);
	spec->connector_id = MemoryContextStrdup(context, connector_id);
	spec->resource_type = MemoryContextStrdup(context, resource_type);
	secrets_read(DirectFunctionCall1(uuid_in, CStringGetDatum(connector_id)), spec, context);
	return true;
}
