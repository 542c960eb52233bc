/*
 * cron.c
 *	  Cron expressions.
 *
 * A schedule is a bitset per field and, for the day of week, a bitset of the
 * weeks of the month per weekday ("MON#2", "5L"), or a plain interval.
 *
 * Nothing here reads a clock, the session's zone or a global, and nothing is
 * kept between calls.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone_time.h"
#else
#include "postgres.h"

#include "utils/datetime.h"
#endif

#include "base/cron_private.h"
#include "port/pg_bitutils.h"

typedef struct CronField
{
	const char *name;
	int			min;
	int			max;
	const char *names; /* three letters each, the first for value 0 */
} CronField;

static const CronField cron_fields[CRON_FIELDS] = {
	{"second", 0, 59, ""},
	{"minute", 0, 59, ""},
	{"hour", 0, 23, ""},
	{"day-of-month", 1, 31, ""},
	{"month", 1, 12, "---janfebmaraprmayjunjulaugsepoctnovdec"},
	{"day-of-week", 0, 7, "sunmontuewedthufrisat"},
};

/* clang-format off */
static const struct
{
	const char *alias;
	const char *expression;
}			cron_aliases[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
	{"@minutely", "* * * * *"},
	{"@secondly", "* * * * * *"},
	{"@weekdays", "0 0 * * 1-5"},
	{"@weekends", "0 0 * * 0,6"},
};
/* clang-format on */

static bool
cron_is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
cron_read_number(const char **cursor, int *number)
{
	const char *p = *cursor;
	int			value = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		value = Min(value * 10 + (*p - '0'), 10000000);
	if (p == *cursor)
		return false;
	*cursor = p;
	*number = value;
	return true;
}

/* Reads a number or one of the field's names. */
static bool
cron_read_value(const CronField *field, const char **cursor, int *value, bool *named)
{
	*named = false;
	if (cron_read_number(cursor, value))
		return true;
	for (int i = 0; field->names[i] != '\0'; i += 3)
	{
		if (field->names[i] != '-' && pg_strncasecmp(*cursor, field->names + i, 3) == 0)
		{
			*cursor += 3;
			*value = i / 3;
			*named = true;
			return true;
		}
	}
	return false;
}

typedef struct CronItem
{
	int	  low;
	int	  high;
	int	  step;
	uint8 weeks;
} CronItem;

/*
 * What an item says; false when it is malformed, or names a week that there is not, which
 * has a problem of its own.
 */
static bool
cron_read_item(CronFieldNumber number, const char *text, CronItem *item, char **problem)
{
	const CronField *field = &cron_fields[number];
	const char		*p = text;
	bool			 open = true; /* a step from here goes to the end of the field */
	bool			 named;
	int				 week;

	*item = (CronItem){field->min, field->max, 1, CRON_WEEK_ALL};
	if (*p == '*' || *p == '?')
	{
		open = false;
		p++;
	}
	else
	{
		if (!cron_read_value(field, &p, &item->low, &named))
			return false;
		item->high = item->low;
		if (*p == '-')
		{
			open = false;
			p++;
			if (!cron_read_value(field, &p, &item->high, &named))
				return false;
			if (number == CRON_WEEKDAY && named && item->high == 0)
				item->high = CRON_WEEKDAYS; /* "FRI-SUN" */
		}
		else if (number == CRON_WEEKDAY && *p == 'L')
		{
			item->weeks = CRON_WEEK_LAST;
			p++;
		}
		else if (number == CRON_WEEKDAY && *p == '#')
		{
			p++;
			if (!cron_read_number(&p, &week))
				return false;
			if (week < 1 || week > 5)
			{
				*problem = psprintf("%s field \"%s\" names a week out of range 1..5", field->name,
									text);
				return false;
			}
			item->weeks = CRON_WEEK(week);
		}
	}
	if (*p == '/' && item->weeks == CRON_WEEK_ALL)
	{
		p++;
		if (!cron_read_number(&p, &item->step))
			return false;
		if (open)
			item->high = field->max;
	}
	return *p == '\0';
}

/* Adds an item to the schedule; false when it is there already. */
static bool
cron_add_item(CronSchedule *schedule, CronFieldNumber number, const CronItem *item)
{
	uint64 set = 0;
	bool   repeats = false;

	for (int value = item->low; value <= item->high; value += item->step)
		set |= UINT64CONST(1) << (number == CRON_WEEKDAY ? value % CRON_WEEKDAYS : value);
	if (number != CRON_WEEKDAY)
	{
		repeats = (schedule->sets[number] & set) != 0;
		schedule->sets[number] |= set;
		return !repeats;
	}
	for (int day = 0; day < CRON_WEEKDAYS; day++)
	{
		if ((set & (UINT64CONST(1) << day)) == 0)
			continue;
		repeats |= (schedule->weeks[day] & item->weeks) != 0;
		schedule->weeks[day] |= item->weeks;
	}
	return !repeats;
}

/* Adds one member of a field's comma-separated list. */
static bool
cron_parse_item(CronSchedule *schedule, CronFieldNumber number, const char *text, char **problem)
{
	const CronField *field = &cron_fields[number];
	CronItem		 item;
	bool			 added;

	if (number == CRON_DAY && (strcmp(text, "L") == 0 || strcmp(text, "$") == 0))
	{
		added = !schedule->last_day;
		schedule->last_day = true;
	}
	else
	{
		if (!cron_read_item(number, text, &item, problem))
		{
			if (*problem == NULL)
				*problem = psprintf("%s field \"%s\" is not a value, range or step", field->name,
									text);
			return false;
		}
		if (item.low < field->min || item.low > field->max || item.high < field->min ||
			item.high > field->max)
			*problem = psprintf("%s field \"%s\" is out of range %d..%d", field->name, text,
								field->min, field->max);
		else if (item.low > item.high)
			*problem = psprintf("%s field \"%s\" is a range that ends before it starts",
								field->name, text);
		else if (item.step < 1)
			*problem = psprintf("%s field \"%s\" has a step of zero", field->name, text);
		if (*problem != NULL)
			return false;
		added = cron_add_item(schedule, number, &item);
	}
	if (!added)
		*problem = psprintf("%s field \"%s\" repeats a value named before it", field->name, text);
	return added;
}

/* Cuts the field at its commas. */
static bool
cron_parse_field(CronSchedule *schedule, CronFieldNumber number, char *field, char **problem)
{
	bool any = strcmp(field, "*") == 0 || strcmp(field, "?") == 0;

	if (number == CRON_DAY)
		schedule->any_day = any;
	else if (number == CRON_WEEKDAY)
		schedule->any_weekday = any;

	for (char *item = field; item != NULL;)
	{
		char *comma = strchr(item, ',');

		if (comma != NULL)
			*comma++ = '\0';
		if (!cron_parse_item(schedule, number, item, problem))
			return false;
		item = comma;
	}
	return true;
}

/* False when none of the months has any of the days. */
static bool
cron_has_a_day(const CronSchedule *schedule)
{
	int first_day;

	if (schedule->last_day || !schedule->any_weekday)
		return true;
	first_day = pg_rightmost_one_pos64(schedule->sets[CRON_DAY]);
	for (int month = 1; month <= MONTHS_PER_YEAR; month++)
	{
		if ((schedule->sets[CRON_MONTH] & (UINT64CONST(1) << month)) != 0 &&
			first_day <= day_tab[1][month - 1])
			return true;
	}
	return false;
}

/* The expression that a name such as "@daily" stands for. */
static char *
cron_expand_alias(const char *name, char **problem)
{
	for (int i = 0; i < lengthof(cron_aliases); i++)
	{
		if (pg_strcasecmp(name, cron_aliases[i].alias) == 0)
			return pstrdup(cron_aliases[i].expression);
	}
	*problem = psprintf("name \"%s\" is unknown", name);
	return NULL;
}

/*
 * Cuts an expression into its fields, and returns their number, which may be larger than
 * CRON_FIELDS.
 */
static int
cron_split(char *expression, char **fields)
{
	char *p = expression;
	int	  n;

	for (n = 0; *p != '\0'; n++)
	{
		if (n < CRON_FIELDS)
			fields[n] = p;
		while (*p != '\0' && !cron_is_space(*p))
			p++;
		while (cron_is_space(*p))
			*p++ = '\0';
	}
	return n;
}

/* Reads "N seconds"; false when text is something else. */
static bool
cron_parse_interval(const char *text, int *seconds)
{
	const char *p = text;

	if (!cron_read_number(&p, seconds) || !cron_is_space(*p))
		return false;
	while (cron_is_space(*p))
		p++;
	return pg_strcasecmp(p, "seconds") == 0 || pg_strcasecmp(p, "second") == 0;
}

CronSchedule *
cron_parse(const char *text, char **problem)
{
	CronSchedule *schedule;
	char		 *fields[CRON_FIELDS] = {NULL};
	char		 *copy;
	char		 *p;
	int			  nfields;
	int			  absent;

	*problem = NULL;
	while (cron_is_space(*text))
		text++;
	if (*text == '\0')
	{
		*problem = pstrdup("schedule is empty");
		return NULL;
	}
	if (strlen(text) > CRON_MAX_LENGTH)
	{
		*problem = psprintf("schedule is longer than %d bytes", CRON_MAX_LENGTH);
		return NULL;
	}

	copy = pstrdup(text);
	for (p = copy + strlen(copy); cron_is_space(p[-1]); p--)
		p[-1] = '\0';
	schedule = palloc0(sizeof(CronSchedule));

	if (cron_parse_interval(copy, &schedule->interval))
	{
		if (schedule->interval >= 1 && schedule->interval <= CRON_MAX_INTERVAL)
			return schedule;
		*problem = psprintf("interval \"%s\" is out of range 1..%d seconds", copy,
							CRON_MAX_INTERVAL);
		return NULL;
	}
	schedule->interval = 0;

	if (*copy == '@' && (copy = cron_expand_alias(copy, problem)) == NULL)
		return NULL;
	nfields = cron_split(copy, fields);
	if (nfields != CRON_FIELDS && nfields != CRON_FIELDS - 1)
	{
		*problem = psprintf("schedule has %d %s, needs 5, or 6 with leading seconds", nfields,
							nfields == 1 ? "field" : "fields");
		return NULL;
	}

	absent = CRON_FIELDS - nfields;
	if (absent > 0)
		schedule->sets[CRON_SECOND] = 1;
	for (int i = 0; i < nfields; i++)
	{
		if (!cron_parse_field(schedule, (CronFieldNumber) (i + absent), fields[i], problem))
			return NULL;
	}

	if (!cron_has_a_day(schedule))
	{
		*problem = pstrdup("day-of-month field names no day that the month field's months have");
		return NULL;
	}
	return schedule;
}
