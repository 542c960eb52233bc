/*
 * fuzz_cron.c
 *	  libFuzzer target: any text as a schedule, in any time zone.
 *
 * What the schedule says is read here once more, by another reader; what it
 * names is looked for second by second.  The input begins with the zone (up to
 * three changes of its offset) and the instant to search from.
 */
#include "base/standalone_time.h"

#include <time.h>

#include "base/cron.h"
#include "keep.h"

jmp_buf *standalone_catch = NULL;

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EPOCH_SHIFT	 ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)
#define LOOK_AT		 (2 * SECS_PER_DAY) /* seconds that are looked at one by one */
#define ZONE_CHANGES 3

/* Offset offsets[i] holds until changes[i]. */
struct pg_tz
{
	int	  n;
	int64 changes[ZONE_CHANGES];
	long  offsets[ZONE_CHANGES + 1];
};

int
pg_next_dst_boundary(const pg_time_t *timep, long int *before_gmtoff, int *before_isdst,
					 pg_time_t *boundary, long int *after_gmtoff, int *after_isdst, const pg_tz *tz)
{
	int i = 0;

	while (i < tz->n && tz->changes[i] <= *timep)
		i++;
	*before_gmtoff = tz->offsets[i];
	*before_isdst = *after_isdst = 0;
	if (i == tz->n)
		return 0;
	*boundary = tz->changes[i];
	*after_gmtoff = tz->offsets[i + 1];
	return 1;
}

/* What a schedule says, by field. */
typedef struct Says
{
	int	 interval;
	bool second[60];
	bool minute[60];
	bool hour[24];
	bool day[32];
	bool last_day;
	bool month[13];
	bool weekday[7][6]; /* by the week of the month, from 1; 0: the last */
	bool any_day;
	bool any_weekday;
	bool wall_clock; /* every hour is named */
} Says;

static bool days_known; /* of this input */

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A number, or a name of three letters. */
static bool
read_value(const char **p, const char *names, int *value, bool *named)
{
	*named = false;
	if (**p >= '0' && **p <= '9')
	{
		for (*value = 0; **p >= '0' && **p <= '9'; (*p)++)
			*value = *value > 100000 ? *value : *value * 10 + (**p - '0');
		return true;
	}
	for (int i = 0; names && names[3 * i]; i++)
		if (strncasecmp(*p, names + 3 * i, 3) == 0)
		{
			*p += 3;
			*value = i;
			*named = true;
			return true;
		}
	return false;
}

/* One item of a list; false when it is none. */
static bool
read_item(Says *says, int field, const char *p)
{
	static const int		 lows[] = {0, 0, 0, 1, 1, 0};
	static const int		 highs[] = {59, 59, 23, 31, 12, 7};
	static const char *const names[] = {
		NULL, NULL, NULL, NULL, "@@@janfebmaraprmayjunjulaugsepoctnovdec", "sunmontuewedthufrisat"};
	int	 low = lows[field];
	int	 high = highs[field];
	int	 step = 1;
	int	 week = -1;
	bool range = true;
	bool named;

	if (field == 3 && (strcmp(p, "L") == 0 || strcmp(p, "$") == 0))
	{
		if (says->last_day)
			return false;
		return says->last_day = true;
	}
	if (*p == '*' || *p == '?')
		p++;
	else
	{
		if (*p == '@' || !read_value(&p, names[field], &low, &named))
			return false;
		high = low;
		range = false;
		if (*p == '-')
		{
			p++;
			range = true;
			if (*p == '@' || !read_value(&p, names[field], &high, &named))
				return false;
			if (field == 5 && named && high == 0)
				high = 7;
		}
		else if (field == 5 && *p == 'L')
		{
			week = 0;
			p++;
		}
		else if (field == 5 && *p == '#')
		{
			p++;
			if (!read_value(&p, NULL, &week, &named) || week < 1 || week > 5)
				return false;
		}
	}
	if (*p == '/' && week < 0)
	{
		p++;
		if (!read_value(&p, NULL, &step, &named))
			return false;
		if (!range)
			high = highs[field];
	}
	if (*p != '\0' || low < lows[field] || high > highs[field] || low > high || step < 1)
		return false;
	if (field == 5)
	{
		bool days[7] = {0};

		for (int v = low; v <= high; v += step)
			days[v % 7] = true;
		for (int d = 0; d < 7; d++)
			for (int w = 0; w < 6; w++)
			{
				/* All weeks are the first five: the last is one of them. */
				if (!days[d] || (week >= 0 ? w != week : w == 0))
					continue;
				if (says->weekday[d][w])
					return false;
				says->weekday[d][w] = true;
			}
		return true;
	}
	for (int v = low; v <= high; v += step)
	{
		bool *set = field == 0 ? &says->second[v] :
			field == 1		   ? &says->minute[v] :
			field == 2		   ? &says->hour[v] :
			field == 3		   ? &says->day[v] :
								 &says->month[v];

		if (*set)
			return false;
		*set = true;
	}
	return true;
}

static bool
read_schedule(const char *text, Says *says)
{
	static const char *const aliases[][2] = {
		{"@yearly", "0 0 1 1 *"},	  {"@annually", "0 0 1 1 *"},  {"@monthly", "0 0 1 * *"},
		{"@weekly", "0 0 * * 0"},	  {"@daily", "0 0 * * *"},	   {"@midnight", "0 0 * * *"},
		{"@hourly", "0 * * * *"},	  {"@minutely", "* * * * *"},  {"@secondly", "* * * * * *"},
		{"@weekdays", "0 0 * * 1-5"}, {"@weekends", "0 0 * * 0,6"}};
	char		copy[1100];
	char	   *fields[6];
	int			n = 0;
	int			number;
	size_t		len;
	const char *p;
	bool		named;
	bool		some_day = false;

	memset(says, 0, sizeof(*says));
	while (is_space(*text))
		text++;
	len = strlen(text);
	if (len == 0 || len > 1024)
		return false;
	while (is_space(text[len - 1]))
		len--;
	memcpy(copy, text, len);
	copy[len] = '\0';
	p = copy;
	if (read_value(&p, NULL, &number, &named) && is_space(*p))
	{
		while (is_space(*p))
			p++;
		if (strcasecmp(p, "second") == 0 || strcasecmp(p, "seconds") == 0)
		{
			says->interval = number;
			return number >= 1 && number <= 86400;
		}
	}
	if (copy[0] == '@')
	{
		const char *found = NULL;

		for (int i = 0; i < (int) lengthof(aliases); i++)
			if (strcasecmp(copy, aliases[i][0]) == 0)
				found = aliases[i][1];
		if (found == NULL)
			return false;
		strcpy(copy, found);
	}
	for (char *c = copy; *c;)
	{
		if (n == 6)
			return false;
		fields[n++] = c;
		while (*c && !is_space(*c))
			c++;
		while (is_space(*c))
			*c++ = '\0';
	}
	if (n < 5)
		return false;
	says->second[0] = n == 5;
	for (int i = 0; i < n; i++)
	{
		int	 field = i + 6 - n;
		bool any = strcmp(fields[i], "*") == 0 || strcmp(fields[i], "?") == 0;

		if (field == 3)
			says->any_day = any;
		if (field == 5)
			says->any_weekday = any;
		for (char *item = fields[i]; item;)
		{
			char *comma = strchr(item, ',');

			if (comma)
				*comma++ = '\0';
			if (!read_item(says, field, item))
				return false;
			item = comma;
		}
	}
	says->wall_clock = true;
	for (int h = 0; h < 24; h++)
		says->wall_clock &= says->hour[h];
	/* Is there a day at all, in the longest year? */
	for (int m = 1; m <= 12; m++)
		for (int d = 1; d <= day_tab[1][m - 1]; d++)
			some_day |= says->month[m] && says->day[d];
	return some_day || says->last_day || !says->any_weekday;
}

/* Does the schedule name a day, counted from 1970-01-01? */
static bool
names_day(const Says *says, int64 day)
{
	time_t	  t = day * SECS_PER_DAY;
	struct tm tm;
	int		  last;
	bool	  by_day, by_weekday;

	gmtime_r(&t, &tm);
	if (!says->month[tm.tm_mon + 1])
		return false;
	last = day_tab[isleap(tm.tm_year + 1900)][tm.tm_mon];
	by_day = says->day[tm.tm_mday] || (says->last_day && tm.tm_mday == last);
	by_weekday = says->weekday[tm.tm_wday][(tm.tm_mday + 6) / 7] ||
		(says->weekday[tm.tm_wday][0] && tm.tm_mday + 7 > last);
	return says->any_day || says->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* Does it name a local time? */
static bool
names(const Says *says, int64 local)
{
	static int64 known_day;
	static bool	 known;
	int64		 day = local / SECS_PER_DAY - (local % SECS_PER_DAY < 0);
	int			 second = (int) (local - day * SECS_PER_DAY);

	if (!says->second[second % 60] || !says->minute[second / 60 % 60] || !says->hour[second / 3600])
		return false;
	/* Asked for one second after another, for one schedule: see LLVMFuzzerTestOneInput. */
	if (!days_known || day != known_day)
		known = names_day(says, day);
	known_day = day;
	days_known = true;
	return known;
}

/* Does it run at an instant? */
static bool
runs_at(const Says *says, const pg_tz *zone, int64 t)
{
	int i = 0;

	while (i < zone->n && zone->changes[i] <= t)
		i++;
	if (!says->wall_clock && i > 0)
	{
		int64 change = zone->changes[i - 1];
		long  before = zone->offsets[i - 1];
		long  now = zone->offsets[i];

		/* A time that came before the clock was set back has had its run. */
		if (before > now && t + now < change + before)
			return false;
		/* One that was skipped is late. */
		if (before < now && t < change + (now - before) && names(says, t + before))
			return true;
	}
	return names(says, t + zone->offsets[i]);
}

static int64
first_in(const Says *says, const pg_tz *zone, int64 from, int64 until)
{
	for (int64 t = from; t < until; t++)
		/* Offsets are whole minutes here. */
		if (says->second[(t % 60 + 60) % 60] && runs_at(says, zone, t))
			return t;
	return until;
}

static uint32
take(const uint8_t **data, size_t *size, int bytes)
{
	uint32 value = 0;

	for (int i = 0; i<bytes && * size> 0; i++, (*data)++, (*size)--)
		value = value << 8 | **data;
	return value;
}

static void
check_next(const CronSchedule *schedule, const Says *says, pg_tz *zone, TimestampTz after)
{
	/* The first whole second behind it. */
	int64		from = after / USECS_PER_SEC - (after % USECS_PER_SEC < 0) + 1 + EPOCH_SHIFT;
	TimestampTz next = 0;
	TimestampTz again;
	bool		found = cron_next(schedule, after, zone, &next);
	int64		at;

	CHECK(!found || next > after);
	if (says->interval > 0)
	{
		CHECK(found && next == after + says->interval * USECS_PER_SEC);
		return;
	}
	if (!found)
	{
		CHECK(first_in(says, zone, from, from + LOOK_AT) == from + LOOK_AT);
		return;
	}
	CHECK(next % USECS_PER_SEC == 0);
	at = next / USECS_PER_SEC + EPOCH_SHIFT;
	CHECK(runs_at(says, zone, at));
	if (at - from <= 2 * LOOK_AT)
		CHECK(first_in(says, zone, from, at) == at);
	else
	{
		/* Beside both ends, and around each change in between. */
		CHECK(first_in(says, zone, from, from + LOOK_AT) == from + LOOK_AT);
		CHECK(first_in(says, zone, at - LOOK_AT, at) == at);
		for (int i = 0; i < zone->n; i++)
		{
			int64 begin = Max(from, zone->changes[i] - 3600);
			int64 end = Min(at, zone->changes[i] + SECS_PER_DAY);

			CHECK(begin >= end || first_in(says, zone, begin, end) == end);
		}
	}
	/* From anywhere in between it is the same. */
	CHECK(cron_next(schedule, after + (next - after) / 2, zone, &again) && again == next);
	CHECK(cron_next(schedule, next - 1, zone, &again) && again == next);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	pg_tz		  zone = {0};
	Says		  says;
	CronSchedule *schedule;
	char		 *problem;
	char		 *text;
	TimestampTz	  after;

	/* From 1970 to 2106, to the microsecond. */
	after = ((int64) take(&data, &size, 4) - EPOCH_SHIFT) * USECS_PER_SEC;
	after += take(&data, &size, 1) % 3 - 1;
	zone.n = take(&data, &size, 1) % (ZONE_CHANGES + 1);
	zone.offsets[0] = (long) (take(&data, &size, 2) % (27 * 60)) * 60 - 13 * 3600;
	for (int i = 0; i < zone.n; i++)
	{
		/* They are days apart, as real ones are, and the first is near. */
		uint32 apart = take(&data, &size, 3);

		zone.changes[i] = i == 0 ?
			after / USECS_PER_SEC + EPOCH_SHIFT + (int64) (apart % (12 * SECS_PER_DAY)) -
				4 * SECS_PER_DAY :
			zone.changes[i - 1] + 4 * SECS_PER_DAY + apart % (400 * SECS_PER_DAY);
		zone.offsets[i + 1] = (long) (take(&data, &size, 2) % (27 * 60)) * 60 - 13 * 3600;
		if (labs(zone.offsets[i + 1] - zone.offsets[i]) > SECS_PER_DAY)
			zone.offsets[i + 1] = zone.offsets[i];
	}
	text = malloc(size + 1);
	memcpy(text, data, size);
	text[size] = '\0';
	days_known = false;
	keep_begin();
	schedule = cron_parse(text, &problem);
	CHECK((schedule == NULL) == (problem != NULL));
	CHECK((schedule != NULL) == read_schedule(text, &says));
	if (schedule)
		check_next(schedule, &says, &zone, after);
	else
		CHECK(problem[0] != '\0' && problem[strlen(problem) - 1] != '.');
	keep_end();
	free(text);
	return 0;
}
