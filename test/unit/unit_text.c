/*
 * unit_text.c
 *	  Checks what is done to text from outside before it is told: clean.c and
 *	  redact.c.
 */
#include "unit.h"

#include <time.h>

#include "base/clean.h"
#include "net/redact.h"
#include "spell.h"

static const char *
cleaned(const char *text, size_t len)
{
	/* A copy of its own size: a sanitizer sees each byte read past the end. */
	char *copy = malloc(len ? len : 1);
	char *out;

	memcpy(copy, text, len);
	out = clean_text(copy, len, len);
	free(copy);
	return out;
}

static void
test_clean(void)
{
	static const struct
	{
		const char *text;
		const char *clean;
	} cases[] = {
		{"as it is: \xC3\xBC \xE2\x82\xAC \xF0\x9F\x98\x80 ~",
		 "as it is: \xC3\xBC \xE2\x82\xAC \xF0\x9F\x98\x80 ~"},
		{"", ""},
		{"\x1b[31mred\x1b[0m", "?[31mred?[0m"},
		{"a\nLOG:  forged\r\n\tb\v\f", "a LOG:  forged   b  "},
		{"\x01\x02\x1f\x7f", "????"},
		{"\xC2\x85|\xC2\x80|\xC2\x9B"
		 "31m|\xC2\x9F|\xC2\xA0",
		 " |?|?31m|?|\xC2\xA0"},
		{"a\xE2\x80\xA8"
		 "b\xE2\x80\xA9"
		 "c",
		 "a b c"},
		{"\xE2\x80\xAA\xE2\x80\xAB\xE2\x80\xAC\xE2\x80\xAD\xE2\x80\xAE\xE2\x81\xA6\xE2\x81\xA7\xE2\x81\xA8\xE2\x81\xA9",
		 "?????????"},
		{"\xE2\x80\x8E\xE2\x80\x8F\xD8\x9C", "???"},
		{"\xE2\x80\xA7\xE2\x80\xAF\xE2\x81\xA5\xE2\x81\xB0",
		 "\xE2\x80\xA7\xE2\x80\xAF\xE2\x81\xA5\xE2\x81\xB0"},
		{"\xFF\xC0\x80\xC1\xBF", "?????"},
		{"\xED\xA0\x80|\xF4\x90\x80\x80|\xE0\x80\x80|\xF0\x80\x80\x80", "???|????|???|????"},
		{"\xC3", "?"},
		{"a\xE2\x82", "a??"},
		{"\xE2\x82[", "??["},
		{"\x80"
		 "a",
		 "?a"},
	};
	char buf[16];

	for (int i = 0; i < lengthof(cases); i++)
		is(cleaned(cases[i].text, strlen(cases[i].text)), cases[i].clean, "a text is made clean");
	is(cleaned("a\0b", 3), "a?b", "so is a NUL");
	for (int size = 1; size <= 12; size++)
	{
		size_t n = clean_into(buf, size,
							  "ab\xE2\x82\xAC"
							  "c\xF0\x9F\x98\x80",
							  10);

		ok(n < size && strlen(buf) == n &&
			   strncmp(buf,
					   "ab\xE2\x82\xAC"
					   "c\xF0\x9F\x98\x80",
					   n) == 0 &&
			   (n == 0 || n == 1 || n == 2 || n == 5 || n == 6 || n == 10),
		   "a cut is made at a character");
	}
	strcpy(buf,
		   "a\xC2\x9B\xE2\x80\xAE"
		   "b\xFF");
	is_int(clean_into(buf, sizeof(buf), buf, strlen(buf)), 5, "a text is made clean where it is");
	is(buf, "a??b?", "and all of it");
	is(clean(NULL), "", "no text is an empty one");
	is(clean_words("\n\n  a \t b\r\n", 11, 100), "a b ", "blanks and ends of lines are one blank");
	is(clean_json("{\"a\":\"\xE2\x80\xAE\xC2\x9B\x7F\",\n\"b\":1}", 21, 100),
	   "{\"a\":\"\\u202e\\u009b\\u007f\", \"b\":1}", "in JSON there are escapes instead");
	is(clean_json("\"\xE2\x80\xAE\xE2\x80\xAE\"", 8, 10), "\"\\u202e", "and none is cut");
}

static const char *
redacted(const char *secret, const char *text)
{
	const char *secrets[3] = {NULL, secret, "another-secret"};
	size_t		len = strlen(text);
	char	   *copy = malloc(len ? len : 1);
	char	   *out;

	memcpy(copy, text, len);
	out = redact(secrets, 3, copy, len);
	free(copy);
	return out;
}

static const char *
written(const char *secret, Spelling how)
{
	StringInfoData out;

	initStringInfo(&out);
	spell(&out, secret, how);
	return out.data;
}

static void
test_spellings(void)
{
	/* clang-format off */
	static const char *const secrets[] = {
		"plain-Secret_1", "with blank and \"quotes\"", "100%25 sure", "%41%42%43%44", "a%2541b%5Cc", "C:\\path\\name", "\\\\server\\share",
		"\\u0041\\n\\\"", "a\\/b/c", "pass+word +1", "a&amp;b&lt;c<d>'e'", "&#65;&#x41;abc", "gr\xC3\xBC\xC3\x9F" "e-\xE2\x82\xAC",
		"\xF0\x9F\x98\x80\xF0\x9F\x94\x91 key", "line 1\nline 2\ttab\x01", "%%%%", "\\\\\\\\", "++++", "&&&&&&&&", "%5C%22%25", "%u0041%zz%", "\\"
		"u00", "abab%61abab%61X", "***secret***", "a%", "abc\\"
	};
	/* clang-format on */
	char name[200];

	for (int i = 0; i < lengthof(secrets); i++)
	{
		for (int how = 0; how < SPELLINGS; how++)
		{
			char	   *text = psprintf("<b>%s</b>", written(secrets[i], how));
			const char *left = redacted(secrets[i], text);

			snprintf(name, sizeof(name), "secret %d in spelling %d is found", i, how);
			if (strlen(secrets[i]) < REDACT_MIN)
				is(left, text, "a very short secret is in any text");
			else
				is(left, "<b>***</b>", name);
			if (strlen(secrets[i]) >= REDACT_TELLING)
			{
				const char *one[1] = {secrets[i]};

				ok(redact_finds(one, 1, text, strlen(text)), "and found to be there");
				text[strlen(text) - 5] = '\0';
				/* What begins an escape may be itself. */
				ok(strchr("%&\\5", secrets[i][strlen(secrets[i]) - 1]) != NULL ||
					   !redact_finds(one, 1, text, strlen(text)),
				   "and not all of it without its end");
			}
		}
		for (int before = 0; before < 6 && strlen(secrets[i]) >= REDACT_TELLING; before++)
		{
			char	   *pair = psprintf("%.*s%s", before, "user::", secrets[i]);
			char	   *encoded = palloc(CRYPTO_BASE64_SIZE(strlen(pair)));
			const char *left;

			crypto_base64_encode(before & 1 ? CRYPTO_BASE64URL : CRYPTO_BASE64, pair, strlen(pair),
								 encoded);
			left = redacted(secrets[i], psprintf("Authorization: Basic %s", encoded));
			snprintf(name, sizeof(name), "secret %d in base64 behind %d bytes is found", i, before);
			ok(strstr(left, "***") != NULL &&
				   strlen(left) <= strlen("Authorization: Basic ***") + (before + 2) / 3 * 4 + 4,
			   name);
		}
	}
}

static void
test_redact(void)
{
	is(redacted("secret-token", "no such token: Secret-Token!"), "no such token: ***!",
	   "capitals and small letters are the same");
	is(redacted("secret-token", "https://SECRET-TOKEN.example.com/secret-token"),
	   "https://***.example.com/***", "twice");
	is(redacted("secret-token", "secret-tokensecret-token"), "***", "and side by side");
	is(redacted("secret-token", "a secret-t"), "a ***", "a cut one");
	is(redacted("secret-token", "a secr"), "a ***", "also the beginning, at the end of the text");
	is(redacted("secret-token", "a sec"), "a sec", "but not less than four characters of it");
	is(redacted("secret-token", "a secret-token-like secret-to and secret"),
	   "a ***-like *** and ***", "or eight of them anywhere");
	is(redacted("a\"bcdef", "x a\\\"bcd\\u00"), "x ***\\u00",
	   "where the text ends within an escape, too");
	is(redacted("secret-token", "a secr et-token"), "a secr et-token",
	   "what is another text stays");
	is(redacted("abcabcabX", "abcabcabcabX."), "***.",
	   "a secret that begins within what looked like it");
	is(redacted("abcabcab%X", "abcabcabcab%25X."), "***.", "and goes on with an escape");
	is(redacted("abc***defgh", "abcabc***defghdefgh and more"), "*** and more",
	   "what is left cannot become the secret");
	is(redacted("secret-token", "another-secret, secret-token"), "***, ***",
	   "of some secrets each");
	is(redacted("%41%42", "AB %2541%2542 %41%42"), "AB *** ***",
	   "what looks like an escape need not be one");
	is(redacted("user:\\n", "user:\n user:\\n user:\\\\n"), "user:\n *** ***",
	   "a backslash that is one, and not the end of a line");
	{
		const char *none[1] = {NULL};

		is(redact(none, 1, "a\0b", 3), "a?b", "without a secret all stays, but for NULs");
		is(redact(NULL, 0, "", 0), "", "nothing in nothing");
	}
}

/*
 * Steps are counted by the processor's time of this thread; a wrong order of growth is far
 * beyond any load.
 */
static double
seconds_for(const char *secret, const char *piece, int times)
{
	StringInfoData text;
	clock_t		   start;
	char		  *left;

	initStringInfo(&text);
	for (int i = 0; i < times; i++)
		appendStringInfoString(&text, piece);
	start = clock();
	left = (char *) redacted(secret, text.data);
	pfree(left);
	pfree(text.data);
	return (double) (clock() - start) / CLOCKS_PER_SEC;
}

static void
test_hostile(void)
{
	static const char *const pieces[] = {
		"%25", "%2525",		  "\\", "\\\\", "\\u005c",			 "%5C", "&#92;", "&amp;", "+", "a",
		"%41", "\\u0061%61a", "%",	"&",	"\\\\u005c\\\\u005c"};
	static const char *const secrets[] = {
		"%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25X",
		"\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\X",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaX",
		"++++++++++    ++++++++X",
		"&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;X",
		"\\u005c%5C\\u005c%5C\\u005c%5C\\u005c%5C\\u005c%5CX",
	};
	double most = 0;

	for (int s = 0; s < lengthof(secrets); s++)
		for (int p = 0; p < lengthof(pieces); p++)
			most = Max(most, seconds_for(secrets[s], pieces[p], 16384 / strlen(pieces[p])));
	/* Two ways for each of twenty characters would be a million times the work of one. */
	ok(most < 60, "a text made to be read in many ways takes no more time than others");
	printf("# at most %.3f s\n", most);
	{
		char *long_secret = palloc(8193);

		memset(long_secret, '\\', 8192);
		long_secret[8192] = '\0';
		ok(seconds_for(long_secret, "\\\\", 4096) < 60, "nor with a secret that repeats itself");
	}
}

void
test_text(void)
{
	test_clean();
	test_spellings();
	test_redact();
	test_hostile();
}
