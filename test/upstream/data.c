/*
 * data.c
 *	  The state of the records: how many there are, and their versions,
 *	  deletions and times of change.
 *
 * Everything here runs in the server's one request thread.
 */
#include "data.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define FIRST_DAY INT64_C(1704067200000000) /* 2024-01-01, when the records were made */
#define SPREAD	  INT64_C(15552000)			/* they were made in the 180 days after it */

uint64_t data_generation = 1;
bool	 data_random_ids = false;
uint64_t data_seed = 1;

int64_t clock_skew = 0;
int64_t clock_fixed = 0;

static data_type types[MAX_TYPES];
static int		 types_used = 0;

int
data_types_used(void)
{
	return types_used;
}

data_type *
data_type_at(int i)
{
	return &types[i];
}

data_type *
data_find(const char *name)
{
	for (int i = 0; i < types_used; i++)
		if (strcmp(types[i].name, name) == 0)
			return &types[i];
	return NULL;
}

static uint64_t
hash_name(const char *s)
{
	uint64_t h = data_seed;

	for (; *s; s++)
		h = mix(h ^ (unsigned char) *s);
	return h;
}

static void
clear_records(data_type *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->records[i].whole);
	free(t->records);
	t->records = NULL;
	t->count = t->cap = t->deleted = 0;
}

static void
append(data_type *t, size_t n, bool first)
{
	int64_t now = clock_now();

	if (t->count + n > t->cap)
	{
		size_t	cap = t->count + n;
		record *r;

		if (t->cap > 0 && cap < t->cap * 2)
			cap = t->cap * 2;
		r = realloc(t->records, cap * sizeof(record));
		if (r == NULL)
		{
			fputs("upstream: out of memory\n", stderr);
			exit(70);
		}
		t->records = r;
		t->cap = cap;
	}
	memset(t->records + t->count, 0, n * sizeof(record));
	for (size_t i = t->count; i < t->count + n; i++)
	{
		t->records[i].added = !first;
		t->records[i].modified_at = first ?
			FIRST_DAY + (int64_t) (mix(t->seed ^ i) % (uint64_t) SPREAD) * 1000000 :
			now;
	}
	t->count += n;
	data_generation++;
}

/* Make the type, or make it anew, with count fresh records.  NULL: too many types. */
data_type *
data_make(const char *name, size_t count)
{
	data_type *t = data_find(name);

	if (t == NULL)
	{
		if (types_used == MAX_TYPES || strlen(name) >= sizeof(t->name) || *name == '\0')
			return NULL;
		t = &types[types_used++];
		memset(t, 0, sizeof(*t));
		strcpy(t->name, name);
	}
	clear_records(t);
	t->seed = hash_name(name);
	append(t, count, true);
	return t;
}

void
data_drop_all(void)
{
	for (int i = 0; i < types_used; i++)
		clear_records(&types[i]);
	types_used = 0;
	data_generation++;
}

/* Records that are new now, after the others. */
void
data_add(data_type *t, size_t n)
{
	append(t, n, false);
}

static bool
id_is(const data_type *t, size_t number, const char *id, size_t n)
{
	static buf b;

	b.n = 0;
	render_id(&b, t, number);
	return b.n == n && memcmp(b.p, id, n) == 0;
}

static size_t
lookup(const data_type *t, const char *id, size_t n)
{
	if (data_random_ids)
	{
		for (size_t i = 1; i <= t->count; i++)
			if (id_is(t, i, id, n))
				return i;
		return 0;
	}
	for (size_t at = n; at > 0; at--)
		if (id[at - 1] < '0' || id[at - 1] > '9')
		{
			size_t number = (size_t) strtoull(id + at, NULL, 10);

			if (number >= 1 && number <= t->count && id_is(t, number, id, n))
				return number;
			break;
		}
	return 0;
}

size_t
data_lookup(const data_type *t, const char *id)
{
	return lookup(t, id, strlen(id));
}

static void
apply(data_type *t, size_t number, change_what what, int64_t now)
{
	record *r = &t->records[number - 1];

	switch (what)
	{
		case CHANGE_ATTRIBUTES:
			r->version++;
			break;
		case CHANGE_NAME:
			r->name_version++;
			break;
		case CHANGE_EMAIL:
			r->email_version++;
			break;
		case CHANGE_GROUPS:
			r->group_version++;
			break;
		case CHANGE_DELETE:
			r->deleted = true;
			t->deleted++;
			break;
		case CHANGE_RESTORE:
			r->deleted = false;
			t->deleted--;
			break;
	}
	if (what < CHANGE_DELETE)
	{
		free(r->whole);
		r->whole = NULL;
	}
	r->modified_at = now;
}

static bool
eligible(const data_type *t, size_t number, change_what what)
{
	return t->records[number - 1].deleted == (what == CHANGE_RESTORE);
}

static void
note_id(const data_type *t, size_t number, buf *ids, size_t done, size_t list)
{
	if (ids == NULL || done >= list)
		return;
	if (ids->n > 0)
		buf_char(ids, ',');
	buf_char(ids, '"');
	render_id(ids, t, number);
	buf_char(ids, '"');
}

/*
 * Do what to the selected records.  Exactly the number (or fraction, rounded
 * down) of those eligible is taken: which ones follows from the selection's
 * seed.  The first `list` ids are written to ids.  Returns how many it were.
 */
size_t
data_change(data_type *t, const selection *s, change_what what, buf *ids, size_t list)
{
	int64_t	 now = clock_now();
	size_t	 from = s->from ? s->from : 1;
	size_t	 to = s->to && s->to < t->count ? s->to : t->count;
	size_t	 left = 0;
	size_t	 wanted;
	size_t	 done = 0;
	uint64_t random = mix(s->seed ^ t->seed ^ 0x5eed);

	data_generation++;
	if (s->ids != NULL)
	{
		for (const char *at = s->ids; *at;)
		{
			size_t n = strcspn(at, ",");
			size_t number = lookup(t, at, n);

			if (number && eligible(t, number, what))
			{
				apply(t, number, what, now);
				note_id(t, number, ids, done++, list);
			}
			at += n + (at[n] == ',');
		}
		return done;
	}

	for (size_t i = from; i <= to; i++)
		left += eligible(t, i, what);
	wanted = left;
	if (s->number >= 0 && (size_t) s->number < wanted)
		wanted = (size_t) s->number;
	else if (s->fraction >= 0 && s->fraction < 1)
		wanted = (size_t) (s->fraction * (double) left + 1e-9);
	for (size_t i = from; i <= to && wanted > 0; i++)
	{
		if (!eligible(t, i, what))
			continue;
		random = mix(random + i);
		if (random % left-- >= wanted)
			continue;
		wanted--;
		apply(t, i, what, now);
		note_id(t, i, ids, done++, list);
	}
	return done;
}

/* Give a record another JSON by hand; n = 0 gives it back its own. */
bool
data_set(data_type *t, const char *id, const char *json, size_t n)
{
	size_t	number = data_lookup(t, id);
	record *r;

	if (number == 0)
		return false;
	r = &t->records[number - 1];
	free(r->whole);
	r->whole = NULL;
	if (n > 0)
	{
		r->whole = must_alloc(n + 1);
		memcpy(r->whole, json, n);
	}
	r->modified_at = clock_now();
	data_generation++;
	return true;
}

int64_t
clock_now(void)
{
	struct timespec ts;

	if (clock_fixed != 0)
		return clock_fixed + clock_skew;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000 + clock_skew;
}

/* ISO 8601: date, "T" or blank, time, fraction, "Z" or "+hh[:mm]" (nothing: UTC). */
bool
parse_time(const char *s, int64_t *at)
{
	struct tm tm = {0};
	int		  used = 0;
	int		  micros = 0;
	int64_t	  zone = 0;

	if (sscanf(s, "%d-%d-%d%*1[Tt ]%d:%d:%d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
			   &tm.tm_min, &tm.tm_sec, &used) != 6 ||
		used == 0)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	s += used;
	if (*s == '.' || *s == ',')
	{
		int scale = 100000;

		for (s++; *s >= '0' && *s <= '9'; s++, scale /= 10)
			micros += (*s - '0') * scale;
	}
	while (*s == ' ')
		s++;
	if (*s == '+' || *s == '-')
	{
		int hours = 0, minutes = 0;

		if (sscanf(s + 1, "%2d:%2d", &hours, &minutes) < 1)
			return false;
		zone = (hours * 60 + minutes) * 60 * (*s == '-' ? -1 : 1);
	}
	else if (*s != '\0' && *s != 'Z' && *s != 'z')
		return false;
	*at = ((int64_t) timegm(&tm) - zone) * 1000000 + micros;
	return true;
}

void
put_time(buf *b, int64_t at)
{
	time_t	  seconds = (time_t) (at / 1000000);
	struct tm tm;
	char	  text[40];

	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_printf(b, "%s.%06dZ", text, (int) (at % 1000000));
}
