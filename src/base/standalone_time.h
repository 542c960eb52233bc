/*
 * standalone_time.h
 *	  The same for the backend's calendar (utils/datetime.h), which cron.c and
 *	  webhook/verify.c need.  Time zones are whatever the program makes of pg_tz.
 */
#ifndef FLOHSYNC_STANDALONE_TIME_H
#define FLOHSYNC_STANDALONE_TIME_H

#include "base/standalone.h"

#include "datatype/timestamp.h"

#define isleap(y) (((y) % 4) == 0 && (((y) % 100) != 0 || ((y) % 400) == 0))

/* clang-format off */
static const int day_tab[2][13] = {
	{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0},
	{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0}
};
/* clang-format on */

/*
 * Days since 1 March of the year 0, of the proleptic Gregorian calendar; every 400 years are
 * alike.
 */
#define STANDALONE_JULIAN_MARCH_0	 1721120
#define STANDALONE_DAYS_OF_400_YEARS 146097

static inline int
date2j(int year, int month, int day)
{
	int y = month > 2 ? year : year - 1;
	int m = month > 2 ? month - 3 : month + 9;
	int era = (y >= 0 ? y : y - 399) / 400;

	y -= era * 400;
	return STANDALONE_JULIAN_MARCH_0 + era * STANDALONE_DAYS_OF_400_YEARS + y * 365 + y / 4 -
		y / 100 + (153 * m + 2) / 5 + day - 1;
}

static inline void
j2date(int jd, int *year, int *month, int *day)
{
	int d = jd - STANDALONE_JULIAN_MARCH_0;
	int era = (d >= 0 ? d : d - (STANDALONE_DAYS_OF_400_YEARS - 1)) / STANDALONE_DAYS_OF_400_YEARS;
	int y, m;

	d -= era * STANDALONE_DAYS_OF_400_YEARS;
	y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
	d -= 365 * y + y / 4 - y / 100;
	m = (5 * d + 2) / 153;
	*day = d - (153 * m + 2) / 5 + 1;
	*month = m < 10 ? m + 3 : m - 9;
	*year = y + era * 400 + (*month <= 2);
}

/* 0 is Sunday. */
static inline int
j2day(int jd)
{
	int day = (jd + 1) % 7;

	return day < 0 ? day + 7 : day;
}

#endif /* FLOHSYNC_STANDALONE_TIME_H */
