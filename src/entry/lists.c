/*
 * lists.c
 *	  SQL-callable: what the code lists once, as rows: kinds of errors and page
 *	  counters.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "base/clean.h"
#include "base/error_class.h"
#include "record/apply.h"

PG_FUNCTION_INFO_V1(flohsync_error_classes);
PGDLLEXPORT Datum
flohsync_error_classes(PG_FUNCTION_ARGS)
{
	static const char *const retries[] = {
		[RETRY_NEVER] = "no",
		[RETRY_SOMETIMES] = "sometimes",
		[RETRY_ALWAYS] = "yes",
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = ERRCLASS_NONE + 1; i < ERRCLASS_END; i++)
	{
		const ErrorClassEntry *entry = &error_class_entries[i];
		Datum				   v[6] = {
							 CStringGetTextDatum(entry->name),			 BoolGetDatum(entry->of_records),
							 CStringGetTextDatum(retries[entry->retry]), BoolGetDatum(entry->schedule_retries),
							 BoolGetDatum(entry->keeps_cursor),			 CStringGetTextDatum(entry->meaning),
		 };
		/* A record that is set aside ends no run. */
		bool none = entry->of_records;
		bool nulls[6] = {false, false, none, none, none, false};

		tuplestore_putvalues(result->setResult, result->setDesc, v, nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(flohsync_error_class);
PGDLLEXPORT Datum
flohsync_error_class(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	for (int i = ERRCLASS_NONE + 1; i < ERRCLASS_END; i++)
		if (strcmp(error_class_entries[i].name, name) == 0)
			PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no error class \"%s\"", clean(name))));
}

#define COUNTER_ROW(name, passed, in_stats, in_metrics, meaning) \
	{#name, passed, in_stats, in_metrics, meaning},

PG_FUNCTION_INFO_V1(flohsync_page_counters);
PGDLLEXPORT Datum
flohsync_page_counters(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *name;
		bool		passed;
		bool		in_stats;
		bool		in_metrics;
		const char *meaning;
	} counters[] = {PAGE_COUNTERS(COUNTER_ROW)};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		   nulls[5] = {false};

	InitMaterializedSRF(fcinfo, 0);
	for (size_t i = 0; i < lengthof(counters); i++)
	{
		Datum v[5] = {
			CStringGetTextDatum(counters[i].name),	  BoolGetDatum(counters[i].passed),
			BoolGetDatum(counters[i].in_stats),		  BoolGetDatum(counters[i].in_metrics),
			CStringGetTextDatum(counters[i].meaning),
		};

		tuplestore_putvalues(result->setResult, result->setDesc, v, nulls);
	}
	return (Datum) 0;
}
