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
 * them.  In IPv6 only 2000::/3 and the well-known prefix of NAT64 are public.  A
 * mapped address (::ffff:a.b.c.d) is the IPv4 address, and judged as such.
 *
 * An address is judged by all rules.  First by the network that it is in; and
 * then, if a translator or tunnel would make an IPv4 address of it (NAT64, 6to4,
 * ISATAP, or more than one of them), by each of these as well: that can only
 * refuse what the first rule allows.  It refuses an IPv4 address that is
 * special even if it is allowed by itself: what is behind the tunnel is another
 * host; the IPv6 network has to be named.
 *
 * Nor are ports reached that speak something else than HTTP and could be made
 * to do something by it: those that web browsers refuse (the Fetch standard,
 * 2.9), and PostgreSQL's and Redis's.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/postmaster.h"
#endif

#include <netinet/in.h>
#include <stdlib.h>

#include "base/guc_networks.h"
#include "net/outbound.h"

struct OutboundPolicy
{
	int		   nallowed;
	GucNetwork allowed[FLEXIBLE_ARRAY_MEMBER];
};

static const GucNetwork special[] = {
	{AF_INET, {0}, 8},
	{AF_INET, {10}, 8},
	{AF_INET, {100, 64}, 10}, /* shared by a provider's customers */
	{AF_INET, {127}, 8},
	{AF_INET, {168, 63, 129, 16}, 32}, /* Azure's host */
	{AF_INET, {169, 254}, 16},		   /* link-local; metadata of many clouds */
	{AF_INET, {172, 16}, 12},
	{AF_INET, {192, 0, 0}, 24},
	{AF_INET, {192, 0, 2}, 24},
	{AF_INET, {192, 88, 99}, 24},
	{AF_INET, {192, 168}, 16},
	{AF_INET, {198, 18}, 15},
	{AF_INET, {198, 51, 100}, 24},
	{AF_INET, {203, 0, 113}, 24},
	{AF_INET, {224}, 3}, /* multicast, reserved, broadcast */
	{AF_INET6, {0}, 3},
	{AF_INET6, {0x40}, 2},
	{AF_INET6, {0x80}, 1},
	{AF_INET6, {0x20, 0x01}, 23}, /* Teredo among them */
	{AF_INET6, {0x20, 0x01, 0x0d, 0xb8}, 32},
	{AF_INET6, {0x3f, 0xff}, 20},
};

/* Within a special network, and public itself. */
static const GucNetwork nat64 = {AF_INET6, {0, 0x64, 0xff, 0x9b}, 96};
static const GucNetwork six_to_four = {AF_INET6, {0x20, 0x02}, 16};

static const uint16 refused_ports[] = {
	0,	  1,	7,	  9,	11,	  13,	15,	  17,	19,	  20,	21,	  22,	23,	  25,	37,
	42,	  43,	53,	  69,	77,	  79,	87,	  95,	101,  102,	103,  104,	109,  110,	111,
	113,  115,	117,  119,	123,  135,	137,  139,	143,  161,	179,  389,	427,  465,	512,
	513,  514,	515,  526,	530,  531,	532,  540,	548,  554,	556,  563,	587,  601,	636,
	989,  990,	993,  995,	1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 5432, 6000,
	6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080};

static bool
outbound_in(const GucNetwork *network, int family, const unsigned char *address)
{
	int whole = network->bits / 8;
	int rest = network->bits % 8;

	if (network->family != family || memcmp(network->address, address, whole) != 0)
		return false;
	return rest == 0 || ((network->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

/*
 * outbound_policy reads a list of networks; raises 22023 for one that is
 * malformed.  malloc'ed.
 */
OutboundPolicy *
outbound_policy(const char *allowed_networks)
{
	const char	   *list = allowed_networks ? allowed_networks : "";
	char			problem[256];
	int				n = guc_parse_networks(list, NULL, 0, problem, sizeof(problem));
	OutboundPolicy *policy;

	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("flohsync.http_allowed_networks is not a list of networks"),
				 errdetail("%s", problem)));
	policy = malloc(offsetof(OutboundPolicy, allowed) + sizeof(GucNetwork) * n);
	if (policy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	policy->nallowed = guc_parse_networks(list, policy->allowed, n, problem, sizeof(problem));
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
	if (outbound_in(&nat64, family, bytes))
		return false;
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

/* Would a translator or tunnel take a special IPv4 address out of one of IPv6? */
static bool
outbound_hides_special(const unsigned char *bytes)
{
	static const unsigned char isatap[3] = {0, 0x5e, 0xfe};

	if (outbound_in(&nat64, AF_INET6, bytes) && outbound_is_special(AF_INET, bytes + 12))
		return true;
	if (outbound_in(&six_to_four, AF_INET6, bytes) && outbound_is_special(AF_INET, bytes + 2))
		return true;
	return (bytes[8] & ~2) == 0 && memcmp(bytes + 9, isatap, sizeof(isatap)) == 0 &&
		outbound_is_special(AF_INET, bytes + 12);
}

static bool
outbound_address_allowed(const OutboundPolicy *policy, int family, const unsigned char *bytes)
{
	if (outbound_is_named(policy, family, bytes))
		return true;
	return !outbound_is_special(family, bytes) &&
		!(family == AF_INET6 && outbound_hides_special(bytes));
}

/*
 * outbound_allowed is called from a callback of libcurl: it raises nothing and
 * allocates nothing.  When the answer is no, text says why.
 */
bool
outbound_allowed(const OutboundPolicy *policy, const struct sockaddr *address, char *text,
				 size_t size)
{
	static const unsigned char mapped[12] = {[10] = 0xff, 0xff};
	const unsigned char		  *bytes;
	int						   family = address->sa_family;
	int						   port;

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
		snprintf(text, size, "addresses of family %d are not allowed", family);
		return false;
	}

	if (!outbound_port_allowed(port))
	{
		snprintf(text, size, "port %d is not allowed for HTTP", port);
		return false;
	}
	if (!outbound_address_allowed(policy, family, bytes))
	{
		char name[INET6_ADDRSTRLEN];

		snprintf(text, size, "address %s is not allowed by flohsync.http_allowed_networks",
				 inet_ntop(family, bytes, name, sizeof(name)) ? name : "?");
		return false;
	}
	return true;
}
