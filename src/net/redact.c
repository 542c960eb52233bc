/*
 * redact.c
 *	  Finds secrets in a text, in any spelling.
 *
 * An upstream that echoes what it was sent may encode it, differently in each
 * place.  So at every position of the text all readings are considered: the byte
 * itself, an escape of JSON (also within JSON in a string), of a URL or a form,
 * of HTML.  An escape may also be part of the secret itself ("%41" in a secret
 * that contains "%41"), so all readings are followed.  Case is ignored: host
 * names come back in lower case.
 *
 * The search scans the text once for each secret.  It keeps, for every
 * position not far ahead, how many bytes of the secret may have been read there,
 * and where the earliest such match began; each number of bytes is kept
 * once, whatever readings lead to it.  So the time is at most text length times
 * secret length, and linear for any but a self-repeating secret.
 *
 * In base64 a secret is searched for in its three possible encodings, depending
 * on the number of bytes before it.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/hex.h"
#include "json/json.h"
#include "net/crypto.h"
#include "net/redact.h"

#define REDACT_WIDEST 14 /* bytes of the text for one character: two units of JSON in JSON */
#define REDACT_RING	  16 /* a power of two above that */
#define REDACT_TOKENS 4	 /* ways to read a position, at most */
#define REDACT_ROUNDS 4
#define REDACT_SHAPES 4 /* plain, and three of base64 */

/* One way to read a position: so many bytes of the text stand for these of a secret. */
typedef struct RedactToken
{
	int			  width;
	int			  n;
	unsigned char bytes[4];
} RedactToken;

static void
token_add(RedactToken *tokens, int *n, int width, uint32 c)
{
	RedactToken *t = &tokens[(*n)++];

	t->width = width;
	t->n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (int i = t->n - 1; i > 0; i--, c >>= 6)
		t->bytes[i] = 0x80 | (c & 0x3F);
	t->bytes[0] = t->n == 1 ? c : (0xF0 << (4 - t->n) & 0xFF) | c;
}

static void
token_add_byte(RedactToken *tokens, int *n, int width, unsigned char byte)
{
	tokens[(*n)++] = (RedactToken){width, 1, {byte}};
}

/* A unit of JSON at p, behind "\u"; -1: there is none. */
static int
token_unit(const unsigned char *p, const unsigned char *end)
{
	return end - p >= 4 ? json_hex4(p) : -1;
}

/* What follows a backslash, of which there are some. */
static void
token_escape(RedactToken *tokens, int *n, const unsigned char *p, const unsigned char *end,
			 int backslashes)
{
	static const char letters[] = "nrtbf";
	static const char meanings[] = "\n\r\t\b\f";
	const char		 *letter;
	int				  unit;
	int				  low;

	if (p == end)
		return;
	if (*p == 'u' && (unit = token_unit(p + 1, end)) >= 0)
	{
		int width = backslashes + 5;

		if (unit >= 0xD800 && unit < 0xDC00 && end - p >= width + 5 &&
			memcmp(p + 5, "\\\\", backslashes) == 0 && p[5 + backslashes] == 'u' &&
			(low = token_unit(p + 6 + backslashes, end)) >= 0xDC00 && low < 0xE000)
			token_add(tokens, n, 2 * width, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
		else
			token_add(tokens, n, width, unit);
	}
	else if (*p == 'x' && end - p >= 3 && hex_byte(p + 1) >= 0)
		token_add_byte(tokens, n, backslashes + 3, hex_byte(p + 1));
	else if ((letter = memchr(letters, *p, sizeof(letters) - 1)) != NULL)
		token_add_byte(tokens, n, backslashes + 1, meanings[letter - letters]);
	else
		token_add_byte(tokens, n, backslashes + 1, *p);
}

/* "&amp;", "&#38;", "&#x26;" */
static void
token_entity(RedactToken *tokens, int *n, const unsigned char *p, const unsigned char *end)
{
	static const struct
	{
		const char *name;
		char		c;
	} names[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
	const unsigned char *q = p + 2;
	int					 base = 10;
	uint32				 c = 0;

	for (size_t i = 0; i < lengthof(names); i++)
		if (end - p >= strlen(names[i].name) &&
			memcmp(p, names[i].name, strlen(names[i].name)) == 0)
			token_add_byte(tokens, n, strlen(names[i].name), names[i].c);
	if (end - p < 4 || p[1] != '#')
		return;
	if (*q == 'x' || *q == 'X')
	{
		base = 16;
		q++;
	}
	for (; q < end && q - p < REDACT_WIDEST - 1; q++)
	{
		int digit = hex_digit(*q);

		if (digit < 0 || digit >= base || (c = c * base + digit) > 0x10FFFF)
			break;
	}
	if (q < end && *q == ';' && c > 0 && c <= 0x10FFFF)
		token_add(tokens, n, q + 1 - p, c);
}

/* All ways to read the text at p. */
static int
token_list(RedactToken *tokens, const unsigned char *p, const unsigned char *end)
{
	int n = 0;

	token_add_byte(tokens, &n, 1, *p);
	switch (*p)
	{
		case '+':
			token_add_byte(tokens, &n, 1, ' ');
			break;
		case '\\':
			token_escape(tokens, &n, p + 1, end, 1);
			/* JSON in a text of JSON */
			if (end - p >= 3 && p[1] == '\\' && p[2] != '\\')
				token_escape(tokens, &n, p + 2, end, 2);
			else if (end - p >= 4 && p[1] == '\\' && p[2] == '\\')
				token_add_byte(tokens, &n, 4, p[3]);
			break;
		case '%':
			if (end - p >= 3 && hex_byte(p + 1) >= 0)
				token_add_byte(tokens, &n, 3, hex_byte(p + 1));
			/* encoded twice */
			if (end - p >= 5 && p[1] == '2' && p[2] == '5' && hex_byte(p + 3) >= 0)
				token_add_byte(tokens, &n, 5, hex_byte(p + 3));
			break;
		case '&':
			token_entity(tokens, &n, p, end);
			break;
	}
	Assert(n <= REDACT_TOKENS);
	return n;
}

/* A secret in one of its shapes. */
typedef struct RedactShape
{
	const unsigned char *bytes;
	int					 len;
	bool				 base64;
} RedactShape;

static unsigned char
shape_fold(const RedactShape *shape, unsigned char c)
{
	if (shape->base64 && c == '-')
		return '+';
	if (shape->base64 && c == '_')
		return '/';
	return pg_tolower(c);
}

/* Does a shape go on with a token behind so many bytes? */
static bool
shape_goes_on(const RedactShape *shape, int at, const RedactToken *token)
{
	if (token->n > shape->len - at)
		return false;
	for (int i = 0; i < token->n; i++)
		if (shape_fold(shape, shape->bytes[at + i]) != shape_fold(shape, token->bytes[i]))
			return false;
	return true;
}

/* How many bytes of the shape may have been read at one position, and from where on. */
typedef struct RedactPlace
{
	int32 *from;	/* by that number; -1: it has not */
	int32 *reached; /* the numbers */
	int	   n;
} RedactPlace;

static void
place_add(RedactPlace *place, int read, int32 from)
{
	if (place->from[read] < 0)
	{
		place->from[read] = from;
		place->reached[place->n++] = read;
	}
	else
		place->from[read] = Min(place->from[read], from);
}

/* Is there nothing left of the text but an escape that was cut? */
static bool
redact_is_cut(const unsigned char *p, const unsigned char *end)
{
	return p == end ||
		(end - p < REDACT_WIDEST && (*p == '\\' || *p == '%' || *p == '&') &&
		 memchr(p, ' ', end - p) == NULL);
}

/*
 * Looks for a shape.  hidden[i] becomes the beginning of what has to be hidden
 * and ends before byte i, if that is before what is there.  With whole, it is
 * not touched, and the answer is whether all of the shape was found.
 */
static bool
redact_search(const RedactShape *shape, const char *text, int32 len, bool whole, int32 *hidden)
{
	const unsigned char *start = (const unsigned char *) text;
	const unsigned char *end = start + len;
	int					 most = Min(shape->len, len); /* no more can be read */
	int					 enough = Min(shape->len, REDACT_TELLING);
	unsigned char		 first = shape_fold(shape, shape->bytes[0]);
	RedactPlace			 ring[REDACT_RING];
	int32				*numbers = palloc(2 * REDACT_RING * sizeof(int32) * (most + 1));
	int					 open = 0; /* numbers in the ring */
	bool				 found = false;

	memset(numbers, 0xFF, REDACT_RING * sizeof(int32) * (most + 1));
	for (int i = 0; i < REDACT_RING; i++)
		ring[i] = (RedactPlace){numbers + (most + 1) * i, numbers + (most + 1) * (REDACT_RING + i),
								0};
	for (int32 i = 0; i <= len && !found; i++)
	{
		const unsigned char *p = start + i;
		RedactPlace			*here = &ring[i % REDACT_RING];
		RedactToken			 tokens[REDACT_TOKENS];
		int					 ntokens;

		for (int k = 0; k < here->n; k++)
		{
			int read = here->reached[k];

			if (whole)
				found |= read == shape->len;
			else if (read >= enough || (read >= REDACT_MIN && redact_is_cut(p, end)))
				hidden[i] = Min(hidden[i], here->from[read]);
		}
		/* Most of a text is nothing that a secret begins with. */
		if (p == end ||
			(open == 0 && shape_fold(shape, *p) != first && strchr("\\%&+", *p) == NULL))
			continue;
		ntokens = token_list(tokens, p, end);
		place_add(here, 0, i);
		for (int k = 0; k < here->n; k++)
		{
			int read = here->reached[k];

			for (int t = 0; t < ntokens; t++)
			{
				RedactPlace *there = &ring[(i + tokens[t].width) % REDACT_RING];
				int			 before = there->n;

				if (!shape_goes_on(shape, read, &tokens[t]) || read + tokens[t].n > most)
					continue;
				place_add(there, read + tokens[t].n, here->from[read]);
				open += there->n - before;
			}
			here->from[read] = -1;
			open -= read > 0;
		}
		here->n = 0;
	}
	pfree(numbers);
	return found;
}

/* The shapes of a secret; those of base64 are palloc'd in *room. */
static int
redact_shapes(const char *secret, RedactShape *shapes, char **room)
{
	size_t len = strlen(secret);
	int	   n = 0;

	*room = NULL;
	if (len < REDACT_MIN)
		return 0;
	shapes[n++] = (RedactShape){(const unsigned char *) secret, (int) len, false};
	*room = palloc(3 * CRYPTO_BASE64_SIZE(len + 2) + len + 2);
	for (size_t before = 0; before < 3; before++)
	{
		char  *encoded = *room + before * CRYPTO_BASE64_SIZE(len + 2);
		char  *padded = *room + 3 * CRYPTO_BASE64_SIZE(len + 2);
		size_t from = (before * 8 + 5) / 6; /* characters of which the secret says all bits */
		size_t to = (before + len) * 8 / 6;

		memset(padded, 0, before);
		memcpy(padded + before, secret, len);
		crypto_base64_encode(CRYPTO_BASE64, padded, before + len, encoded);
		if (to - from >= REDACT_TELLING)
			shapes[n++] = (RedactShape){(const unsigned char *) encoded + from, (int) (to - from),
										true};
	}
	return n;
}

/* Looks for all secrets; as redact_search. */
static bool
redact_search_all(const char *const *secrets, int n, const char *text, size_t len, bool whole,
				  int32 *hidden)
{
	bool found = false;

	for (int i = 0; i < n && !found; i++)
	{
		RedactShape shapes[REDACT_SHAPES];
		char	   *room;
		int			nshapes;

		if (secrets[i] == NULL || (whole && strlen(secrets[i]) < REDACT_TELLING))
			continue;
		nshapes = redact_shapes(secrets[i], shapes, &room);
		for (int k = 0; k < nshapes && !found; k++)
			found = redact_search(&shapes[k], text, (int32) len, whole, hidden);
		if (room)
		{
			crypto_wipe(room,
						3 * CRYPTO_BASE64_SIZE(strlen(secrets[i]) + 2) + strlen(secrets[i]) + 2);
			pfree(room);
		}
	}
	return found;
}

/* Takes out what is found, in place; true when that was anything. */
static bool
redact_once(const char *const *secrets, int n, char *text, size_t *len, int32 *hidden)
{
	int32  from = (int32) *len;
	bool   any = false;
	size_t out = 0;

	for (size_t i = 0; i <= *len; i++)
		hidden[i] = (int32) i;
	(void) redact_search_all(secrets, n, text, *len, false, hidden);
	/* Of all that ends before byte i or behind it, the earliest beginning. */
	for (size_t i = *len + 1; i-- > 0;)
	{
		any |= hidden[i] < (int32) i;
		hidden[i] = from = Min(from, hidden[i]);
	}
	if (!any)
		return false;
	for (size_t i = 0; i < *len;)
	{
		size_t upto = i;

		/* Byte upto is hidden when something that ends behind it begins at or before it. */
		while (upto < *len && hidden[upto + 1] <= (int32) upto)
			upto++;
		if (upto == i)
			text[out++] = text[i++];
		else
		{
			memcpy(text + out, "***", 3);
			out += 3;
			i = upto;
		}
	}
	*len = out;
	return true;
}

char *
redact(const char *const *secrets, int n, const char *text, size_t len)
{
	char  *copy = palloc(len + REDACT_TELLING);
	int32 *hidden = palloc((len + 1) * sizeof(int32));
	int	   round = 0;

	for (size_t i = 0; i < len; i++)
		copy[i] = text[i] ? text[i] : '?';
	/* A secret with "***" in it may come to be by the hiding of another. */
	while (redact_once(secrets, n, copy, &len, hidden))
	{
		if (++round < REDACT_ROUNDS)
			continue;
		memcpy(copy, "***", 3);
		len = 3;
		break;
	}
	copy[len] = '\0';
	pfree(hidden);
	return copy;
}

bool
redact_finds(const char *const *secrets, int n, const char *text, size_t len)
{
	return redact_search_all(secrets, n, text, len, true, NULL);
}
