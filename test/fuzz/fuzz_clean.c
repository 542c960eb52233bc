/*
 * fuzz_clean.c
 *	  Any bytes as a text for a message: what comes out is one line of UTF-8
 *	  without anything that steers, in whatever room.  The first byte says how
 *	  much there is.
 */
#include "base/standalone.h"

#include "mb/pg_wchar.h"

#include "base/clean.h"
#include "json/canonical.h"
#include "json/json.h"

jmp_buf *standalone_catch;

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "check failed: %s\n", #condition); \
			abort(); \
		} \
	} while (0)

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Told by the bytes, not by the characters. */
static bool
steers(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *) text;

	for (size_t i = 0; i < len; i++)
	{
		int next = i + 1 < len ? p[i + 1] : 0;
		int third = i + 2 < len ? p[i + 2] : 0;

		if (p[i] < 0x20 || p[i] == 0x7F || (p[i] == 0xC2 && next >= 0x80 && next <= 0x9F) ||
			(p[i] == 0xD8 && next == 0x9C) ||
			(p[i] == 0xE2 && next == 0x80 &&
			 ((third >= 0xA8 && third <= 0xAE) || third == 0x8E || third == 0x8F)) ||
			(p[i] == 0xE2 && next == 0x81 && third >= 0xA6 && third <= 0xAF))
			return true;
	}
	return false;
}

static bool
valid(const char *text, size_t len)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, (int) len) == (int) len &&
		memchr(text, '\0', len) == NULL;
}

static void
check(const char *text, size_t len)
{
	CHECK(strlen(text) == len);
	CHECK(valid(text, len));
	CHECK(!steers(text, len));
}

/* The canonical form of a text, malloc'd; NULL when it is no JSON, or none that can be stored. */
static char *
canonical_of(const char *text, size_t len)
{
	static JsonParser *parser = NULL;
	static Canonical  *canonical = NULL;
	char			  *form;

	if (parser == NULL)
	{
		parser = json_parser_create_limited(65536);
		canonical = canonical_create();
	}
	if (!json_parse(parser, text, len, 64) || (parser->nodes[JSON_ROOT].flags & JSON_F_BAD))
		return NULL;
	canonical_reset(canonical);
	canonical_append_node(canonical, parser, JSON_ROOT, NULL, 0);
	form = malloc(canonical->len + 1);
	memcpy(form, canonical->data, canonical->len);
	form[canonical->len] = '\0';
	return form;
}

/* A JSON text says what it said, with other escapes. */
static void
check_json(const char *text, size_t len)
{
	char *clean = clean_json(text, len, 6 * len);
	char *before = valid(text, len) ? canonical_of(text, len) : NULL;

	check(clean, strlen(clean));
	if (before)
	{
		char *after = canonical_of(clean, strlen(clean));

		CHECK(after != NULL && strcmp(before, after) == 0);
		free(after);
	}
	free(before);
	pfree(clean);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text;
	size_t		room;
	char	   *whole;
	char	   *words;
	char	   *copy;
	char	   *cut;
	size_t		n;

	if (size == 0)
		return 0;
	room = data[0] + 1;
	text = (const char *) data + 1;
	size--;
	whole = clean_text(text, size, size);
	check(whole, strlen(whole));
	CHECK(strlen(whole) <= size);
	if (valid(text, size) && !steers(text, size))
		CHECK(strlen(whole) == size && memcmp(whole, text, size) == 0);

	/* In little room the same, as far as it goes. */
	cut = malloc(room);
	n = clean_into(cut, room, text, size);
	check(cut, n);
	CHECK(n < room && strncmp(cut, whole, n) == 0);
	CHECK(strlen(whole) < room ? n == strlen(whole) : n + 4 >= room);
	free(cut);

	/* In its own place, too. */
	copy = malloc(size + 1);
	memcpy(copy, text, size);
	CHECK(clean_into(copy, size + 1, copy, size) == strlen(whole) && strcmp(copy, whole) == 0);
	free(copy);

	words = clean_words(text, size, size);
	check(words, strlen(words));
	CHECK(words[0] != ' ' && strstr(words, "  ") == NULL);
	pfree(words);
	pfree(whole);
	check_json(text, size);
	return 0;
}
