/*
 * clean.c
 *	  Sanitizes external text (an upstream's answer, a reply of Redis, a
 *	  webhook, a certificate, an id or a name of a record) for messages, the
 *	  server log, and columns that report errors.
 *
 * All external text goes through here (test/layers checks it).  The result is
 * valid UTF-8 on one line: it cannot forge lines of the log, send control
 * sequences to a terminal, or reorder the text after it.
 * - Tabs and line and paragraph separators become a space.
 * - Other control characters (C0, DEL, C1), bidirectional formatting
 *   characters, and each byte that is not valid UTF-8 become "?".
 * Text is truncated at a character boundary.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/clean.h"

/*
 * The character at p, and how many bytes it has; -1: there is none.  As strict
 * as the server: no surrogates, nothing longer than it need be.
 */
static int
clean_char(const unsigned char *p, size_t left, int *len)
{
	static const int least[5] = {0, 0, 0x80, 0x800, 0x10000};
	int				 c = p[0];

	*len = c < 0x80			  ? 1 :
		c >= 0xC2 && c < 0xE0 ? 2 :
		c >= 0xE0 && c < 0xF0 ? 3 :
		c >= 0xF0 && c < 0xF5 ? 4 :
								0;
	if (*len == 0 || *len > left)
		return -1;
	if (*len == 1)
		return c;
	c &= 0x7F >> *len;
	for (int i = 1; i < *len; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return -1;
		c = c << 6 | (p[i] & 0x3F);
	}
	return c < least[*len] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000) ? -1 : c;
}

/* Replacement of a character: itself (0), or another. */
static char
clean_instead(int c)
{
	if ((c >= '\t' && c <= '\r') || c == 0x85 || c == 0x2028 || c == 0x2029)
		return ' ';
	if (c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || c == 0x200E || c == 0x200F ||
		(c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x206F))
		return '?';
	return 0;
}

typedef enum CleanMode
{
	CLEAN_PLAIN,
	CLEAN_WORDS,
	CLEAN_JSON
} CleanMode;

static size_t
clean_as(CleanMode mode, char *out, size_t size, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *) text;
	const unsigned char *end = p + len;
	size_t				 n = 0;

	while (p < end)
	{
		int			bytes;
		int			c = clean_char(p, end - p, &bytes);
		char		instead = c < 0 ? '?' : clean_instead(c);
		char		escape[8];
		const char *from = (const char *) p;
		size_t		add = instead ? 1 : bytes;

		if (instead)
			from = &instead;
		/* Outside of strings there are only blanks, and within none that is not escaped. */
		if (instead && mode == CLEAN_JSON && c >= 0x7F)
		{
			add = snprintf(escape, sizeof(escape), "\\u%04x", c);
			from = escape;
		}
		p += c < 0 ? 1 : bytes;
		if (mode == CLEAN_WORDS && *from == ' ' && (n == 0 || out[n - 1] == ' '))
			continue;
		if (n + add >= size)
			break;
		memmove(out + n, from, add);
		n += add;
	}
	out[n] = '\0';
	return n;
}

size_t
clean_into(char *out, size_t size, const char *text, size_t len)
{
	return clean_as(CLEAN_PLAIN, out, size, text, len);
}

static char *
clean_copy(CleanMode mode, const char *text, size_t len, size_t max)
{
	size_t size = Min(mode == CLEAN_JSON ? 6 * Min(len, max) : len, max) + 1;
	char  *out = palloc(size);

	clean_as(mode, out, size, text, len);
	return out;
}

char *
clean_text(const char *text, size_t len, size_t max)
{
	return clean_copy(CLEAN_PLAIN, text, len, max);
}

char *
clean(const char *text)
{
	return clean_text(text ? text : "", text ? strlen(text) : 0, CLEAN_MAX);
}

char *
clean_words(const char *text, size_t len, size_t max)
{
	return clean_copy(CLEAN_WORDS, text, len, max);
}

char *
clean_json(const char *text, size_t len, size_t max)
{
	return clean_copy(CLEAN_JSON, text, len, max);
}

/*
 * clean_id returns an id that can be stored and compared with others
 * whatever the bytes were: at most max bytes, cut at a character, what is no
 * UTF-8 replaced by "?".
 */
const char *
clean_id(const char *data, int len, int max, int *outlen)
{
	char *out = palloc(Min(len, max) + 1);
	int	  n = 0;

	for (int i = 0, l; i < len; i += l)
	{
		bool good = clean_char((const unsigned char *) data + i, len - i, &l) > 0;

		if (!good)
			l = 1;
		if (n + l > max)
			break;
		if (good)
			memcpy(out + n, data + i, l);
		else
			out[n] = '?';
		n += l;
	}
	out[n] = '\0';
	*outlen = n;
	return out;
}
