/*
 * cron_next.c
 *	  The next instant that a schedule names in a time zone.
 *
 * Searching goes stretch by stretch, a stretch being the time between two
 * changes of the zone's offset from UTC; inside one, local time and real time
 * run alike, so the search itself knows nothing of zones.  What happens at a
 * change depends on the hour field:
 *
 * - every hour named: the wall clock decides.  A schedule that runs each
 *	 quarter of an hour does so through both changes.
 * - otherwise a local time names one run.  Times the change skips run late by
 *	 as much as the clock went forward (02:30 at 03:30); times the change
 *	 repeats run when they first come.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone_time.h"
#else
#include "postgres.h"

#include "utils/datetime.h"
#endif

#include "base/cron_private.h"
#include "port/pg_bitutils.h"

/* The first member of set at or after from, or -1. */
static int
cron_next_member(uint64 set, int from)
{
	set &= PG_UINT64_MAX << from;
	return set == 0 ? -1 : pg_rightmost_one_pos64(set);
}

/* Moves *second, of a day, to the first one named at or after it. */
static bool
cron_next_in_day(const CronSchedule *schedule, int *second)
{
	const uint64 *sets = schedule->sets;
	int			  from_h = *second / SECS_PER_HOUR;
	int			  from_m = *second / SECS_PER_MINUTE % MINS_PER_HOUR;
	int			  h = cron_next_member(sets[CRON_HOUR], from_h);
	int			  m = -1;
	int			  s = -1;

	if (h == from_h)
	{
		m = cron_next_member(sets[CRON_MINUTE], from_m);
		if (m == from_m)
		{
			s = cron_next_member(sets[CRON_SECOND], *second % SECS_PER_MINUTE);
			if (s < 0)
				m = cron_next_member(sets[CRON_MINUTE], from_m + 1);
		}
		if (m < 0)
			h = cron_next_member(sets[CRON_HOUR], from_h + 1);
	}
	if (h < 0)
		return false;
	if (m < 0)
		m = cron_next_member(sets[CRON_MINUTE], 0);
	if (s < 0)
		s = cron_next_member(sets[CRON_SECOND], 0);
	*second = h * SECS_PER_HOUR + m * SECS_PER_MINUTE + s;
	return true;
}

static bool
cron_day_matches(const CronSchedule *schedule, int jdate)
{
	int	  year;
	int	  month;
	int	  day;
	int	  last;
	uint8 weeks;
	bool  by_day;
	bool  by_weekday;

	j2date(jdate, &year, &month, &day);
	if ((schedule->sets[CRON_MONTH] & (UINT64CONST(1) << month)) == 0)
		return false;

	last = day_tab[isleap(year)][month - 1];
	by_day = (schedule->sets[CRON_DAY] & (UINT64CONST(1) << day)) != 0 ||
		(schedule->last_day && day == last);
	weeks = schedule->weeks[j2day(jdate)];
	by_weekday = (weeks & CRON_WEEK((day - 1) / CRON_WEEKDAYS + 1)) != 0 ||
		((weeks & CRON_WEEK_LAST) != 0 && day > last - CRON_WEEKDAYS);

	if (schedule->any_day || schedule->any_weekday)
		return by_day && by_weekday;
	return by_day || by_weekday;
}

/*
 * The first local time named in [from, limit), as seconds since 1970-01-01
 * 00:00 on the wall clock; limit when there is none.
 */
static int64
cron_next_local(const CronSchedule *schedule, int64 from, int64 limit)
{
	int64 day = from / SECS_PER_DAY;
	int	  second = (int) (from % SECS_PER_DAY);

	if (second < 0)
	{
		second += SECS_PER_DAY;
		day--;
	}
	for (; day * SECS_PER_DAY < limit; day++, second = 0)
	{
		if (cron_day_matches(schedule, (int) day + UNIX_EPOCH_JDATE) &&
			cron_next_in_day(schedule, &second))
			return Min(day * SECS_PER_DAY + second, limit);
	}
	return limit;
}

bool
cron_next(const CronSchedule *schedule, TimestampTz after, pg_tz *zone, TimestampTz *next)
{
	bool	 wall_clock = schedule->sets[CRON_HOUR] == CRON_EVERY_HOUR;
	int64	 start;
	int64	 horizon;
	int64	 stretch;
	int64	 end;
	long int before = 0; /* offset of the stretch before this one */
	long int offset;

	if (TIMESTAMP_NOT_FINITE(after) || !IS_VALID_TIMESTAMP(after))
		return false;

	if (schedule->interval > 0)
	{
		*next = after + schedule->interval * USECS_PER_SEC;
		return IS_VALID_TIMESTAMP(*next);
	}

	/* Whole seconds since 1970, the first after "after". */
	start = after / USECS_PER_SEC + CRON_EPOCH_SHIFT;
	if (after >= 0 || after % USECS_PER_SEC == 0)
		start++;

	/* Leave room to look back, and for an offset, at the ends of the calendar. */
	if (start - 2 * CRON_MAX_CHANGE < MIN_TIMESTAMP / USECS_PER_SEC + CRON_EPOCH_SHIFT)
		return false;
	horizon = Min(start + CRON_HORIZON,
				  END_TIMESTAMP / USECS_PER_SEC + CRON_EPOCH_SHIFT - CRON_MAX_CHANGE);

	/* Begin early enough to see a change whose effects last until start. */
	for (stretch = start - CRON_MAX_CHANGE; stretch < horizon; stretch = end, before = offset)
	{
		pg_time_t boundary;
		long int  unused_offset;
		int		  unused_dst;
		int64	  from = Max(start, stretch);
		int64	  found;
		int		  more;

		more = pg_next_dst_boundary(&stretch, &offset, &unused_dst, &boundary, &unused_offset,
									&unused_dst, zone);
		if (more < 0)
			return false;
		end = more > 0 ? Min(boundary, horizon) : horizon;
		if (stretch == start - CRON_MAX_CHANGE)
			before = offset;
		if (end <= start)
			continue;

		if (wall_clock || before <= offset)
			found = cron_next_local(schedule, from + offset, end + offset) - offset;
		else
			found = cron_next_local(schedule, Max(from + offset, stretch + before), end + offset) -
				offset;

		if (!wall_clock && before < offset && from < stretch + (offset - before))
		{
			int64 late_end = Min(end, stretch + (offset - before));
			int64 late;

			late = cron_next_local(schedule, from + before, late_end + before) - before;
			if (late < late_end)
				found = Min(found, late);
		}

		if (found < end)
		{
			*next = (found - CRON_EPOCH_SHIFT) * USECS_PER_SEC;
			return true;
		}
	}
	return false;
}
