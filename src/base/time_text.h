/*
 * time_text.h
 *	  Times as others write them.  See time_text.c.
 */
#ifndef FLOHSYNC_TIME_TEXT_H
#define FLOHSYNC_TIME_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "datatype/timestamp.h"

/* Seconds since 1970 of a time of PostgreSQL, rounded down. */
#define TIME_UNIX(at) \
	((at) / USECS_PER_SEC - ((at) % USECS_PER_SEC < 0) + \
	 (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* time_iso reads a time of ISO 8601 (UTC unless it says otherwise). */
extern bool time_iso(const char *text, size_t len, TimestampTz *at);

/* time_unix reads seconds, or milliseconds, since 1970. */
extern bool time_unix(const char *text, size_t len, TimestampTz *at);

/*
 * time_iso_text writes a time as JSON carries it, in UTC with milliseconds; false
 * when it is none of the calendar.  As _flohsync.iso in SQL.
 */
#define TIME_ISO_SIZE 40

extern bool time_iso_text(TimestampTz at, char text[TIME_ISO_SIZE]);

#endif /* FLOHSYNC_TIME_TEXT_H */
