/*
 * cron.c
 *	  Schedules and time zones, callable from SQL.
 *
 * All three functions are to be declared STRICT.
 */
#include "postgres.h"

#include "base/cron.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Bytes of a refused argument that its error message repeats. */
#define SQLFN_CRON_QUOTED 200

PGDLLEXPORT Datum flohsync_cron_next(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum flohsync_cron_problem(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum flohsync_timezone_valid(PG_FUNCTION_ARGS);

static char *
sqlfn_cron_quoted(const char *text)
{
	int len = strlen(text);
	int kept = pg_mbcliplen(text, len, SQLFN_CRON_QUOTED);

	return psprintf("%.*s%s", kept, text, kept < len ? "..." : "");
}

/* The zone of that name, or NULL. */
static pg_tz *
sqlfn_cron_zone(const char *name)
{
	pg_tz *zone = pg_tzset(name);

	return zone != NULL && pg_tz_acceptable(zone) ? zone : NULL;
}

PG_FUNCTION_INFO_V1(flohsync_cron_next);
Datum
flohsync_cron_next(PG_FUNCTION_ARGS)
{
	char		 *schedule_text = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TimestampTz	  after = PG_GETARG_TIMESTAMPTZ(1);
	char		 *zone_name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char		 *problem;
	CronSchedule *schedule = cron_parse(schedule_text, &problem);
	pg_tz		 *zone;
	TimestampTz	  next;

	if (schedule == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid cron schedule \"%s\"", sqlfn_cron_quoted(schedule_text)),
			 errdetail("The %s.", problem),
			 errhint(
				 "Specify minute, hour, day of month, month and day of week, for example \"*/15 * * * *\", or use \"@daily\" or \"30 seconds\".")));

	zone = sqlfn_cron_zone(zone_name);
	if (zone == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("time zone \"%s\" not recognized", sqlfn_cron_quoted(zone_name)),
			 errhint(
				 "Time zones are listed in pg_timezone_names, for example \"Europe/Berlin\".")));

	if (!cron_next(schedule, after, zone, &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/* What is wrong with the schedule; NULL when nothing is. */
PG_FUNCTION_INFO_V1(flohsync_cron_problem);
Datum
flohsync_cron_problem(PG_FUNCTION_ARGS)
{
	char *problem;

	if (cron_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &problem) != NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

PG_FUNCTION_INFO_V1(flohsync_timezone_valid);
Datum
flohsync_timezone_valid(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(sqlfn_cron_zone(text_to_cstring(PG_GETARG_TEXT_PP(0))) != NULL);
}
