/*
 * source_secret.c
 *	  Secrets of a source: how a kind gets at them, and how they stay out of
 *	  what is told about an upstream.
 *
 * An upstream may send back what it was sent.  Whatever of an answer goes into
 * a message passes source_redacted first: each secret of the connector in it,
 * and what a kind made of one (source_hide), becomes "***", also where it is
 * written with the escapes of JSON or of an address.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "crypto.h"
#include "source.h"

#define SECRET_MIN_HIDDEN	4		/* shorter ones are in any text */
#define SECRET_MAX_HIDDEN	16
#define SECRET_TELLING		8		/* so much of the beginning of one is hidden, too */

/*
 * source_secret is the clear text of a secret, for a request; NULL when it is
 * not set, or must not be used: then *refused says why.  Raises F0000 when it
 * cannot be decrypted.
 */
const char *
source_secret(Source *source, const char *name, const char **refused)
{
	*refused = NULL;
	for (int i = 0; i < source->spec.nsecrets; i++)
	{
		SourceSecret *secret = &source->spec.secrets[i];

		if (strcmp(secret->name, name) != 0)
			continue;
		*refused = secret->refused;
		if (secret->refused)
			return NULL;
		if (secret->value == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("secret \"%s\" cannot be decrypted: %s", name, secret->problem)));
		secret->used = true;
		return secret->value;
	}
	return NULL;
}

/*
 * source_hide keeps one more text, such as an access token, out of messages.
 * Where each request has a token of its own, the oldest are forgotten.
 */
void
source_hide(Source *source, const char *value)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);

	for (int i = 0; i < source->nhidden; i++)
	{
		if (strcmp(source->hidden[i], value) == 0)
		{
			MemoryContextSwitchTo(old);
			return;
		}
	}
	if (source->hidden == NULL)
		source->hidden = palloc(SECRET_MAX_HIDDEN * sizeof(char *));
	if (source->nhidden == SECRET_MAX_HIDDEN)
	{
		crypto_wipe(source->hidden[0], strlen(source->hidden[0]));
		pfree(source->hidden[0]);
		memmove(source->hidden, source->hidden + 1, --source->nhidden * sizeof(char *));
	}
	source->hidden[source->nhidden++] = pstrdup(value);
	MemoryContextSwitchTo(old);
}

static int
secret_hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
		c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Reads so many hex digits; -1 when they are none. */
static int
secret_hex(const char *text, const char *end, int n)
{
	int			value = 0;

	if (end - text < n)
		return -1;
	for (int i = 0; i < n; i++)
	{
		int			digit = secret_hex_digit(text[i]);

		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* How many bytes of a text stand for the character c, escaped or not; 0 when they do not. */
static size_t
secret_spelled(const char *p, const char *end, unsigned char c)
{
	static const char letters[] = "nrtbf";
	static const char meanings[] = "\n\r\t\b\f";

	if (p == end)
		return 0;
	if (*p == '\\' && end - p >= 2)
	{
		const char *letter = memchr(letters, p[1], sizeof(letters) - 1);

		if (p[1] == 'u' && secret_hex(p + 2, end, 4) == c)
			return 6;
		if (letter ? meanings[letter - letters] == c : p[1] == c)
			return 2;
	}
	if (*p == '%' && secret_hex(p + 1, end, 2) == c)
		return 3;
	if (*p == '+' && c == ' ')
		return 1;
	/* The name of a host comes back in small letters. */
	return pg_tolower((unsigned char) *p) == pg_tolower(c) ? 1 : 0;
}

/* How many bytes of a text are this secret, or the beginning of it; 0: it is not here. */
static size_t
secret_here(const char *text, const char *end, const char *secret)
{
	const char *p = text;
	size_t		chars = 0;

	for (; secret[chars]; chars++)
	{
		size_t		n = secret_spelled(p, end, secret[chars]);

		if (n == 0)
			break;
		p += n;
	}
	/* The text may have been cut. */
	if (chars < SECRET_MIN_HIDDEN || (secret[chars] && chars < SECRET_TELLING && p < end))
		return 0;
	return p - text;
}

/* The longest secret that begins here. */
static size_t
secret_any_here(const Source *source, const char *text, const char *end)
{
	size_t		longest = 0;

	for (int i = 0; i < source->spec.nsecrets + source->nhidden; i++)
	{
		const char *secret = i < source->spec.nsecrets ? source->spec.secrets[i].value :
			source->hidden[i - source->spec.nsecrets];

		if (secret)
			longest = Max(longest, secret_here(text, end, secret));
	}
	return longest;
}

/* source_redacted is a copy of a text without the secrets; palloc'ed, and as long at most. */
char *
source_redacted(const Source *source, const char *text, size_t len)
{
	const char *end = text + len;
	char	   *copy = palloc(len + 1);
	char	   *out = copy;

	for (const char *p = text; p < end;)
	{
		size_t		n = secret_any_here(source, p, end);

		if (n == 0)
			{
			*out++ = *p ? *p : '?';
			p++;
		}
		else
		{
			memcpy(out, "***", 3);
			out += 3;
			p += n;
		}
	}
	*out = '\0';
	return copy;
}

/*
 * source_shows_secret: does a text hold a whole secret, so that it must not be
 * stored?  Short ones do not count: they are in any address.
 */
bool
source_shows_secret(const Source *source, const char *text)
{
	const char *end = text + strlen(text);

	for (int i = 0; i < source->spec.nsecrets + source->nhidden; i++)
	{
		const char *secret = i < source->spec.nsecrets ? source->spec.secrets[i].value :
			source->hidden[i - source->spec.nsecrets];

		if (secret == NULL || strlen(secret) < SECRET_TELLING)
			continue;
		for (const char *p = text; p < end; p++)
		{
			const char *at = p;
			const char *s = secret;

			for (size_t n; *s && (n = secret_spelled(at, end, (unsigned char) *s)) > 0; s++)
				at += n;
			if (*s == '\0')
				return true;
		}
	}
	return false;
}

void
source_wipe_secrets(SourceSecret *secrets, int n)
{
	for (int i = 0; i < n; i++)
		if (secrets[i].value)
			crypto_wipe(secrets[i].value, strlen(secrets[i].value));
}
