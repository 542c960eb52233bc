/*
 * faults.c
 *	  The list of faults that tests have asked for: which answers each is for,
 *	  and how often.  What a fault does is in shape.c (which records, which
 *	  cursor), mangle.c (bytes of a record), spoil.c (status, body, headers)
 *	  and wire.c (how it is sent).
 *
 * The list belongs to the server's one request thread.
 */
#include "faults.h"
#include "journal.h"

#include <stdio.h>
#include <stdlib.h>

static const fault_kind kinds[] = {
	{"page_size", STRIKE_REQUEST, "count=records whatever was asked for"},
	{"ignore_since", STRIKE_REQUEST, ""},

	{"empty_list", STRIKE_PAGE, ""},
	{"empty_page", STRIKE_PAGE, ""},
	{"endless", STRIKE_PAGE, ""},
	{"no_next", STRIKE_PAGE, ""},
	{"cursor_repeat", STRIKE_PAGE, ""},
	{"cursor_cycle", STRIKE_PAGE, "count=pages of the cycle (2)"},
	{"next_cursor", STRIKE_PAGE, "json=raw text, empty leaves it out"},
	{"next_first", STRIKE_PAGE, ""},
	{"total_estimate", STRIKE_PAGE, "json=raw text, empty leaves it out"},
	{"deleted", STRIKE_PAGE, "json=raw text"},
	{"skip", STRIKE_PAGE, "record=positions (1)"},
	{"dup_in_page", STRIKE_PAGE, "record=positions (1), same=1 for an equal copy"},
	{"dup_across", STRIKE_PAGE, "count=records of the page before (1), changed=1 for another name"},

	{"bad_utf8", STRIKE_RECORD, "record, field"},
	{"nul_escape", STRIKE_RECORD, "record, field"},
	{"lone_surrogate", STRIKE_RECORD, "record, field"},
	{"control_char", STRIKE_RECORD, "record, field"},
	{"long", STRIKE_RECORD, "record, field, chars (300), wide=1 for 3-byte characters"},
	{"field", STRIKE_RECORD, "record, field, json=raw text (or POST body), drop=1"},
	{"id", STRIKE_RECORD,
	 "record, value=missing|empty|null|number|float|bigint|bool|object|array|blank"},
	{"deep", STRIKE_RECORD, "record, depth (100), object=1"},
	{"huge_number", STRIKE_RECORD, "record, text (1e400), digits=n"},
	{"many_keys", STRIKE_RECORD, "record, count (100000)"},
	{"huge_record", STRIKE_RECORD, "record, bytes (9437184)"},
	{"more", STRIKE_RECORD, "record, json=raw members of attributes (or POST body)"},
	{"dup_key", STRIKE_RECORD, "record"},
	{"record", STRIKE_RECORD, "record, json=raw text (or POST body) instead of the record"},
	{"null_email", STRIKE_RECORD, "record (all)"},
	{"foreign_ids", STRIKE_RECORD, "record (all), text (tenant2-)"},

	{"status", STRIKE_ANSWER, "code (503), retry_after=any text, html=1, content_type, POST body"},
	{"html", STRIKE_ANSWER, "code (200)"},
	{"body", STRIKE_ANSWER, "code (200), content_type, POST body"},
	{"repeated", STRIKE_ANSWER, "code (200), head, unit (its number for %d), count, tail"},
	{"echo", STRIKE_ANSWER, "code (200), of=header|uri|body (authorization), json=0, content_type"},
	{"success_false", STRIKE_ANSWER, "code (200), message"},
	{"expired_cursor", STRIKE_ANSWER, "code (410), message (expiredCursor); only with a cursor"},
	{"redirect", STRIKE_ANSWER, "code (302), location (/elsewhere)"},
	{"throttle", STRIKE_ANSWER,
	 "style=okta|github|github_secondary|google|graph|seconds, seconds (1)"},
	{"empty_answer", STRIKE_ANSWER, "code (200)"},

	{"truncate", STRIKE_BODY, "bytes kept (half), cut=bytes taken from the end"},
	{"trailing", STRIKE_BODY, "text (garbage), POST body"},
	{"bom", STRIKE_BODY, ""},
	{"gzip", STRIKE_BODY, ""},
	{"gzip_cut", STRIKE_BODY, "bytes kept (half)"},
	{"gzip_bad", STRIKE_BODY, ""},
	{"gzip_bomb", STRIKE_BODY, "bytes when unpacked (1073741824)"},
	{"header", STRIKE_BODY, "name, value"},
	{"content_type", STRIKE_BODY, "text, empty leaves it out"},
	{"date", STRIKE_BODY, "skew=seconds, or text=any, empty leaves it out"},
	{"close", STRIKE_BODY, ""},

	{"no_answer", STRIKE_WIRE, ""},
	{"reset", STRIKE_WIRE, "bytes of the body sent first (half; -1: not even a status line)"},
	{"short_body", STRIKE_WIRE, "bytes of the body sent (half)"},
	{"chunk_cut", STRIKE_WIRE, "bytes of the body sent (half)"},
	{"chunked", STRIKE_WIRE, "size of a chunk (1000)"},
	{"hang", STRIKE_WIRE, "ms (-1: until released), upto"},
	{"hang_body", STRIKE_WIRE, "ms (-1: until released), bytes sent first (half)"},
	{"drip", STRIKE_WIRE, "rate=bytes per second (1)"},
	{"endless_body", STRIKE_WIRE, "bytes (-1: endless), length=1 to announce 1 TB, else chunked"},
	{"header_flood", STRIKE_WIRE, "bytes (-1: endless), one=1 for one endless header"},
	{"raw", STRIKE_WIRE, "POST body is all that is sent"}};

static fault *first = NULL;
static int	  last_id = 0;

const char *
fault_text(const fault *f, const char *name, const char *otherwise)
{
	for (int i = 0; i < f->args; i++)
		if (strcmp(f->arg[i].name, name) == 0)
			return f->arg[i].value;
	return otherwise;
}

long long
fault_int(const fault *f, const char *name, long long otherwise)
{
	const char *s = fault_text(f, name, "");

	return *s ? strtoll(s, NULL, 10) : otherwise;
}

/* Is n in "3", "1,4-6", "7-", "all"? */
bool
in_ranges(const char *ranges, long n)
{
	const char *s = ranges;

	if (strcmp(s, "all") == 0 || strcmp(s, "*") == 0)
		return true;
	while (*s)
	{
		char *end;
		long  from = strtol(s, &end, 10);
		long  to = from;

		if (*end == '-')
		{
			char *start = end + 1;

			to = strtol(start, &end, 10);
			if (end == start)
				to = n;
		}
		if (n >= from && n <= to)
			return true;
		s = end + strcspn(end, ",");
		s += *s == ',';
	}
	return false;
}

static enum MHD_Result
take_arg(void *closure, enum MHD_ValueKind kind, const char *name, const char *value)
{
	fault *f = closure;

	(void) kind;
	if (f->args == MAX_FAULT_ARGS)
		return MHD_NO;
	f->arg[f->args].name = must_strdup(name);
	f->arg[f->args++].value = must_strdup(value ? value : "");
	return MHD_YES;
}

static void
fault_free(fault *f)
{
	for (int i = 0; i < f->args; i++)
	{
		free(f->arg[i].name);
		free(f->arg[i].value);
	}
	buf_free(&f->body);
	free(f);
}

/* Add the fault that a control request asks for.  NULL: it makes no sense. */
fault *
fault_add(call *c, char *error, size_t size)
{
	const char		 *name = call_arg(c, "kind");
	const fault_kind *kind = NULL;
	fault			 *f;
	fault			**end = &first;

	for (size_t i = 0; name != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			kind = &kinds[i];
	if (kind == NULL)
	{
		snprintf(error, size, "unknown kind of fault: %.80s; see /_control/kinds",
				 name ? name : "(none)");
		return NULL;
	}
	f = must_alloc(sizeof(fault));
	f->id = ++last_id;
	f->kind = kind;
	MHD_get_connection_values(c->connection, MHD_GET_ARGUMENT_KIND, take_arg, f);
	f->times = (long) fault_int(f, "times", 1);
	f->after = (long) fault_int(f, "after", 0);
	if (c->body.n > 0)
		buf_put(&f->body, c->body.p, c->body.n);
	while (*end != NULL)
		end = &(*end)->next;
	*end = f;
	return f;
}

bool
fault_heal(int id)
{
	for (fault **at = &first; *at != NULL; at = &(*at)->next)
		if ((*at)->id == id)
		{
			fault *f = *at;

			*at = f->next;
			fault_free(f);
			return true;
		}
	return false;
}

void
fault_heal_all(void)
{
	while (first != NULL)
		fault_heal(first->id);
}

static bool
is_for(const fault *f, const char *type, long page, bool single)
{
	const char *command = fault_text(f, "command", "list");
	const char *wanted = fault_text(f, "type", "*");

	if (strcmp(command, "any") != 0 && strcmp(command, single ? "get" : "list") != 0)
		return false;
	if (strcmp(wanted, type) != 0 && (strcmp(wanted, "*") != 0 || strcmp(type, "token") == 0))
		return false;
	return single || in_ranges(fault_text(f, "page", "*"), page);
}

/* The faults that strike the answer to be given; each is used up by one. */
void
faults_match(struck *s, const char *type, long page, bool single)
{
	for (fault *f = first; f != NULL && s->n < MAX_STRUCK; f = f->next)
	{
		long long one_in = fault_int(f, "one_in", 1);

		if (f->times == 0 || !is_for(f, type, page, single))
			continue;
		if (f->after > 0)
		{
			f->after--;
			continue;
		}
		if (one_in > 1)
		{
			static uint64_t random = 0;

			random = mix(random ^ data_seed);
			if (random % (uint64_t) one_in != 0)
				continue;
		}
		if (f->times > 0)
			f->times--;
		f->fired++;
		s->fault[s->n++] = f;
		journal_fired();
	}
}

void
faults_names(const struck *s, buf *b)
{
	for (int i = 0; i < s->n; i++)
	{
		if (i > 0)
			buf_char(b, ',');
		buf_str(b, s->fault[i]->kind->name);
	}
}

void
fault_list(buf *b)
{
	buf_lit(b, "{\"ok\":true,\"faults\":[");
	for (fault *f = first; f != NULL; f = f->next)
	{
		buf_printf(b, "%s{\"id\":%d,\"left\":%ld,\"after\":%ld,\"fired\":%ld,\"parameters\":{",
				   f == first ? "" : ",", f->id, f->times, f->after, f->fired);
		for (int i = 0; i < f->args; i++)
		{
			if (i > 0)
				buf_char(b, ',');
			buf_json_str(b, f->arg[i].name);
			buf_char(b, ':');
			buf_json_str(b, f->arg[i].value);
		}
		buf_printf(b, "},\"body\":%zu}", f->body.n);
	}
	buf_lit(b, "]}\n");
}

void
fault_kinds(buf *b)
{
	static const char *const stages[] = {"request", "page", "record", "answer", "body", "wire"};

	buf_lit(b, "{\"ok\":true,\"kinds\":[");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		buf_printf(b, "%s{\"kind\":\"%s\",\"stage\":\"%s\",\"parameters\":\"%s\"}",
				   i ? ",\n" : "\n", kinds[i].name, stages[kinds[i].stage], kinds[i].parameters);
	buf_lit(b, "]}\n");
}
