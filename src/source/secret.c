/*
 * secret.c
 *	  Secrets of a source: how a kind accesses them, and how they are kept out
 *	  of messages about an upstream.
 *
 * An upstream may echo what it was sent.  Any part of an answer in a message
 * passes source_told: each secret of the connector in it, and what a kind derived
 * from one (source_redact_also), becomes "***", in any spelling (redact.c).
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/clean.h"
#include "net/crypto.h"
#include "net/redact.h"
#include "source/source.h"

#define SECRET_MAX_HIDDEN 16
#define SECRET_LOOK_AT	  16384 /* maximum part of a text that is examined and reported */

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
 * source_redact_also keeps one more text, such as an access token, out of messages.
 * Where each request has a token of its own, the oldest are forgotten.
 */
void
source_redact_also(Source *source, const char *value)
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

/* The texts to redact; palloc'd. */
static char **
secret_values(const Source *source, int *n)
{
	char **values = palloc(sizeof(char *) * (source->spec.nsecrets + source->nhidden + 1));

	*n = 0;
	for (int i = 0; i < source->spec.nsecrets; i++)
		values[(*n)++] = source->spec.secrets[i].value;
	for (int i = 0; i < source->nhidden; i++)
		values[(*n)++] = source->hidden[i];
	return values;
}

/* source_redacted is a text without the secrets; palloc'ed, and as long at most. */
char *
source_redacted(const Source *source, const char *text, size_t len)
{
	int	   n;
	char **values = secret_values(source, &n);
	char  *redacted = redact((const char *const *) values, n, text, len);

	pfree(values);
	return redacted;
}

/*
 * source_told is an external text prepared for a message: without the secrets,
 * and fit for a message (clean.c); palloc'd, at most max bytes.
 */
char *
source_told(const Source *source, const char *text, size_t len, size_t max)
{
	char *redacted = source_redacted(source, text, Min(len, SECRET_LOOK_AT));
	char *words = clean_words(redacted, strlen(redacted), strlen(redacted));
	char *again = source_redacted(source, words,
								  strlen(words)); /* where one had been broken into lines */
	char *told = clean_text(again, strlen(again), max);

	pfree(redacted);
	pfree(words);
	pfree(again);
	return told;
}

/*
 * source_shows_secret: does a text hold a whole secret, so that it must not be
 * stored?  Short ones do not count: they are in any address.
 */
bool
source_shows_secret(const Source *source, const char *text)
{
	int	   n;
	char **values = secret_values(source, &n);
	bool   shows = redact_finds((const char *const *) values, n, text, strlen(text));

	pfree(values);
	return shows;
}

void
source_wipe_secrets(SourceSecret *secrets, int n)
{
	for (int i = 0; i < n; i++)
		if (secrets[i].value)
			crypto_wipe(secrets[i].value, strlen(secrets[i].value));
}
