/*
 * outbound.c
 *	  Which addresses a connector may reach.
 *
 * The check is made on the address that is about to be connected to, after
 * name resolution (http.c), so it does not matter how the address was spelled
 * or what a name resolves to the next time.
 *
 * Public addresses are fine; those of the tables below (the IANA registries of
 * special-purpose addresses) only when flohsync.http_allowed_networks names
 * them.  In IPv6 only 2000::/3 is public.  A mapped address (::ffff:a.b.c.d) is
 * the IPv4 address, and judged as such.  One that makes a translator or tunnel
 * reach an IPv4 address (NAT64, 6to4, IPv4-translated, ISATAP) is refused where
 * that one is special, even if it is allowed by itself: what is behind the
 * tunnel is another host; the IPv6 network has to be named.
 *
 * Nor are ports reached that speak something else than HTTP and could be made
 * to do something by it: those that web browsers refuse (the Fetch standard,
 * 2.9), and PostgreSQL's and Redis's.
 */
#ifdef FLOHSYNC_STANDALONE
#include "shim.h"
#else
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/postmaster.h"
#endif

#include <netinet/in.h>
#include <stdlib.h>

#include "outbound.h"

typedef struct Network
{
	int			family;
	unsigned char address[16];
	int			bits;
} Network;

struct OutboundPolicy
{
	int			nallowed;
	Network		allowed[FLEXIBLE_ARRAY_MEMBER];
};

static const Network special[] = {
	{AF_INET, {0}, 8},
	{AF_INET, {10}, 8},
	{AF_INET, {100, 64}, 10},	/* shared by a provider's customers */
	{AF_INET, {127}, 8},
	{AF_INET, {168, 63, 129, 16}, 32},	/* Azure's host */
	{AF_INET, {169, 254}, 16},	/* link-local; metadata of many clouds */
	{AF_INET, {172, 16}, 12},
	{AF_INET, {192, 0, 0}, 24},
	{AF_INET, {192, 0, 2}, 24},
	{AF_INET, {192, 88, 99}, 24},
	{AF_INET, {192, 168}, 16},
	{AF_INET, {198, 18}, 15},
	{AF_INET, {198, 51, 100}, 24},
	{AF_INET, {203, 0, 113}, 24},
	{AF_INET, {224}, 3},		/* multicast, reserved, broadcast */
	{AF_INET6, {0}, 3},
	{AF_INET6, {0x40}, 2},
	{AF_INET6, {0x80}, 1},
	{AF_INET6, {0x20, 0x01}, 23},	/* Teredo among them */
	{AF_INET6, {0x20, 0x01, 0x0d, 0xb8}, 32},
	{AF_INET6, {0x3f, 0xff}, 20},
};

static const uint16 refused_ports[] = {
	0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
	110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
	531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
	5060, 5061, 5432, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080
};

/* outbound_parse reads "address/bits" or "address"; false when it is neither. */
static bool
outbound_parse(const char *text, size_t len, Network *network)
{
	char		address[INET6_ADDRSTRLEN + 1];
	const char *slash = memchr(text, '/', len);
	size_t		n = slash ? (size_t) (slash - text) : len;
	int			bits = 0;

	if (n >= sizeof(address))
		return false;
	memcpy(address, text, n);
	address[n] = '\0';
	memset(network, 0, sizeof(*network));
	network->family = strchr(address, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(network->family, address, network->address) != 1)
		return false;
	network->bits = network->family == AF_INET ? 32 : 128;
	if (slash == NULL)
		return true;
	if (len - n < 2 || len - n > 4)
		return false;
	for (const char *p = slash + 1; p < text + len; p++)
	{
		if (*p < '0' || *p > '9')
			return false;
		bits = bits * 10 + (*p - '0');
	}
	if (bits > network->bits)
		return false;
	network->bits = bits;
	return true;
}

static bool
outbound_in(const Network *network, int family, const unsigned char *address)
{
	int			whole = network->bits / 8;
	int			rest = network->bits % 8;

	if (network->family != family || memcmp(network->address, address, whole) != 0)
		return false;
	return rest == 0 || ((network->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

/* The next part of a comma-separated list, and its length; NULL at the end. */
static const char *
outbound_next(const char *list, size_t *len)
{
	list += strspn(list, ", \t\"");
	*len = strcspn(list, ", \t\"");
	return *len ? list : NULL;
}

/*
 * outbound_policy reads a comma-separated list of networks; raises 22023 for
 * one that is malformed.  malloc'ed.
 */
OutboundPolicy *
outbound_policy(const char *allowed_networks)
{
	const char *list = allowed_networks ? allowed_networks : "";
	size_t		len;
	int			n = 0;
	OutboundPolicy *policy;
	Network		network;

	for (const char *part = list; (part = outbound_next(part, &len)) != NULL; part += len, n++)
		if (!outbound_parse(part, len, &network))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%.*s\" in flohsync.http_allowed_networks is not a network", (int) len, part),
					 errhint("A network is written as in \"10.0.0.0/8\" or \"fd00::/8\".")));
	policy = calloc(1, offsetof(OutboundPolicy, allowed) + n * sizeof(Network));
	if (policy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (const char *part = list; policy->nallowed < n && (part = outbound_next(part, &len)) != NULL; part += len)
		(void) outbound_parse(part, len, &policy->allowed[policy->nallowed++]);
	return policy;
}

void
outbound_free(OutboundPolicy *policy)
{
	free(policy);
}

static bool
outbound_port_allowed(int port)
{
	for (size_t i = 0; i < lengthof(refused_ports); i++)
		if (port == refused_ports[i])
			return false;
#ifndef FLOHSYNC_STANDALONE
	if (port == PostPortNumber)
		return false;
#endif
	return true;
}

static bool
outbound_is_special(int family, const unsigned char *bytes)
{
	for (size_t i = 0; i < lengthof(special); i++)
		if (outbound_in(&special[i], family, bytes))
			return true;
	return false;
}

static bool
outbound_is_named(const OutboundPolicy *policy, int family, const unsigned char *bytes)
{
	for (int i = 0; i < policy->nallowed; i++)
		if (outbound_in(&policy->allowed[i], family, bytes))
			return true;
	return false;
}

/* The IPv4 address that a translator or tunnel takes out of one of IPv6, or NULL. */
static const unsigned char *
outbound_tunnelled(const unsigned char *bytes)
{
	static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
	static const unsigned char translated[12] = {[8] = 0xff, 0xff};
	static const unsigned char isatap[4] = {0, 0, 0x5e, 0xfe};

	if (memcmp(bytes, nat64, 12) == 0 || memcmp(bytes, translated, 12) == 0)
		return bytes + 12;
	if (bytes[0] == 0x20 && bytes[1] == 0x02)	/* 6to4 */
		return bytes + 2;
	if (memcmp(bytes + 9, isatap + 1, 3) == 0 && (bytes[8] & ~2) == 0)
		return bytes + 12;
	return NULL;
}

static bool
outbound_address_allowed(const OutboundPolicy *policy, int family, const unsigned char *bytes)
{
	const unsigned char *inner = family == AF_INET6 ? outbound_tunnelled(bytes) : NULL;

	if (outbound_is_named(policy, family, bytes))
		return true;
	if (inner != NULL && outbound_is_special(AF_INET, inner))
		return false;
	/* NAT64 and IPv4-translated prefixes are no public networks, but what is behind them is. */
	if (inner == bytes + 12 && bytes[0] == 0)
		return true;
	return !outbound_is_special(family, bytes);
}

/*
 * outbound_allowed is called from a callback of libcurl: it raises nothing and
 * allocates nothing.  When the answer is no, text says why.
 */
bool
outbound_allowed(const OutboundPolicy *policy, const struct sockaddr *address, char *text, size_t size)
{
	static const unsigned char mapped[12] = {[10] = 0xff, 0xff};
	const unsigned char *bytes;
	int			family = address->sa_family;
	int			port;

	if (family == AF_INET)
	{
		bytes = (const unsigned char *) &((const struct sockaddr_in *) address)->sin_addr;
		port = ntohs(((const struct sockaddr_in *) address)->sin_port);
	}
	else if (family == AF_INET6)
	{
		bytes = (const unsigned char *) &((const struct sockaddr_in6 *) address)->sin6_addr;
		port = ntohs(((const struct sockaddr_in6 *) address)->sin6_port);
		if (memcmp(bytes, mapped, 12) == 0)
		{
			bytes += 12;
			family = AF_INET;
		}
	}
	else
	{
		snprintf(text, size, "addresses of family %d are not reached", family);
		return false;
	}

	if (!outbound_port_allowed(port))
	{
		snprintf(text, size, "port %d is not one for HTTP", port);
		return false;
	}
	if (!outbound_address_allowed(policy, family, bytes))
	{
		char		name[INET6_ADDRSTRLEN];

		snprintf(text, size, "address %s is not allowed by flohsync.http_allowed_networks",
				 inet_ntop(family, bytes, name, sizeof(name)) ? name : "?");
		return false;
	}
	return true;
}
