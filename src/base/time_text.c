/*
 * time_text.c
 *	  Times as others write them: ISO 8601, and seconds since 1970.
 *
 * PostgreSQL's own input function takes far more, by the settings of the
 * session, and raises errors; what comes from outside is read the same way in
 * every session, and what is no time is an answer, not an error.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone_time.h"
#else
#include "postgres.h"

#include "base/compat.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"
#endif

#include "base/time_text.h"

typedef struct Rest
{
	const char *data;
	size_t		len;
} Rest;

bool
time_unix(const char *text, size_t len, TimestampTz *at)
{
	int64 n = 0;

	if (len == 0 || len > 14)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n * 10 + (text[i] - '0');
	}
	/* As seconds this would be the year 5138. */
	n = n >= INT64CONST(100000000000) ? n * 1000 : n * USECS_PER_SEC;
	*at = n - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	return true;
}

/* Reads so many digits. */
static bool
time_digits(Rest *rest, int count, int min, int max, int *value)
{
	if (rest->len < (size_t) count)
		return false;
	*value = 0;
	for (int i = 0; i < count; i++)
	{
		if (rest->data[i] < '0' || rest->data[i] > '9')
			return false;
		*value = *value * 10 + (rest->data[i] - '0');
	}
	rest->data += count;
	rest->len -= count;
	return *value >= min && *value <= max;
}

static bool
time_char(Rest *rest, const char *any)
{
	if (rest->len == 0 || strchr(any, rest->data[0]) == NULL || rest->data[0] == '\0')
		return false;
	rest->data++;
	rest->len--;
	return true;
}

bool
time_iso(const char *text, size_t len, TimestampTz *at)
{
	Rest  rest = {text, len};
	int	  year, month, day, hour, minute, second = 0, zone_hour = 0, zone_minute = 0;
	int64 fraction = 0;
	int64 unit = USECS_PER_SEC / 10;
	int	  sign = 0;

	if (!time_digits(&rest, 4, 1, 9999, &year) || !time_char(&rest, "-") ||
		!time_digits(&rest, 2, 1, 12, &month) || !time_char(&rest, "-") ||
		!time_digits(&rest, 2, 1, 31, &day) || day > day_tab[isleap(year)][month - 1] ||
		!time_char(&rest, "Tt ") || !time_digits(&rest, 2, 0, 23, &hour) ||
		!time_char(&rest, ":") || !time_digits(&rest, 2, 0, 59, &minute))
		return false;
	if (time_char(&rest, ":"))
	{
		if (!time_digits(&rest, 2, 0, 60, &second))
			return false;
		if (time_char(&rest, ".,"))
		{
			int digit;

			if (!time_digits(&rest, 1, 0, 9, &digit))
				return false;
			do
			{
				fraction += digit * unit;
				unit /= 10;
			} while (rest.len > 0 && rest.data[0] >= '0' && rest.data[0] <= '9' &&
					 time_digits(&rest, 1, 0, 9, &digit));
		}
	}
	if (!time_char(&rest, "Zz") && rest.len > 0)
	{
		sign = rest.data[0] == '-' ? -1 : 1;
		if (!time_char(&rest, "+-") || !time_digits(&rest, 2, 0, 15, &zone_hour))
			return false;
		(void) time_char(&rest, ":");
		if (rest.len > 0 && !time_digits(&rest, 2, 0, 59, &zone_minute))
			return false;
	}
	if (rest.len > 0)
		return false;
	*at = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY +
		((int64) (hour * 60 + minute) * 60 + second) * USECS_PER_SEC + fraction -
		sign * (int64) (zone_hour * 60 + zone_minute) * 60 * USECS_PER_SEC;
	return true;
}

#ifndef FLOHSYNC_STANDALONE
static char *
put_digits(char *to, int value, int digits, char behind)
{
	for (int i = digits - 1; i >= 0; i--)
	{
		to[i] = '0' + value % 10;
		value /= 10;
	}
	to[digits] = behind;
	return to + digits + 1;
}

bool
time_iso_text(TimestampTz at, char text[TIME_ISO_SIZE])
{
	struct pg_tm tm;
	fsec_t		 fsec;

	/* Without a zone: what is stored is UTC. */
	if (TIMESTAMP_NOT_FINITE(at) || timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0 ||
		tm.tm_year < 1)
		return false;
	if (tm.tm_year > 9999)
		snprintf(text, TIME_ISO_SIZE, "%d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year, tm.tm_mon,
				 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int) (fsec / 1000));
	else
	{
		char *p = text;

		p = put_digits(p, tm.tm_year, 4, '-');
		p = put_digits(p, tm.tm_mon, 2, '-');
		p = put_digits(p, tm.tm_mday, 2, 'T');
		p = put_digits(p, tm.tm_hour, 2, ':');
		p = put_digits(p, tm.tm_min, 2, ':');
		p = put_digits(p, tm.tm_sec, 2, '.');
		p = put_digits(p, (int) (fsec / 1000), 3, 'Z');
		*p = '\0';
	}
	return true;
}
#endif
