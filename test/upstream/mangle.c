/*
 * mangle.c
 *	  Faults in the bytes of a record: hostile strings, numbers and nesting,
 *	  wrong types, ids that are none.
 */
#include "faults.h"

#include <stdlib.h>

/* Where the replaced parts of the record being written are kept. */
static buf texts[FIELDS];
static buf extra;

static bool
is(const fault *f, const char *kind)
{
	return strcmp(f->kind->name, kind) == 0;
}

/* Is there a fault that changes records? */
bool
mangles(const struck *s)
{
	for (int i = 0; i < s->n; i++)
		if (s->fault[i]->kind->stage == STRIKE_RECORD || is(s->fault[i], "dup_in_page") ||
			is(s->fault[i], "dup_across"))
			return true;
	return false;
}

/* The field's number, or -1: a member of attributes. */
static int
field_number(const char *name)
{
	static const char *const names[FIELDS] = {"externalId", "displayName", "email", "attributes"};

	for (int i = 0; i < FIELDS; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

/* Raw JSON as the value of a field, or of attributes.<name>. */
static void
set_field(patch *p, const char *name, const char *json, size_t n)
{
	int field = field_number(name);

	if (field < 0)
	{
		buf_lit(&extra, ",\"");
		buf_str(&extra, name);
		buf_lit(&extra, "\":");
		buf_put(&extra, json, n);
		return;
	}
	texts[field].n = 0;
	buf_put(&texts[field], json, n);
	p->json[field] = texts[field].p;
	p->json_len[field] = texts[field].n;
}

/* A string with the given raw bytes between its quotes, after something that names the record. */
static void
set_string(patch *p, const fault *f, size_t number, const char *raw, size_t n)
{
	buf b = {0};

	buf_printf(&b, "\"bad %zu ", number);
	buf_put(&b, raw, n);
	buf_char(&b, '"');
	set_field(p, fault_text(f, "field", "displayName"), b.p, b.n);
	buf_free(&b);
}

static void
set_long(patch *p, const fault *f, size_t number)
{
	long long chars = fault_int(f, "chars", 300);
	buf		  b = {0};

	buf_printf(&b, "\"%zu-", number);
	chars -= (long long) b.n - 1;
	for (long long i = 0; i < chars; i++)
		if (fault_int(f, "wide", 0))
			buf_lit(&b, "\xe2\x82\xac");
		else
			buf_char(&b, 'x');
	buf_char(&b, '"');
	set_field(p, fault_text(f, "field", "displayName"), b.p, b.n);
	buf_free(&b);
}

static void
set_id(patch *p, const fault *f, size_t number)
{
	const char *value = fault_text(f, "value", "missing");
	buf			b = {0};

	if (strcmp(value, "missing") == 0)
	{
		p->drop[FIELD_ID] = true;
		return;
	}
	if (strcmp(value, "empty") == 0)
		buf_lit(&b, "\"\"");
	else if (strcmp(value, "blank") == 0)
		buf_lit(&b, "\"  \"");
	else if (strcmp(value, "number") == 0)
		buf_int(&b, (int64_t) number);
	else if (strcmp(value, "float") == 0)
		buf_printf(&b, "%zu.5", number);
	else if (strcmp(value, "bigint") == 0)
		buf_printf(&b, "90071992547409%05zu", number);
	else if (strcmp(value, "bool") == 0)
		buf_lit(&b, "true");
	else if (strcmp(value, "object") == 0)
		buf_printf(&b, "{\"id\":\"%zu\"}", number);
	else if (strcmp(value, "array") == 0)
		buf_printf(&b, "[\"%zu\"]", number);
	else
		buf_lit(&b, "null");
	set_field(p, "externalId", b.p, b.n);
	buf_free(&b);
}

static void
add_deep(const fault *f)
{
	size_t depth = (size_t) fault_int(f, "depth", 100);
	bool   object = fault_int(f, "object", 0) != 0;

	buf_lit(&extra, ",\"deep\":");
	if (object)
		for (size_t i = 0; i < depth; i++)
			buf_lit(&extra, "{\"a\":");
	else
		buf_fill(&extra, '[', depth);
	buf_char(&extra, '1');
	buf_fill(&extra, object ? '}' : ']', depth);
}

static void
add_number(const fault *f)
{
	size_t digits = (size_t) fault_int(f, "digits", 0);

	buf_lit(&extra, ",\"number\":");
	if (digits > 0)
		buf_fill(&extra, '7', digits);
	else
		buf_str(&extra, fault_text(f, "text", "1e400"));
}

/* Raw text given as json= or uploaded. */
static const char *
raw_text(const fault *f, size_t *n)
{
	const char *s = fault_text(f, "json", NULL);

	if (s != NULL || f->body.n == 0)
	{
		s = s ? s : "null";
		*n = strlen(s);
		return s;
	}
	*n = f->body.n;
	return f->body.p;
}

static void
apply(patch *p, const fault *f, size_t number)
{
	size_t		n;
	const char *raw;

	if (is(f, "bad_utf8"))
		set_string(p, f, number, "\xff\xc0\xaf", 3);
	else if (is(f, "nul_escape"))
		set_string(p, f, number, "a\\u0000b", 8);
	else if (is(f, "lone_surrogate"))
		set_string(p, f, number, "\\ud800", 6);
	else if (is(f, "control_char"))
		set_string(p, f, number, "\x01", 1);
	else if (is(f, "long"))
		set_long(p, f, number);
	else if (is(f, "field"))
	{
		const char *name = fault_text(f, "field", "displayName");

		raw = raw_text(f, &n);
		if (fault_int(f, "drop", 0) && field_number(name) >= 0)
			p->drop[field_number(name)] = true;
		else
			set_field(p, name, raw, n);
	}
	else if (is(f, "id"))
		set_id(p, f, number);
	else if (is(f, "deep"))
		add_deep(f);
	else if (is(f, "huge_number"))
		add_number(f);
	else if (is(f, "many_keys"))
	{
		for (long long i = 0; i < fault_int(f, "count", 100000); i++)
			buf_printf(&extra, ",\"key%lld\":%lld", i, i);
	}
	else if (is(f, "huge_record"))
	{
		buf_lit(&extra, ",\"blob\":\"");
		buf_fill(&extra, 'x', (size_t) fault_int(f, "bytes", 9 * 1024 * 1024));
		buf_char(&extra, '"');
	}
	else if (is(f, "more"))
	{
		raw = raw_text(f, &n);
		buf_char(&extra, ',');
		buf_put(&extra, raw, n);
	}
	else if (is(f, "dup_key"))
		p->before = "\"externalId\":\"shadowed\"";
	else if (is(f, "record"))
		p->whole = raw_text(f, &p->whole_len);
	else if (is(f, "null_email"))
		set_field(p, "email", "null", 4);
	else if (is(f, "foreign_ids"))
		p->id_prefix = fault_text(f, "text", "tenant2-");
}

static bool
is_for_record(const fault *f, size_t position)
{
	const char *otherwise = is(f, "null_email") || is(f, "foreign_ids") ? "all" : "1";

	return f->kind->stage == STRIKE_RECORD &&
		in_ranges(fault_text(f, "record", otherwise), (long) position + 1);
}

/* Write the page's record at a position (from 0), as the faults have it. */
void
mangle_record(buf *b, const page *p, size_t position, void *struck_faults)
{
	const struck *s = struck_faults;
	patch		  change = {0};
	bool		  any = false;

	extra.n = 0;
	for (int i = 0; i < s->n; i++)
		if (is_for_record(s->fault[i], position))
		{
			apply(&change, s->fault[i], p->numbers[position]);
			any = true;
		}
	if (extra.n > 0)
	{
		change.more = extra.p;
		change.more_len = extra.n;
	}
	if (position >= p->copies_from && position < p->copies_to)
	{
		change.name_suffix = " copy";
		change.name_suffix_len = 5;
		any = true;
	}
	p->put_record(b, p, position, any ? &change : NULL);
}
