/*
 * cron_private.h
 *	  What a schedule is made of: for cron.c, which reads one, and cron_next.c.
 */
#ifndef FLOHSYNC_CRON_PRIVATE_H
#define FLOHSYNC_CRON_PRIVATE_H

#include "base/cron.h"

#define CRON_WEEKDAYS	  7
#define CRON_MAX_LENGTH	  1024
#define CRON_MAX_INTERVAL SECS_PER_DAY

/* 29 February falls on a given weekday ("MON#5" of February) after 40 years at most. */
#define CRON_HORIZON (INT64CONST(41) * 366 * SECS_PER_DAY)

/* No change of offset is larger than this. */
#define CRON_MAX_CHANGE (INT64CONST(2) * SECS_PER_DAY)

#define CRON_EPOCH_SHIFT ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

#define CRON_EVERY_HOUR ((UINT64CONST(1) << HOURS_PER_DAY) - 1)

/* Weeks of a month: bits 0 to 4 for the first to the fifth, and the last. */
#define CRON_WEEK(n)   (1 << ((n) -1))
#define CRON_WEEK_LAST (1 << 5)
#define CRON_WEEK_ALL  (CRON_WEEK(6) - 1)

typedef enum CronFieldNumber
{
	CRON_SECOND,
	CRON_MINUTE,
	CRON_HOUR,
	CRON_DAY,
	CRON_MONTH,
	CRON_WEEKDAY,
	CRON_FIELDS
} CronFieldNumber;

struct CronSchedule
{
	int	   interval;			 /* seconds; the rest is unused when not 0 */
	uint64 sets[CRON_WEEKDAY];	 /* seconds to months */
	uint8  weeks[CRON_WEEKDAYS]; /* from Sunday */
	bool   last_day;			 /* "L" in the day of month */
	bool   any_day;				 /* day of month is "*" or "?" */
	bool   any_weekday;
};

#endif /* FLOHSYNC_CRON_PRIVATE_H */
