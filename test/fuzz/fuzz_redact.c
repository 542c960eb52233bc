/*
 * fuzz_redact.c
 *	  A secret in a text, written down in some way: it must not be found in what
 *	  redact() leaves, in whatever way.
 *
 * First byte: the length of the secret; then so many of its characters; how it
 * is written down; and the text around it.  All are taken from few characters,
 * so that secret, text and escapes often look like each other.
 */
#include "spell.h"

#include "mb/pg_wchar.h"

#include "net/redact.h"

jmp_buf *standalone_catch;

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "check failed: %s\nsecret: %s\ntext: %s\nleft: %s\n", #condition, \
					secret.data, text.data, left); \
			abort(); \
		} \
	} while (0)

/* clang-format off */
static const char *const pieces[] = {
	"%", "\\", "2", "5", "4", "1", "u", "0", "\"", "/", "+", " ", "&", ";", "#", "x", "*", "a", "b", "C", "n", "\n", "-", "=",
	"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "%25", "%41", "\\u00", "\\\\", "amp;"
};
/* clang-format on */

#define BASE64_PLAIN SPELLINGS
#define BASE64_URL	 (SPELLINGS + 1)
#define MIXED		 (SPELLINGS + 2)
#define WAYS		 (SPELLINGS + 3)

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
plant(StringInfo text, const char *secret, int how, const uint8_t **data, const uint8_t *end)
{
	if (how < SPELLINGS)
		spell(text, secret, how);
	else if (how == MIXED)
	{
		for (int len; *secret; secret += len)
		{
			uint32 c = spell_char(secret, &len);

			spell_one(text, secret, len, c, *data < end ? *(*data)++ % SPELLINGS : SPELL_PLAIN);
		}
	}
	else
	{
		int	   before = *data < end ? *(*data)++ % 5 : 0;
		size_t len = strlen(secret);
		char  *all = malloc(before + len + 1);
		char  *encoded = malloc(CRYPTO_BASE64_SIZE(before + len));

		memcpy(all, "user:", before);
		strcpy(all + before, secret);
		crypto_base64_encode(how == BASE64_URL ? CRYPTO_BASE64URL : CRYPTO_BASE64, all,
							 before + len, encoded);
		appendStringInfoString(text, encoded);
		free(all);
		free(encoded);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size;
	StringInfoData secret;
	StringInfoData text;
	const char	  *secrets[2] = {NULL, NULL};
	char		  *left;
	char		  *again;
	int			   chars;
	int			   how;
	size_t		   half;

	if (size < 3)
		return 0;
	initStringInfo(&secret);
	initStringInfo(&text);
	chars = *data++ % 40 + 1;
	while (chars-- > 0 && data < end)
		appendStringInfoString(&secret, pieces[*data++ % lengthof(pieces)]);
	how = data < end ? *data++ % WAYS : 0;
	half = (end - data) / 2;
	for (size_t i = 0; i < half; i++)
		appendStringInfoString(&text, pieces[*data++ % lengthof(pieces)]);
	plant(&text, secret.data, how, &data, end);
	while (data < end)
	{
		/* Also what is no UTF-8. */
		if (*data >= 224)
			appendStringInfoChar(&text, (char) *data++);
		else
			appendStringInfoString(&text, pieces[*data++ % lengthof(pieces)]);
	}

	secrets[1] = secret.data;
	left = redact(secrets, 2, text.data, text.len);
	CHECK(strlen(left) <= text.len);
	if (secret.len >= REDACT_MIN)
		CHECK(!spell_is_in(left, secret.data));
	for (int before = 0; before < 3 && (how == BASE64_PLAIN || how == BASE64_URL); before++)
	{
		char *encoded = spell_base64(secret.data, before,
									 how == BASE64_URL ? CRYPTO_BASE64URL : CRYPTO_BASE64);

		if (secret.len >= REDACT_MIN && strlen(encoded) >= REDACT_TELLING)
			CHECK(!spell_is_in(left, encoded));
		free(encoded);
	}
	if (secret.len >= REDACT_TELLING)
		CHECK(redact_finds(secrets, 2, text.data, text.len) || strlen(left) < text.len);
	again = redact(secrets, 2, left, strlen(left));
	CHECK(strcmp(again, left) == 0);
	pfree(again);
	pfree(left);
	pfree(secret.data);
	pfree(text.data);
	return 0;
}
