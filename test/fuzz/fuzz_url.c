/*
 * fuzz_url.c
 *	  libFuzzer target: addresses and networks, as configurations and upstreams
 *	  give them.  The first byte picks what the rest is.
 */
#include "base/standalone.h"

#include <ctype.h>
#include <netinet/in.h>

#include "base/guc_networks.h"
#include "net/http.h"
#include "keep.h"
#include "net/outbound.h"
#include "rest/link.h"

jmp_buf *standalone_catch = NULL;

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cuts the first line off. */
static char *
next_line(char **rest)
{
	char *line = *rest;
	char *end = strchr(line, '\n');

	if (end)
		*end = '\0';
	*rest = end ? end + 1 : line + strlen(line);
	return line;
}

/* An address without a problem is one that nothing else can be made of. */
static void
check_good(const char *url)
{
	HttpOrigin	origin;
	const char *rest;
	size_t		authority;
	char	   *again;

	CHECK(strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0);
	for (const char *p = url; *p; p++)
		CHECK(*p > ' ' && *p < 0x7f && *p != '\\');
	CHECK(http_url_origin(url, &origin));
	CHECK(strcmp(origin.scheme, "http") == 0 || strcmp(origin.scheme, "https") == 0);
	CHECK(origin.port >= 0 && origin.port <= 65535);
	CHECK(origin.host[0] != '\0' &&
		  strpbrk(origin.host, origin.host[0] == '[' ? "/?#@\\ " : "/?#@\\ %") == NULL);
	CHECK(http_same_origin(&origin, &origin));

	/* There is no login in it: nobody takes what is before an "@" for the host. */
	rest = strstr(url, "://") + 3;
	authority = strcspn(rest, "/?#");
	CHECK(memchr(rest, '@', authority) == NULL);

	/* Made absolute by itself, or by a fragment or nothing but a path, it stays where it is. */
	again = http_url_resolve(url, url);
	CHECK(again != NULL && http_url_problem(again) == NULL);
	CHECK(strchr(again, '#') == NULL);
}

/* A base and a reference to it. */
static void
fuzz_reference(char *text)
{
	char	   *base = next_line(&text);
	char	   *reference = next_line(&text);
	HttpOrigin	from, to;
	char	   *result;
	const char *problem = http_url_problem(base);

	if (problem)
	{
		CHECK(problem[0] != '\0');
		return;
	}
	check_good(base);
	result = http_url_resolve(base, reference);
	if (result == NULL)
		return;
	check_good(result);
	CHECK(strchr(result, '#') == NULL);
	CHECK(http_url_origin(base, &from) && http_url_origin(result, &to));
	/* What has neither scheme nor host of its own leads nowhere else. */
	if (strcspn(reference, ":") >= strcspn(reference, "/?#") && strncmp(reference, "//", 2) != 0)
		CHECK(http_same_origin(&from, &to));
}

static int
decoded(const char **p)
{
	int c = (unsigned char) *(*p)++;

	if (c == '+')
		return ' ';
	if (c == '%' && isxdigit((unsigned char) (*p)[0]) && isxdigit((unsigned char) (*p)[1]))
	{
		char hex[3] = {(*p)[0], (*p)[1], '\0'};

		*p += 2;
		return (int) strtol(hex, NULL, 16);
	}
	return c;
}

/* Does a parameter have this name, in whatever case? */
static bool
is_named(const char *parameter, size_t len, const char *name)
{
	const char *end = parameter + len;

	while (parameter < end)
	{
		int c = decoded(&parameter);

		if (*name == '\0' || tolower(c) != tolower((unsigned char) *name++))
			return false;
	}
	return *name == '\0';
}

/* An address, a parameter's name and its value. */
static void
fuzz_parameter(char *text)
{
	char		  *url = next_line(&text);
	char		  *name = next_line(&text);
	const char	  *value = text;
	StringInfoData out;
	char		  *dropped;
	const char	  *p;

	initStringInfo(&out);
	http_url_encode(&out, value);
	p = out.data;
	for (const char *v = value; *v; v++)
	{
		CHECK(isalnum((unsigned char) *p) || strchr("-._~%", *p));
		CHECK(decoded(&p) == (unsigned char) *v);
	}
	CHECK(*p == '\0');

	dropped = http_url_drop(url, name);
	CHECK(strlen(dropped) <= strlen(url));
	p = strchr(dropped, '?');
	while (p)
	{
		size_t len = strcspn(++p, "=&");

		CHECK(!is_named(p, len, name));
		p = strchr(p, '&');
	}
	/* What is added is found, and can be taken away again. */
	if (name[0] == '\0' || strchr(dropped, '?') != NULL)
		return;
	resetStringInfo(&out);
	appendStringInfoString(&out, dropped);
	http_url_add(&out, name, value);
	CHECK(strncmp(out.data, dropped, strlen(dropped)) == 0);
	CHECK(strcmp(http_url_drop(out.data, name), dropped) == 0);
}

/* A base, and a Link header: where it leads is judged like any address. */
static void
fuzz_link(char *text)
{
	char *base = next_line(&text);
	bool  malformed = false;
	char *target = rest_link_find(text, "next", &malformed);
	char *result;

	if (target == NULL)
		return;
	CHECK(strchr(target, '>') == NULL && strlen(target) < strlen(text));
	if (http_url_problem(base) != NULL)
		return;
	result = http_url_resolve(base, target);
	if (result)
		check_good(result);
}

static bool
allowed(OutboundPolicy *policy, const unsigned char *bytes, bool six)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
	struct sockaddr_in	a4 = {.sin_family = AF_INET, .sin_port = htons(443)};
	char				text[160] = "";
	bool				result;

	if (six)
		memcpy(&a6.sin6_addr, bytes, 16);
	else
		memcpy(&a4.sin_addr, bytes, 4);
	result = outbound_allowed(policy, six ? (struct sockaddr *) &a6 : (struct sockaddr *) &a4, text,
							  sizeof(text));
	CHECK(result || text[0] != '\0');
	return result;
}

static bool
in_network(const GucNetwork *network, const unsigned char *bytes, bool six)
{
	if (network->family != (six ? AF_INET6 : AF_INET))
		return false;
	for (int bit = 0; bit < network->bits; bit++)
		if (((network->address[bit / 8] ^ bytes[bit / 8]) >> (7 - bit % 8)) & 1)
			return false;
	return true;
}

/* Sixteen bytes of an address, and a list of networks. */
static void
fuzz_networks(const uint8_t *data, size_t size, char *list)
{
	static OutboundPolicy	  *none = NULL;
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
	GucNetwork				   networks[64];
	char					   problem[256] = "";
	char					   again[64 * 60] = "";
	int n = guc_parse_networks(list, networks, lengthof(networks), problem, sizeof(problem));
	OutboundPolicy *policy;

	if (none == NULL)
		none = outbound_policy("");
	if (n < 0)
	{
		CHECK(problem[0] != '\0');
		return;
	}
	if (n > (int) lengthof(networks) || size < 16)
		return;
	/* Written again, they are the same. */
	for (int i = 0; i < n; i++)
	{
		char name[INET6_ADDRSTRLEN];

		CHECK(inet_ntop(networks[i].family, networks[i].address, name, sizeof(name)) != NULL);
		sprintf(again + strlen(again), "%s%s/%d", i ? "," : "", name, networks[i].bits);
	}
	{
		GucNetwork same[64];

		CHECK(guc_parse_networks(again, same, lengthof(same), problem, sizeof(problem)) == n);
		CHECK(memcmp(networks, same, sizeof(GucNetwork) * n) == 0);
	}
	policy = outbound_policy(list);
	for (int six = 0; six < 2; six++)
	{
		bool				 is_mapped = six && memcmp(data, mapped, 12) == 0;
		const unsigned char *bytes = is_mapped ? data + 12 : data;
		bool				 named = false;

		for (int i = 0; i < n; i++)
			named |= in_network(&networks[i], bytes, six && !is_mapped);
		/* Allowed is what is named, and what is without any list. */
		CHECK(allowed(policy, data, six) == (named || allowed(none, data, six)));
		/* Of IPv6, 2000::/3 is public at most, and what NAT64 makes of a public address. */
		if (six && !is_mapped && allowed(none, data, true))
			CHECK((data[0] & 0xe0) == 0x20 ||
				  (memcmp(data, nat64, 12) == 0 && allowed(none, data + 12, false)));
		if (six && !is_mapped && (data[8] & 0xfd) == 0 && memcmp(data + 9, "\0\x5e\xfe", 3) == 0 &&
			!allowed(none, data + 12, false))
			CHECK(!allowed(none, data, true));
	}
	outbound_free(policy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char  *text;
	size_t from;

	if (size == 0)
		return 0;
	from = data[0] % 4 == 3 ? Min(size, 17) : 1;
	text = malloc(size - from + 1);
	memcpy(text, data + from, size - from);
	text[size - from] = '\0';
	keep_begin();
	switch (data[0] % 4)
	{
		case 0:
			fuzz_reference(text);
			break;
		case 1:
			fuzz_parameter(text);
			break;
		case 2:
			fuzz_link(text);
			break;
		default:
			fuzz_networks(data + 1, size - 1, text);
	}
	keep_end();
	free(text);
	return 0;
}
