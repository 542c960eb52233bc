/*
 * http_url.c
 *	  Addresses: what is wrong with one, relative ones, origins, parameters.
 *
 * libcurl's own reading of an address is used throughout: what is checked here
 * is what a request will be sent to.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include <ctype.h>

#include <curl/curl.h>

#include "lib/stringinfo.h"

#include "base/hex.h"
#include "net/http.h"

/* A blank or worse in an address is never taken for something else. */
static bool
http_url_is_clean(const char *url)
{
	for (const char *p = url; *p; p++)
		if ((unsigned char) *p <= ' ' || *p == 0x7f || *p == '\\')
			return false;
	return true;
}

/* A name or a number, once what was percent-encoded is decoded; or an address of IPv6. */
static bool
http_host_is_clean(const char *host)
{
	if (host[0] == '[')
		return true; /* libcurl has read it */
	return host[0] != '\0' &&
		host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")] ==
		'\0';
}

/* http_url_problem returns what is wrong with an address, or NULL. */
const char *
http_url_problem(const char *url)
{
	CURLU	   *u;
	char	   *part = NULL;
	const char *problem = NULL;
	const char *colon = strchr(url, ':');

	for (const char *p = url; *p; p++)
	{
		if ((unsigned char) *p <= ' ' || *p == 0x7f)
			return "it contains spaces or control characters";
		if ((unsigned char) *p > 0x7f)
			return "it contains non-ASCII characters: write a name as \"xn--…\", the rest percent-encoded";
		if (*p == '\\')
			return "it contains a backslash";
	}
	/* libcurl is generous. */
	if (colon == NULL || strncmp(colon, "://", 3) != 0 || colon[3] == '/')
		return "it is not an absolute URL";
	u = curl_url();
	if (u == NULL)
		return "out of memory";
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		problem = "it is not an absolute URL";
	else if (curl_url_get(u, CURLUPART_SCHEME, &part, 0) != CURLUE_OK ||
			 (strcmp(part, "http") != 0 && strcmp(part, "https") != 0))
		problem = "its scheme must be http or https";
	curl_free(part);
	part = NULL;
	if (problem == NULL && curl_url_get(u, CURLUPART_USER, &part, 0) == CURLUE_OK)
		problem = "it must not contain a user name or password";
	curl_free(part);
	part = NULL;
	if (problem == NULL &&
		(curl_url_get(u, CURLUPART_HOST, &part, 0) != CURLUE_OK || !http_host_is_clean(part)))
		problem = "it names no host";
	curl_free(part);
	curl_url_cleanup(u);
	return problem;
}

/* A part of an address, palloc'd; NULL when it has none. */
static char *
http_url_part(CURLU *u, CURLUPart part, unsigned flags)
{
	char *text = NULL;
	char *copy = NULL;

	if (curl_url_get(u, part, &text, flags) == CURLUE_OK && text != NULL)
	{
		size_t len = strlen(text);

		/* A raised error must not leave libcurl's memory behind. */
		copy = palloc_extended(len + 1, MCXT_ALLOC_NO_OOM);
		if (copy)
			memcpy(copy, text, len + 1);
	}
	curl_free(text);
	return copy;
}

/*
 * http_url_resolve is an address that may be relative to another one, without
 * its fragment (RFC 3986, 5.2); palloc'd, NULL when it is none.
 */
char *
http_url_resolve(const char *base, const char *reference)
{
	CURLU *u;
	char  *result = NULL;

	if (reference[0] == '\0' || !http_url_is_clean(reference))
		return NULL;
	u = curl_url();
	if (u == NULL)
		return NULL;
	if (curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK &&
		curl_url_set(u, CURLUPART_URL, reference, 0) == CURLUE_OK &&
		curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK)
		result = http_url_part(u, CURLUPART_URL, 0);
	curl_url_cleanup(u);
	if (result && http_url_problem(result) != NULL)
		return NULL;
	return result;
}

/* The zone of an address of IPv6 is part of the host; libcurl has it apart. */
static char *
http_host_with_zone(CURLU *u, char *host)
{
	char  *zone = http_url_part(u, CURLUPART_ZONEID, 0);
	size_t len = strlen(host);
	char  *both;

	if (zone == NULL || len == 0 || host[len - 1] != ']')
		return host;
	both = palloc_extended(len + strlen(zone) + 4, MCXT_ALLOC_NO_OOM);
	if (both)
		sprintf(both, "%.*s%%25%s]", (int) len - 1, host, zone);
	return both;
}

/* http_url_origin takes an address apart; false when it is none.  The port is always there. */
bool
http_url_origin(const char *url, HttpOrigin *origin)
{
	CURLU *u = curl_url();
	char  *port = NULL;

	memset(origin, 0, sizeof(*origin));
	if (u == NULL)
		return false;
	if (curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
	{
		origin->scheme = http_url_part(u, CURLUPART_SCHEME, 0);
		origin->host = http_url_part(u, CURLUPART_HOST, 0);
		if (origin->host)
			origin->host = http_host_with_zone(u, origin->host);
		port = http_url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	}
	curl_url_cleanup(u);
	if (origin->scheme == NULL || origin->host == NULL || port == NULL)
		return false;
	origin->port = atoi(port);
	return true;
}

bool
http_same_origin(const HttpOrigin *a, const HttpOrigin *b)
{
	return pg_strcasecmp(a->scheme, b->scheme) == 0 && pg_strcasecmp(a->host, b->host) == 0 &&
		a->port == b->port;
}

/*
 * http_url_origin_text is an address's origin in the one form that stands for
 * it: scheme and host in small letters, the port only if it is not the scheme's
 * own.  palloc'd, NULL when it is no address.  A dot at the end of a host stays:
 * where names are searched for in several domains, it may be another host.
 */
char *
http_url_origin_text(const char *url)
{
	HttpOrigin origin;
	char	  *text;

	if (!http_url_origin(url, &origin))
		return NULL;
	for (char *p = origin.host; *p; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	for (char *p = origin.scheme; *p; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	if (origin.port == (strcmp(origin.scheme, "https") == 0 ? 443 : 80))
		text = psprintf("%s://%s", origin.scheme, origin.host);
	else
		text = psprintf("%s://%s:%d", origin.scheme, origin.host, origin.port);
	pfree(origin.scheme);
	pfree(origin.host);
	return text;
}

/*
 * http_url_encode appends a value with all but the unreserved characters encoded (RFC 3986,
 * 2.3).
 */
void
http_url_encode(StringInfo out, const char *value)
{
	static const char digits[] = "0123456789ABCDEF";

	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
	{
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
			*p == '-' || *p == '.' || *p == '_' || *p == '~')
			appendStringInfoChar(out, *p);
		else
		{
			appendStringInfoChar(out, '%');
			appendStringInfoChar(out, digits[*p >> 4]);
			appendStringInfoChar(out, digits[*p & 15]);
		}
	}
}

/* http_url_add appends a parameter to an address. */
void
http_url_add(StringInfo url, const char *name, const char *value)
{
	appendStringInfoChar(url, strchr(url->data, '?') ? '&' : '?');
	http_url_encode(url, name);
	appendStringInfoChar(url, '=');
	http_url_encode(url, value);
}

/*
 * Is a name as an address spells it, encoded or not, this one?  Letters count as the same in
 * both cases.
 */
static bool
http_url_names(const char *spelled, size_t len, const char *name)
{
	const char *end = spelled + len;

	for (; spelled < end && *name; name++)
	{
		unsigned char c = *spelled++;

		if (c == '+')
			c = ' ';
		else if (c == '%' && end - spelled >= 2 && hex_byte(spelled) >= 0)
		{
			c = (unsigned char) hex_byte(spelled);
			spelled += 2;
		}
		/* A name may itself hold a plus sign that is not encoded. */
		if (pg_tolower(c) != pg_tolower((unsigned char) *name) &&
			!(c == ' ' && *name == '+' && spelled[-1] == '+'))
			return false;
	}
	return spelled == end && *name == '\0';
}

/* http_url_drop is an address without the parameters of a name, however it is spelled. */
char *
http_url_drop(const char *url, const char *name)
{
	const char	  *query = strchr(url, '?');
	StringInfoData out;
	bool		   first = true;

	if (query == NULL)
		return pstrdup(url);
	initStringInfo(&out);
	appendBinaryStringInfo(&out, url, query - url);
	for (const char *p = query + 1; p != NULL;)
	{
		size_t len = strcspn(p, "&");
		size_t name_len = strcspn(p, "=&");

		if (!http_url_names(p, name_len, name))
		{
			appendStringInfoChar(&out, first ? '?' : '&');
			appendBinaryStringInfo(&out, p, len);
			first = false;
		}
		p = p[len] ? p + len + 1 : NULL;
	}
	return out.data;
}
