/*
 * run_error.c
 *	  An error that was raised becomes the end of a run.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "run/state.h"

/* A text of an error that was raised: it may quote an upstream, or a foreign function. */
static char *
run_told(Run *run, const char *text)
{
	return run->source ? source_told(run->source, text, strlen(text), CLEAN_MAX) : clean(text);
}

/*
 * Was it a value that cannot be used, before anything was asked?  Then it is one of those
 * that are stored.
 */
static bool
run_cannot_begin(const Run *run, int sqlerrcode)
{
	return run->source == NULL &&
		(ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
		 ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_PROGRAM_LIMIT_EXCEEDED);
}

/*
 * run_foreign_function is the line of an error's context that names a function of others,
 * such as a trigger's, or NULL.
 */
static const char *
run_foreign_function(const char *context)
{
	for (const char *line = context; line != NULL && *line != '\0';)
	{
		Size		length = strcspn(line, "\n");
		const char *name = strstr(line, " function ");

		if (strncmp(line, "PL/", 3) == 0 && name != NULL && name < line + length)
		{
			name += strlen(" function ");
			if (strncmp(name, FLOHSYNC_SCHEMA ".", strlen(FLOHSYNC_SCHEMA) + 1) == 0 ||
				strncmp(name, FLOHSYNC_INTERNAL_SCHEMA ".", strlen(FLOHSYNC_INTERNAL_SCHEMA) + 1) ==
					0)
				return NULL;
			return pnstrdup(line, length);
		}
		line += length + (line[length] == '\n' ? 1 : 0);
	}
	return NULL;
}

/* Turns an error that was raised into the end of the run. */
void
run_handle_error(Run *run)
{
	ErrorData *edata;

	MemoryContextSwitchTo(run->context);
	edata = CopyErrorData();
	FlushErrorState();
	db_abort();
	run->status = NULL;
	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
		run_fail(run, ERRCLASS_CANCELLED, "run was cancelled");
	else
	{
		const char *message = edata->message ? edata->message : "unknown error";
		const char *detail = edata->detail;

		/* A connector's query does not run with the search_path of its author. */
		if (detail == NULL && edata->sqlerrcode == ERRCODE_UNDEFINED_TABLE && run->source &&
			run->source->own_query)
			detail = "a connector's query must schema-qualify the tables that it names";
		if (detail == NULL)
			detail = run_foreign_function(edata->context);
		run_fail(run,
				 run->memory.exceeded && edata->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED ?
					 ERRCLASS_PAGE_MEMORY :
					 ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INTERNAL_ERROR ?
					 ERRCLASS_INTERNAL :
					 edata->sqlerrcode == ERRCODE_CONFIG_FILE_ERROR ? ERRCLASS_SECRET :
					 run_cannot_begin(run, edata->sqlerrcode)		? ERRCLASS_CONFIGURATION :
																	  ERRCLASS_DATABASE,
				 "%s%s%s", run_told(run, message), detail ? ": " : "",
				 detail ? run_told(run, detail) : "");
		ereport(
			LOG,
			(errmsg("flohsync run " INT64_FORMAT " failed: %s", run->id, run_told(run, message)),
			 edata->context ? errdetail_internal("%s", run_told(run, edata->context)) : 0,
			 edata->hint ? errhint("%s", run_told(run, edata->hint)) : 0, errhidecontext(true)));
	}
}
