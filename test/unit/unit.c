/*
 * unit.c
 *	  Checks the parser, the canonical form and the rules of a page, and with
 *	  the files unit_*.c cryptography, addresses and tokens,
 *	  without a server.  Prints TAP.
 */
#include "unit.h"

#include <math.h>

#include "json/canonical.h"
#include "json/json.h"
#include "page/page.h"
#include "tables.h"

jmp_buf *standalone_catch;

static int tests;
static int failures;

void
ok(bool good, const char *name)
{
	tests++;
	failures += !good;
	printf("%sok %d - %s\n", good ? "" : "not ", tests, name);
}

void
is(const char *got, const char *expected, const char *name)
{
	bool good = got != NULL && expected != NULL ? strcmp(got, expected) == 0 : got == expected;

	ok(good, name);
	if (!good)
		printf("#      got: %s\n# expected: %s\n", got ? got : "(null)",
			   expected ? expected : "(null)");
}

void
is_int(long got, long expected, const char *name)
{
	ok(got == expected, name);
	if (got != expected)
		printf("#      got: %ld\n# expected: %ld\n", got, expected);
}

/* The canonical form, or "error". */
static char *
canonical_or_error(const char *json, size_t len)
{
	static jmp_buf catcher;
	static char	   error[] = "error";
	size_t		   outlen;
	char		  *result = error;

	standalone_catch = &catcher;
	if (setjmp(catcher) == 0)
		result = canonical_text(json, len, &outlen);
	standalone_catch = NULL;
	return result;
}

static char *
canonical_of(const char *json)
{
	return canonical_or_error(json, strlen(json));
}

static bool
parses(const char *json, size_t len)
{
	JsonParser *parser = json_parser_create();

	/* A copy of its own size: a sanitizer sees each byte read past the end. */
	char *copy = malloc(len ? len : 1);
	bool  good;

	memcpy(copy, json, len);
	good = json_parse(parser, copy, len, 64);
	free(copy);
	return good;
}

static void
test_parser(void)
{
	char		name[200];
	size_t		depth = 3 * 1000 * 1000;
	char	   *deep = malloc(2 * depth + 1);
	JsonParser *parser = json_parser_create();

	for (int i = 0; i < lengthof(accepted); i++)
	{
		snprintf(name, sizeof(name), "accepts row %d of the table", i);
		ok(parses(accepted[i], strlen(accepted[i])), name);
	}
	for (int i = 0; i < lengthof(refused); i++)
	{
		snprintf(name, sizeof(name), "refuses row %d of the table", i);
		ok(!parses(refused[i], strlen(refused[i])), name);
	}
	ok(!parses("\"a\0b\"", 5), "refuses a raw NUL in a string");
	ok(!parses("1\0", 2), "refuses a raw NUL after the value");
	ok(parses("\xEF\xBB\xBF{}", 5), "skips a byte order mark");
	ok(!parses("\xEF\xBB\xBF", 3), "refuses a byte order mark alone");

	memset(deep, '[', depth);
	memset(deep + depth, ']', depth);
	ok(json_parse(parser, deep, 2 * depth, 64), "three million brackets are parsed");
	ok(parser->nodes[JSON_ROOT].flags & JSON_F_BAD_DEPTH, "and flagged");
	is_int(parser->nnodes, 66, "and not stored");
	deep[depth] = '}';
	ok(!json_parse(parser, deep, 2 * depth, 64), "a wrong bracket far down is found");
	ok(!json_parse(parser, deep, depth, 64), "so is a missing end");

	for (int i = 0; i < 200; i++)
	{
		const char *text =
			"{\"a\":[1,2.5e3,\"x\\u00e9\\n\",true,false,null,{}],\"b\":\"\xC3\xBC 0123456789abcdef\"}";

		if (i < (int) strlen(text) && parses(text, i))
			ok(false, "a text cut short is refused");
	}
	ok(true, "every cut text is refused");

	json_parse(parser, "[1, x]", 6, 64);
	is_int(parser->error_offset, 4, "the offset of a fault");
	ok(json_parse(parser, "{\"a\":[\"\\ud800\"]}", 16, 64) &&
		   (parser->nodes[JSON_ROOT].flags & JSON_F_BAD_ESCAPE),
	   "a lone surrogate is flagged up to the root");
	ok(json_parse(parser, "{\"\\u0000\":1}", 12, 64) &&
		   (parser->nodes[JSON_ROOT].flags & JSON_F_BAD_ESCAPE),
	   "so is U+0000 in a key");
	ok(json_parse(parser, "\"\\ud83d\\ude00\"", 14, 64) &&
		   (parser->nodes[JSON_ROOT].flags & JSON_F_BAD_ESCAPE) == 0,
	   "a pair is not");
	ok(json_parse(parser, NULL, 0, 64) == false, "no bytes at no address are no JSON");
	free(deep);
}

/* Is a text, each character of it written as an escape, the value of a key? */
static bool
escaped_equals(const char *value, const char *with)
{
	JsonParser *parser = json_parser_create();
	char	   *json = malloc(strlen(value) * 6 + 10);
	char	   *out = json;

	*out++ = '{';
	*out++ = '"';
	for (const char *p = value; *p; p++)
		out += sprintf(out, "\\u%04x", (unsigned char) *p);
	strcpy(out, "\":1}");
	if (!json_parse(parser, json, strlen(json), 64))
		return false;
	return json_member(parser, JSON_ROOT, with, strlen(with)) != 0;
}

static void
test_equals(void)
{
	char		name[100];
	char		other[100];
	int			wrong = 0;
	JsonParser *parser = json_parser_create();
	const char *json = "\"\\\\\\\"\\/\\b\\f\\n\\r\\t \\u00e9\\u20ac\\ud83d\\ude00 x\"";
	const char *text = "\\\"/\b\f\n\r\t \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 x";

	/* 42 characters, and 256 bytes, is where it mattered. */
	for (int n = 0; n < 99; n++)
	{
		memset(name, 'k', n);
		name[n] = '\0';
		strcpy(other, name);
		wrong += !escaped_equals(name, name);
		strcat(other, "k");
		wrong += escaped_equals(name, other) || escaped_equals(other, name);
		if (n > 0)
		{
			strcpy(other, name);
			other[n - 1] = 'x';
			wrong += escaped_equals(name, other);
		}
	}
	is_int(wrong, 0, "keys that are all escapes, of any length");
	json_parse(parser, json, strlen(json), 64);
	ok(json_string_equals(parser, &parser->nodes[JSON_ROOT], text, strlen(text)),
	   "a text with every escape");
	for (int i = 0; i < (int) strlen(text); i++)
		wrong += json_string_equals(parser, &parser->nodes[JSON_ROOT], text, i);
	is_int(wrong, 0, "is none of its beginnings");
}

static size_t
weight_of(const char *json, uint32_t *depth)
{
	JsonParser *parser = json_parser_create();

	return json_parse(parser, json, strlen(json), 64) ? json_weight(parser, JSON_ROOT, depth) : 0;
}

static void
test_weight(void)
{
	JsonParser *parser = json_parser_create();
	const char *json = "[[1,{\"a\":[2,3]}],[],{\"b\":[[[4]]]}]";
	uint32_t	depth;
	uint32_t	second;
	uint32_t	third;

	for (int i = 0; i < 2; i++)
	{
		const char *unit = i == 0 ? "{}," : "[],";
		char	   *many = malloc(3 * 10000 + 10);

		strcpy(many, "[");
		for (int k = 0; k < 10000; k++)
			memcpy(many + 1 + 3 * k, unit, 3);
		strcpy(many + 1 + 3 * 10000, "1]");
		ok(weight_of(many, &depth) > 10000 * 300 && depth == 2, "many small values weigh much");
		ok(weight_of(many, NULL) <= strlen(many) * JSON_MOST_WEIGHT,
		   "and not more than a text can");
	}
	weight_of("[]", &depth);
	is_int(depth, 1, "the depth of an empty array");
	weight_of("7", &depth);
	is_int(depth, 0, "of a number");
	weight_of(json, &depth);
	is_int(depth, 5, "of what is nested");
	/* Only what is in it counts, wherever it stands. */
	json_parse(parser, json, strlen(json), 64);
	second = parser->nodes[parser->nodes[JSON_ROOT].child].next;
	third = parser->nodes[second].next;
	is_int(json_weight(parser, second, &depth), weight_of("[]", NULL),
		   "an inner value, in the middle");
	is_int(json_weight(parser, third, &depth), weight_of("{\"b\":[[[4]]]}", NULL),
		   "and the last one");
	is_int(depth, 4, "with its depth");
	is_int(json_weight(parser, parser->nodes[JSON_ROOT].child, NULL),
		   weight_of("[1,{\"a\":[2,3]}]", NULL), "and the first one");
}

static void
test_canonical(void)
{
	char name[200];

	for (int i = 0; i < lengthof(canonical_pairs); i++)
	{
		snprintf(name, sizeof(name), "canonical form %d: %.100s", i, canonical_pairs[i][0]);
		is(canonical_of(canonical_pairs[i][0]), canonical_pairs[i][1], name);
		snprintf(name, sizeof(name), "canonical form %d is a fixpoint", i);
		is(canonical_of(canonical_pairs[i][1]), canonical_pairs[i][1], name);
	}
	for (int i = 0; i < lengthof(ieee_numbers); i++)
	{
		double value;
		char   out[40];

		memcpy(&value, &ieee_numbers[i].bits, 8);
		out[canonical_double(value, out)] = '\0';
		snprintf(name, sizeof(name), "RFC 8785 appendix B: %016llx",
				 (unsigned long long) ieee_numbers[i].bits);
		is(out, ieee_numbers[i].text, name);
		is(canonical_of(ieee_numbers[i].text), ieee_numbers[i].text,
		   "and the number's text stays as it is");
	}
	{
		char  *form = canonical_of("[1e400,-1e400,1.5e309,1e-400]");
		size_t zeros = strspn(form + 2, "0");

		is_int(zeros, 400, "1e400 keeps its 401 digits");
		ok(strstr(form, ",-1000") != NULL && strstr(form, ",0.0000") != NULL &&
			   strchr(form, 'e') == NULL,
		   "numbers that no double holds have no exponent");
		is(canonical_of(form), form, "and are a fixpoint");
	}
	is(canonical_of("[1,"), "error", "bad JSON raises");
	is(canonical_of("\"\\ud800\""), "error", "half of a pair raises");
	is(canonical_of("1e999999999"), "error", "a number beyond numeric raises");

	/* Many keys, in all orders: the merge sort and the remembered order. */
	for (int n = 2; n <= 100; n += 7)
	{
		char  text[4096];
		char  expected[4096];
		char *t = text;
		char *e = expected;

		*t++ = *e++ = '{';
		for (int i = 0; i < n; i++)
		{
			t += sprintf(t, "%s\"k%03d\":%d", i ? "," : "", (i * 37 + 11) % n, (i * 37 + 11) % n);
			e += sprintf(e, "%s\"k%03d\":%d", i ? "," : "", i, i);
		}
		strcpy(t, "}");
		strcpy(e, "}");
		if (n % 37 != 0)
			is(canonical_of(text), expected, "many keys");
	}
}

static PageParser  *parser;
static UpstreamPage page;
static const char  *problem;

/* One record in a page of its own. */
static const RecordFault *
fault_of(const char *record)
{
	static char body[1024 * 1024];

	snprintf(body, sizeof(body), "{\"success\":true,\"payload\":{\"resources\":[%s]}}", record);
	if (!page_parse(parser, body, strlen(body), &page, &problem) || !page.success ||
		page.nfaults != 1)
		return NULL;
	return &page.faults[0];
}

static const char *
class_of(const char *record)
{
	const RecordFault *fault = fault_of(record);

	return fault		   ? error_class_name(fault->error_class) :
		page.nrecords == 1 ? "good" :
		problem			   ? problem :
							 "neither";
}

static char *
text_of(Slice slice)
{
	return slice.data == NULL ? NULL : pnstrdup(slice.data, slice.len);
}

static char *
repeat(const char *what, int n)
{
	char *result = palloc(strlen(what) * n + 1);

	result[0] = '\0';
	for (int i = 0; i < n; i++)
		strcpy(result + i * strlen(what), what);
	return result;
}

static bool
page_of(const char *body)
{
	return page_parse(parser, body, strlen(body), &page, &problem);
}

static bool
one_of(const char *body)
{
	return page_parse_one(parser, body, strlen(body), &page, &problem);
}

/* Answers about one record, lists without an envelope, and nothing. */
static void
test_other_pages(void)
{
	char *deep = palloc(8192);

	parser = page_parser_create(NULL, 0, NULL);
	ok(one_of(
		   "{\"success\":true,\"payload\":{\"resource\":{\"externalId\":\"a\",\"email\":\"x\"}}}") &&
		   page.success && page.nrecords == 1 && page.received == 1 &&
		   page.records[0].external_id.data[0] == 'a',
	   "one record by itself");
	ok(one_of("{\"success\":true,\"payload\":{\"resources\":[{\"externalId\":\"a\"}]}}") &&
		   page.nrecords == 1,
	   "or alone in a list");
	ok(one_of("{\"success\":true,\"payload\":{\"resource\":null}}") && page.success &&
		   page.nrecords == 0 && page.nfaults == 0,
	   "null: there is none");
	ok(one_of("{\"success\":true,\"payload\":{\"resource\":17}}") && page.nrecords == 0 &&
		   page.nfaults == 1,
	   "no object: it is set aside");
	ok(one_of("{\"success\":false,\"error\":\"x\",\"payload\":{\"resource\":null}}") &&
		   !page.success && strcmp(page.upstream_error, "x") == 0,
	   "an error is not \"there is none\"");
	ok(!one_of("{\"success\":true,\"payload\":{}}"), "nothing of either is a problem");
	ok(!page_of("{\"success\":true,\"payload\":{\"resource\":{\"externalId\":\"a\"}}}"),
	   "a page has a list");
	for (int i = 64; i <= 65; i++)
	{
		sprintf(
			deep,
			"{\"success\":true,\"payload\":{\"resource\":{\"externalId\":\"a\",\"attributes\":{\"x\":%s1%s}}}}",
			repeat("[", i - 2), repeat("]", i - 2));
		ok(one_of(deep) && page.nrecords == (i == 64) && page.nfaults == (i == 65),
		   i == 64 ? "64 levels in one record" : "65 levels");
	}
	ok(page_parse_list(parser, "[{\"externalId\":\"b\"},{\"externalId\":\"a\"}]", 39, &page,
					   &problem) &&
		   page.success && page.nrecords == 2 && page.next_cursor == NULL &&
		   page.total_estimate == -1,
	   "a list without an envelope");
	page_make_empty(parser, &page);
	ok(page.success && page.nrecords == 0 && page.received == 0 && page.nfaults == 0,
	   "an empty page");
}

static void
test_rules(void)
{
	char			  *long_ascii = repeat("x", 256);
	char			  *long_utf8 = repeat("\xC3\xA9", 256);
	char			  *fits_utf8 = repeat("\xC3\xA9", 255);
	char			   buf[8192];
	char			  *big = palloc(9 * 1024 * 1024);
	const RecordFault *fault;

	for (int i = 0; i < lengthof(record_classes); i++)
		is(class_of(record_classes[i][0]), record_classes[i][1], record_classes[i][0]);

	sprintf(buf, "{\"externalId\":\"%s\"}", long_ascii);
	is(class_of(buf), "external_id_too_long", "256 characters of id");
	sprintf(buf, "{\"externalId\":\"%s\"}", fits_utf8);
	is(class_of(buf), "good", "255 characters of two bytes");
	sprintf(buf, "{\"externalId\":\"%s\"}", long_utf8);
	is(class_of(buf), "external_id_too_long", "256 characters of two bytes");
	sprintf(buf, "{\"externalId\":1,\"email\":\"%s\"}", long_ascii);
	is(class_of(buf), "email_too_long", "256 characters of e-mail");
	sprintf(buf, "{\"externalId\":%s}", repeat("1", 256));
	is(class_of(buf), "external_id_too_long", "256 digits");
	sprintf(buf, "{\"externalId\":\"a\",\"attributes\":{\"n\":%s}}", repeat("1", 4001));
	is(class_of(buf), "number_out_of_range", "4001 digits");
	sprintf(buf, "{\"externalId\":\"a\",\"attributes\":%s1%s}", repeat("{\"a\":", 63),
			repeat("}", 63));
	is(class_of(buf), "good", "64 levels");
	sprintf(buf, "{\"externalId\":\"a\",\"attributes\":%s1%s}", repeat("{\"a\":", 64),
			repeat("}", 64));
	is(class_of(buf), "nesting_too_deep", "65 levels");
	is(text_of(page.faults[0].external_id), "a", "a fault names the id");
	ok(page.faults[0].payload.len == (int) strlen(buf) &&
		   memcmp(page.faults[0].payload.data, buf, strlen(buf)) == 0,
	   "and holds the record's bytes");

	fault = fault_of("{\"email\":\"\xFF\",\"externalId\":\"ok\"}");
	is(fault ? error_class_name(fault->error_class) : "none", "invalid_utf8",
	   "bytes that are not UTF-8");
	is(fault ? text_of(fault->external_id) : "none", "ok", "and the id is known");
	fault = fault_of("{\"externalId\":\"\xC0\x80\"}");
	ok(fault && fault->error_class == ERRCLASS_INVALID_UTF8 && fault->external_id.data == NULL,
	   "an id that is not UTF-8 is not used");
	ok(fault_of("{\"externalId\":\"a\",\"x\":\"\xED\xA0\x80\"}") != NULL,
	   "an encoded surrogate is not UTF-8");
	ok(fault_of("{\"externalId\":\"bad\",\"email\":\"\xFF\"},{\"externalId\":\"good\"}") &&
		   page.nrecords == 1,
	   "the other records of the page stay");
	is(text_of(page.records[0].external_id), "good", "namely the good one");
	is_int(page.records[0].position, 1, "with its place");

	{
		const char *start =
			"{\"success\":true,\"payload\":{\"resources\":[{\"externalId\":\"big\",\"attributes\":{\"a\":\"";
		size_t at = strlen(start) + 8 * 1024 * 1024;

		memset(big, 'x', at);
		memcpy(big, start, strlen(start));
		strcpy(big + at, "\"}},{\"externalId\":\"small\"}]}}");
	}
	ok(page_of(big) && page.nfaults == 1 && page.faults[0].error_class == ERRCLASS_RECORD_TOO_LARGE,
	   "a record over 8 MB is set aside");
	is(text_of(page.faults[0].external_id), "big", "with its id");

	for (int i = 0; i < 2; i++)
	{
		char *heavy = palloc(6 * 1000 * 1000);

		/* 128 MB is what a record may take; 6000 leave room, 600,000 do not. */
		sprintf(heavy, "[{\"externalId\":\"h\",\"attributes\":{\"a\":[%s1]}}]",
				repeat("{},", i ? 600000 : 6000));
		ok(page_parse_records(parser, heavy, strlen(heavy), &page, &problem) && page.nfaults == i &&
			   (!i || page.faults[0].error_class == ERRCLASS_TOO_MANY_VALUES),
		   "many values in a record");
		ok(i ? strncmp(page.faults[0].external_id.data, "h", 1) == 0 : page.heaviest > 6000 * 200,
		   "and what they weigh");
	}
	{
		char *numbers = palloc(1024 * 1024);

		sprintf(numbers, "[{\"externalId\":\"n\",\"attributes\":{\"a\":[0%s]}}]",
				repeat(",1e400", 100000));
		ok(page_parse_records(parser, numbers, strlen(numbers), &page, &problem) &&
			   page.nfaults == 1 && page.faults[0].error_class == ERRCLASS_RECORD_TOO_LARGE,
		   "so is one whose numbers are over 16 MB when written out");
	}

	sprintf(buf, "{\"externalId\":1,\"displayName\":\"%sz\"}", fits_utf8);
	is(class_of(buf), "good", "a name of 256 characters");
	is_int(page.records[0].display_name.len, 510, "is cut at a character");
	is_int(page.truncated, 1, "and counted");
	sprintf(buf, "{\"externalId\":1,\"displayName\":\"%s\"}", fits_utf8);
	class_of(buf);
	is_int(page.truncated, 0, "one of 255 is not");
	{
		char hash[64];

		memcpy(hash, page.records[0].hash, 64);
		sprintf(buf, "{\"externalId\":1,\"displayName\":\"%szz\"}", fits_utf8);
		class_of(buf);
		ok(memcmp(hash, page.records[0].hash, 64) == 0, "the hash is over the cut name");
	}

	is(class_of("{\"externalId\":-12345678901234567890}"), "good", "an integer id");
	is(text_of(page.records[0].external_id), "-12345678901234567890", "is its digits");
	is(class_of("{\"externalId\":\"\\u0041\\\"\"}"), "good", "an id with escapes");
	is(text_of(page.records[0].external_id), "A\"", "is decoded");
	is(class_of("{\"externalId\":\"a\",\"attributes\":null,\"email\":null,\"displayName\":null}"),
	   "good", "nulls");
	ok(page.records[0].attributes.data == NULL && page.records[0].email.data == NULL &&
		   page.records[0].display_name.data == NULL && page.records[0].attributes_node == 0,
	   "are absent");
	is(class_of("{\"externalId\":\"x\",\"externalId\":\"y\"}"), "good", "a key twice");
	is(text_of(page.records[0].external_id), "y", "the last one counts");
}

static void
test_page(void)
{
	char *body;
	char  expect[20];
	char  long_error[3000];

	for (int i = 0; i < lengthof(page_problems); i++)
		ok(!page_of(page_problems[i]) && problem != NULL, page_problems[i]);
	for (int i = 0; i < lengthof(page_failures); i++)
	{
		ok(page_of(page_failures[i][0]) && !page.success, page_failures[i][0]);
		if (page_failures[i][1] != NULL)
			is(page.upstream_error, page_failures[i][1], "its reason");
		else
			ok(page.upstream_error != NULL && page.upstream_error[0] != '\0', "a reason of ours");
	}
	sprintf(long_error, "{\"success\":false,\"error\":\"x%s\"}", repeat("\xC3\xA9", 1000));
	ok(page_of(long_error) && strlen(page.upstream_error) == 1023,
	   "a long reason is cut at a character");

	for (int i = 0; i < lengthof(cursors); i++)
	{
		body = palloc(300);
		sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":%s}}",
				cursors[i][0]);
		ok(page_of(body) && page.success, body);
		is(page.next_cursor, cursors[i][1], "its cursor");
	}
	ok(page_of("{\"payload\":{\"totalEstimate\":12,\"resources\":[]},\"success\":true}") &&
		   page.total_estimate == 12,
	   "an estimate");
	ok(page_of("{\"payload\":{\"totalEstimate\":-1,\"resources\":[]},\"success\":true}") &&
		   page.total_estimate == -1,
	   "a negative one is none");
	ok(page_of("{\"payload\":{\"totalEstimate\":\"12\",\"resources\":[]},\"success\":true}") &&
		   page.total_estimate == -1,
	   "nor is a text");

	ok(page_of(
		   "{\"success\":true,\"payload\":{\"resources\":["
		   "{\"externalId\":\"b\",\"email\":\"1\"},{\"externalId\":\"a\"},{\"externalId\":\"b\",\"email\":\"2\"},"
		   "{\"externalId\":\"ab\"},{\"externalId\":\"b\",\"email\":3}]}}"),
	   "ids out of order, some twice");
	is_int(page.received, 5, "received");
	is_int(page.nrecords, 3, "left");
	is_int(page.duplicates, 1, "dropped");
	is_int(page.nfaults, 1, "faulty");
	sprintf(expect, "%s %s %s", text_of(page.records[0].external_id),
			text_of(page.records[1].external_id), text_of(page.records[2].external_id));
	is(expect, "a ab b", "in order, the shorter one first");
	is(text_of(page.records[2].email), "2", "the last good one stays");

	ok(page_of(
		   "{\"success\":true,\"payload\":{\"resources\":[],\"deleted\":[\"x\",7,\"\\u0079\",null,1.5,\"\"]}}"),
	   "deleted ids");
	is_int(page.ndeleted, 3, "three are of use");
	is(text_of(page.deleted[1]), "7", "an integer one");
	is(text_of(page.deleted[2]), "y", "one with an escape");
	is_int(page.nfaults, 3, "the others are faults");

	body = palloc(10002 * 3 + 100);
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[1%s]}}", repeat(",1", 9999));
	ok(page_of(body) && page.nfaults == 10000, "10000 records are taken");
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[1%s]}}", repeat(",1", 10000));
	ok(!page_of(body) && page.too_large, "10001 are not");
	is(problem, "the page has 10001 records, more than 10000", "which is said");
	body = palloc(4 * 1000 * 1000);
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[],\"deleted\":[\"x\"%s]}}",
			repeat(",\"x\"", 99999));
	ok(page_of(body) && page.ndeleted == 100000, "100000 deleted ids are taken");
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[],\"deleted\":[\"x\"%s]}}",
			repeat(",0.5", 100000));
	ok(!page_of(body) && page.too_large, "100001 are not, also if they are none");
	is(problem, "payload.deleted has 100001 entries, more than 100000", "which is said");
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":\"%s\"}}",
			repeat("\\u0061", 16384));
	ok(page_of(body) && strlen(page.next_cursor) == 16384, "a cursor of 16384 bytes");
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":\"%s\"}}",
			repeat("a", 16385));
	ok(!page_of(body) && page.too_large, "one more is too many");
	is(problem, "payload.nextCursor has 16385 bytes, more than 16384", "which is said");
	sprintf(body, "{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":%s}}",
			repeat("7", 16385));
	ok(!page_of(body) && page.too_large, "also of digits");
	ok(!page_of("{\"success\":true}") && !page.too_large, "what is no page is none of this");
	body = palloc(2 * 1000 * 1000 + 100);
	sprintf(body, "[1%s]", repeat(",1", 1000000));
	ok(!page_parse_records(parser, body, strlen(body), &page, &problem),
	   "a million and one records at once are not taken");
	is(problem, "there are 1000001, more than 1000000", "which is said");
	strcpy(body + strlen(body) - 3, "]");
	ok(page_parse_records(parser, body, strlen(body), &page, &problem) && page.nfaults == 1000000,
	   "a million are");
	page_fault(parser, &page, (Slice){"one more", 8}, ERRCLASS_RECORD_TOO_LARGE, (Slice){"", 0});
	ok(page.nfaults == 1000001 && page.received == 1000001 &&
		   page.faults[1000000].position == 1000000 &&
		   page.faults[0].error_class == ERRCLASS_RECORD_TYPE,
	   "and one more fault has room");

	ok(page_parse_records(parser, " [{\"externalId\":1},{\"externalId\":2}]", 36, &page,
						  &problem) &&
		   page.nrecords == 2,
	   "a bare list of records");
	ok(page_parse_records(parser, "{\"externalId\":1}", 16, &page, &problem) && page.nrecords == 1,
	   "a bare record");
	ok(page_parse_records(parser, "17", 2, &page, &problem) && page.nfaults == 1 &&
		   page.received == 1,
	   "something else is one fault");
	ok(!page_parse_records(parser, "", 0, &page, &problem), "nothing is a problem");
	{
		char deep[2000];

		sprintf(deep, "[{\"externalId\":1,\"attributes\":%s1%s}]", repeat("{\"a\":", 63),
				repeat("}", 63));
		ok(page_parse_records(parser, deep, strlen(deep), &page, &problem) && page.nrecords == 1,
		   "64 levels in a list");
		sprintf(deep, "{\"externalId\":1,\"attributes\":%s1%s}", repeat("{\"a\":", 64),
				repeat("}", 64));
		ok(page_parse_records(parser, deep, strlen(deep), &page, &problem) && page.nfaults == 1,
		   "65 levels alone");
	}
}

static void
hash_of(PageParser *with, const char *record, char *hash)
{
	memset(hash, 0, 65);
	if (page_parse_records(with, record, strlen(record), &page, &problem) && page.nrecords == 1)
		memcpy(hash, page.records[0].hash, 64);
}

static void
test_hash(void)
{
	static const char *const ignored[] = {"lastLogin", "attributes.a.b", "x.y.z", "list.seen", ""};
	PageParser				*ignoring = page_parser_create(ignored, lengthof(ignored), NULL);
	Canonical				*canonical = canonical_create();
	char					 one[65];
	char					 two[65];
	char					 expected[65] = "";

	hash_of(
		parser,
		"{\"externalId\":\"u1\",\"email\":\"A@b\",\"attributes\":{\"b\":[1.0,2],\"a\":\"\\u00e9\"}}",
		one);
	canonical_append_string(canonical, "x", 1);
	canonical_reset(canonical);
	canonical_append_bytes(
		canonical,
		"{\"attributes\":{\"a\":\"\xC3\xA9\",\"b\":[1,2]},\"displayName\":null,\"email\":\"A@b\",\"externalId\":\"u1\"}",
		strlen(
			"{\"attributes\":{\"a\":\"\xC3\xA9\",\"b\":[1,2]},\"displayName\":null,\"email\":\"A@b\",\"externalId\":\"u1\"}"));
	canonical_hash(canonical, expected);
	is(one, expected, "the digest of the canonical form");
	canonical_reset(canonical);
	canonical_append_bytes(canonical, "abc", 3);
	canonical_hash(canonical, expected);
	is(expected, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	   "SHA-256 of abc");
	hash_of(
		parser,
		"{ \"attributes\" : {\"a\":\"\xC3\xA9\", \"b\":[10e-1,2.0]}, \"email\":\"A@b\", \"externalId\":\"u1\", \"more\":1 }",
		two);
	is(two, one, "layout, order and spelling make no difference");
	hash_of(parser, "{\"externalId\":12345678901234567890}", one);
	hash_of(parser, "{\"externalId\":\"a\",\"attributes\":{\"id\":12345678901234567890}}", one);
	hash_of(parser, "{\"externalId\":\"a\",\"attributes\":{\"id\":12345678901234567891}}", two);
	ok(strcmp(one, two) != 0, "two 64-bit ids differ");

	hash_of(
		ignoring,
		"{\"externalId\":\"a\",\"attributes\":{\"k\":1,\"lastLogin\":5,\"a\":{\"b\":1,\"c\":2},\"x\":{\"y\":{\"z\":[]}},\"list\":[{\"seen\":1,\"id\":2},3,{\"seen\":2}]}}",
		one);
	hash_of(
		parser,
		"{\"externalId\":\"a\",\"attributes\":{\"a\":{\"c\":2},\"k\":1,\"x\":{\"y\":{}},\"list\":[{\"id\":2},3,{}]}}",
		two);
	is(one, two, "hash_ignore leaves members out at every level");
	hash_of(
		ignoring,
		"{\"externalId\":\"a\",\"attributes\":{\"b\":1,\"a\":1,\"c\":{\"lastLogin\":1},\"lastLogin2\":1}}",
		one);
	hash_of(
		parser,
		"{\"externalId\":\"a\",\"attributes\":{\"b\":1,\"a\":1,\"c\":{\"lastLogin\":1},\"lastLogin2\":1}}",
		two);
	is(one, two, "and nothing else");
	hash_of(ignoring, "{\"externalId\":\"a\",\"attributes\":{\"last\\u004cogin\":1}}", one);
	hash_of(parser, "{\"externalId\":\"a\",\"attributes\":{}}", two);
	is(one, two, "whatever the spelling of the key");
	ok(memcmp(page.records[0].attributes.data, "{}", 2) == 0, "attributes are the bytes that came");
	{
		static const char *const urn[] = {"urn:x:2.0:User.seen"};
		PageParser				*dotted = page_parser_create(urn, 1, NULL);

		hash_of(dotted, "{\"externalId\":\"a\",\"attributes\":{\"urn:x:2.0:User\":{\"seen\":1}}}",
				one);
		hash_of(parser, "{\"externalId\":\"a\",\"attributes\":{\"urn:x:2.0:User\":{}}}", two);
		is(one, two, "a key may hold dots itself");
	}
}

/* Gathers the ids of groups, up to "d". */
static bool
gather_group(void *arg, Slice id)
{
	char *out = arg;

	snprintf(out + strlen(out), 100 - strlen(out), "%.*s ", id.len, id.data);
	return id.len == 1 && *id.data == 'd';
}

static void
test_groups(void)
{
	const char *record =
		"{\"externalId\":\"u\",\"attributes\":{\"groups\":[\"a\",12,{\"id\":\"b\"},{\"externalId\":\"c\"},"
		"{\"id\":null,\"externalId\":7},{},null,true,\"\\u0064\",[],\"behind\"]}}";
	char   ids[100] = "";
	Record untied;

	page_parse_records(parser, record, strlen(record), &page, &problem);
	ok(page_group_ids(parser, &page.records[0], gather_group, ids), "the visitor ends it");
	is(ids, "a 12 b c 7 d ", "texts, integers, and either id of an object");
	untied = page.records[0];
	untied.attributes_node = 0;
	ids[0] = '\0';
	ok(page_group_ids(parser, &untied, gather_group, ids) &&
		   page_group_ids(parser, &untied, gather_group, ids),
	   "attributes without their tree, twice");
	is(ids, "a 12 b c 7 d a 12 b c 7 d ", "say the same");
	hash_of(parser, "{\"externalId\":\"u\",\"attributes\":{\"groups\":\"a\"}}", (char[65]){0});
	ids[0] = '\0';
	ok(!page_group_ids(parser, &page.records[0], gather_group, ids) && ids[0] == '\0',
	   "groups that are no list");
}

int
main(void)
{
	parser = page_parser_create(NULL, 0, NULL);
	test_parser();
	test_equals();
	test_weight();
	test_canonical();
	test_rules();
	test_other_pages();
	test_page();
	test_hash();
	test_groups();
	test_crypto();
	test_jwt();
	test_jwt_keys();
	test_outbound();
	test_foretell();
	test_known();
	test_rest();
	test_status();
	test_text();
	test_token_cache();
	printf("1..%d\n", tests);
	return failures != 0;
}
