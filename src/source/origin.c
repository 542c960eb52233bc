/*
 * origin.c
 *	  Where requests of a connector may go, and which secrets with them.
 *
 * An origin is scheme://host, with the port unless it is the scheme's default (RFC
 * 6454).  A secret is bound to the origins that its connector had when it was
 * set (source/secret_store.c).  Whether it may be used is checked twice: before a
 * request is built, by config and definition, so that the reason can be
 * reported; and, independently of these, by the URL that a request is about to
 * be sent to.
 *
 * Secrets that verify webhooks are bound to no origin, and never sent.
 */
#include "postgres.h"

#include "source/source.h"

struct OriginList
{
	char **items;
	int	   n;
	int	   room;
};

/* source_add_origin adds an origin, in its place, unless it is there; NULL: none. */
void
source_add_origin(OriginList *list, char *text)
{
	int i = list->n;

	if (text == NULL)
		return;
	while (i > 0 && strcmp(list->items[i - 1], text) > 0)
		i--;
	if (i > 0 && strcmp(list->items[i - 1], text) == 0)
		return;
	if (list->n == list->room)
	{
		list->room = Max(8, list->room * 2);
		list->items = list->items ? repalloc(list->items, sizeof(char *) * list->room) :
									palloc(sizeof(char *) * list->room);
	}
	memmove(list->items + i + 1, list->items + i, sizeof(char *) * (list->n - i));
	list->items[i] = text;
	list->n++;
}

/* source_add_url adds the origin of an address of HTTP; what is no address is left out. */
void
source_add_url(OriginList *list, const char *url)
{
	source_add_origin(list,
					  url && http_url_problem(url) == NULL ? http_url_origin_text(url) : NULL);
}

/*
 * source_origins gives all origins to which requests of a connector can go,
 * sorted, each once; returns their number.  What is malformed goes nowhere, and
 * so does a connector of a kind that is not known.
 */
int
source_origins(const char *kind, const char *config, const char *definition, char ***origins)
{
	OriginList		  list = {0};
	const SourceKind *of = source_find_kind(kind);
	JsonParser		 *json = source_config(config);

	if (of != NULL && of->origins && json != NULL)
		of->origins(&list, json, definition);
	*origins = list.items;
	return list.n;
}

static bool
origin_is_in(const char *origin, char *const *list, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(list[i], origin) == 0)
			return true;
	return false;
}

/* Those of a list that are not in another one, for a message; NULL: there are none. */
static char *
origin_missing(char *const *list, int n, char *const *others, int nothers)
{
	StringInfoData out;
	int			   more = 0;

	initStringInfo(&out);
	for (int i = 0; i < n; i++)
	{
		if (origin_is_in(list[i], others, nothers))
			continue;
		if (out.len > 0 && out.len + strlen(list[i]) > 100)
			more++;
		else
			appendStringInfo(&out, "%s%s", out.len > 0 ? ", " : "", list[i]);
	}
	if (more > 0)
		appendStringInfo(&out, " and %d more", more);
	return out.len > 0 ? out.data : NULL;
}

/*
 * source_secret_refused says why a secret that was set for a kind and for
 * origins must not be used by a connector that has these others now; NULL: it
 * may be.  That an origin is gone does no harm.
 */
char *
source_secret_refused(const char *name, const char *kind, char *const *origins, int norigins,
					  const char *now_kind, char *const *now, int nnow)
{
	static const char again[] = "must be set again with flohsync.set_secret()";
	char			 *gone = origin_missing(origins, norigins, now, nnow);
	char			 *come = origin_missing(now, nnow, origins, norigins);

	if (source_is_webhook_secret(name))
		return psprintf("secret \"%s\" verifies webhooks, and is never sent", name);
	if (kind == NULL || strcmp(kind, now_kind) != 0)
		return psprintf(
			"secret \"%s\" %s: since it was set, the connector's kind has changed from %s to %s",
			name, again, kind ? kind : "none", now_kind);
	if (come == NULL)
		return NULL;
	if (gone == NULL)
		return psprintf(
			"secret \"%s\" %s: since it was set, the connector's address has come to include %s",
			name, again, come);
	return psprintf(
		"secret \"%s\" %s: since it was set, the connector's address has changed from %s to %s",
		name, again, gone, come);
}

/* source_is_webhook_secret: is this the name of a secret that comes in? */
bool
source_is_webhook_secret(const char *name)
{
	return strcmp(name, SOURCE_WEBHOOK_SECRET) == 0 || strcmp(name, SOURCE_WEBHOOK_PREVIOUS) == 0;
}

/*
 * source_may_send says why no request may be sent to an address of HTTP, NULL when
 * it may: each secret that was used for the source so far, if only to get a token,
 * must have been set for its origin.
 */
char *
source_may_send(const Source *source, const char *url)
{
	return source_may_send_to(source, http_url_origin_text(url));
}

/* source_may_send_to says the same of an origin; NULL: there is none. */
char *
source_may_send_to(const Source *source, const char *origin)
{
	for (int i = 0; i < source->spec.nsecrets; i++)
	{
		const SourceSecret *secret = &source->spec.secrets[i];

		if (secret->used &&
			(origin == NULL || !origin_is_in(origin, secret->origins, secret->norigins)))
			return psprintf("secret \"%s\" is not sent to %s, for which it was not set",
							secret->name, origin ? origin : "no address");
	}
	return NULL;
}
