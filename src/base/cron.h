/*
 * cron.h
 *	  Cron expressions and the instants they name.  See cron.c.
 */
#ifndef FLOHSYNC_CRON_H
#define FLOHSYNC_CRON_H

#include "datatype/timestamp.h"
#include "pgtime.h"

typedef struct CronSchedule CronSchedule;

/*
 * cron_parse returns a palloc'd schedule, or NULL with *problem set to a
 * palloc'd, lower-case, unpunctuated text that names the field ("minute field
 * \"61\" is out of range 0..59").
 */
extern CronSchedule *cron_parse(const char *text, char **problem);

/*
 * cron_next stores the first instant strictly after "after" that the schedule
 * names in the zone; false when there is none within the search horizon (an
 * impossible date).  Pure: no globals, no clock, no session time zone.
 */
extern bool cron_next(const CronSchedule *schedule, TimestampTz after, pg_tz *zone,
					  TimestampTz *next);

#endif /* FLOHSYNC_CRON_H */
