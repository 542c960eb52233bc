/*
 * follow.c
 *	  Addresses that an answer gives: links to the next page, and to changes.
 *
 * They are read as upstreams write them, and followed only to where the
 * credentials are for.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "net/crypto_memory.h"
#include "rest/rest.h"

#define FOLLOW_TOLD_BYTES 200 /* reported part of an unusable link */

/*
 * A link as upstreams write it: blanks around it mean nothing, and what may not
 * stand in an address as it is gets encoded, as browsers do.  Control characters
 * and backslashes stay, and are refused.
 */
static char *
follow_spelled(RestState *state, const char *reference)
{
	size_t		   len;
	StringInfoData out;

	reference += strspn(reference, " ");
	len = strlen(reference);
	while (len > 0 && reference[len - 1] == ' ')
		len--;
	initStringInfo(&out);
	enlargeStringInfo(&out, (int) Min(3 * len + 1, 4 * FLOHSYNC_MAX_LINK_BYTES));
	for (size_t i = 0; i < len; i++)
	{
		char one[2] = {reference[i], '\0'};

		if ((unsigned char) *one >= 0x80 || strchr(" \"<>^`{|}", *one) != NULL)
			http_url_encode(&out, one);
		else
			appendStringInfoChar(&out, *one);
	}
	if (state->def->auth.query)
		crypto_wipe_with(CurrentMemoryContext, out.data, out.len);
	return out.data;
}

/* The same path and query at the origin of base_url; NULL: there is none yet. */
static char *
follow_at_home(RestState *state, const char *url)
{
	const char *rest = strstr(url, "://");

	if (rest == NULL || state->origin.host == NULL)
		return NULL;
	rest += 3;
	rest += strcspn(rest, "/?");
	return psprintf("%s://%s:%d%s%s", state->origin.scheme, state->origin.host, state->origin.port,
					*rest == '/' ? "" : "/", rest);
}

/* Is an origin one of http.allow_hosts, whatever its scheme? */
static bool
follow_is_allowed(const RestDefinition *d, const HttpOrigin *origin, const char *with_port)
{
	for (int i = 0; i < d->nallow_hosts; i++)
		if (pg_strcasecmp(d->allow_hosts[i], with_port) == 0 ||
			(pg_strcasecmp(d->allow_hosts[i], origin->host) == 0 &&
			 origin->port == (strcmp(origin->scheme, "http") == 0 ? 80 : 443)))
			return true;
	return false;
}

/*
 * rest_follow is an address that an answer gives, relative to that of the
 * request, in the current context.  NULL, with a class and the problem noted,
 * when it is none or leads to another server than the credentials are for.
 */
char *
rest_follow(RestState *state, const char *reference, ErrorClass *error_class)
{
	const RestDefinition *d = state->def;
	size_t				  len = strlen(reference);
	char				 *url = len > FLOHSYNC_MAX_LINK_BYTES ?
						NULL :
						http_url_resolve(state->url, follow_spelled(state, reference));
	HttpOrigin			  origin;
	char				 *with_port;
	bool				  allowed;

	if (url)
		len = strlen(url);
	if (len > FLOHSYNC_MAX_LINK_BYTES)
	{
		*error_class = ERRCLASS_TOO_LARGE;
		rest_problem(state, *error_class,
					 "the upstream's link to the next page has %zu bytes, more than %d", len,
					 FLOHSYNC_MAX_LINK_BYTES);
		return NULL;
	}
	*error_class = ERRCLASS_BAD_ANSWER;
	/* It is stored, so it must be valid text. */
	if (url == NULL || !http_url_origin(url, &origin) ||
		pg_encoding_verifymbstr(PG_UTF8, url, (int) strlen(url)) != (int) strlen(url))
	{
		rest_problem(state, *error_class, "the upstream's link to the next page cannot be used: %s",
					 source_told(state->source, reference, strlen(reference), FOLLOW_TOLD_BYTES));
		return NULL;
	}
	if (d->auth.query)
	{
		crypto_wipe_with(CurrentMemoryContext, url, strlen(url));
		url = http_url_drop(url, d->auth.query);
	}
	if (state->origin.host && http_same_origin(&origin, &state->origin))
		return url;
	if (d->pages.own_origin)
	{
		url = follow_at_home(state, url);
		if (url && d->auth.query)
			crypto_wipe_with(CurrentMemoryContext, url, strlen(url));
		return url;
	}
	with_port = psprintf("%s:%d", origin.host, origin.port);
	allowed = follow_is_allowed(d, &origin, with_port);
	if (allowed && pg_strcasecmp(origin.scheme, "https") == 0)
		return url;
	*error_class = ERRCLASS_BLOCKED_ADDRESS;
	if (allowed)
	{
		rest_problem(
			state, *error_class,
			"the upstream's link leads to %s://%s, and hosts of http.allow_hosts are asked by https only; pagination.origin \"base_url\" keeps to the origin of base_url",
			origin.scheme, with_port);
		return NULL;
	}
	if (state->origin.host && pg_strcasecmp(state->origin.host, origin.host) == 0)
		rest_problem(
			state, *error_class,
			"the upstream's link leads to %s://%s, which is neither the origin of base_url, %s://%s:%d, nor in http.allow_hosts; pagination.origin \"base_url\" keeps to base_url",
			origin.scheme, with_port, state->origin.scheme, state->origin.host, state->origin.port);
	else
		rest_problem(
			state, *error_class,
			"the upstream's link leads to %s://%s, which is neither the host of base_url nor in http.allow_hosts; pagination.origin \"base_url\" keeps to base_url",
			origin.scheme, with_port);
	return NULL;
}
