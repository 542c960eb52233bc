/*
 * outbound.c
 *	  Which addresses a connector may reach.
 *
 * Public addresses are fine; those of the table below (the IANA registries of
 * special-purpose addresses) only when flohsync.http_allowed_networks names
 * them.  IPv6 forms that carry an IPv4 address are judged by that address, so
 * there is one spelling less to get past the check with each of them.
 */
#include "postgres.h"

#include <netinet/in.h>
#include <stdlib.h>

#include "utils/builtins.h"
#include "utils/varlena.h"

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

static const char *const special[] = {
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
	"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"::/96", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
};

/* outbound_parse reads "address/bits" or "address"; false when it is neither. */
static bool
outbound_parse(const char *text, Network *network)
{
	char		address[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	size_t		n = slash ? (size_t) (slash - text) : strlen(text);
	char	   *end;
	long		bits;

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
	bits = strtol(slash + 1, &end, 10);
	if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || bits > network->bits)
		return false;
	network->bits = (int) bits;
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

/*
 * outbound_policy reads a comma-separated list of networks; raises 22023 for
 * one that is malformed.  malloc'ed.
 */
OutboundPolicy *
outbound_policy(const char *allowed_networks)
{
	char	   *copy = pstrdup(allowed_networks ? allowed_networks : "");
	List	   *names = NIL;
	ListCell   *cell;
	OutboundPolicy *policy;

	for (char *part = strtok(copy, ", \t\""); part; part = strtok(NULL, ", \t\""))
	{
		Network		network;

		if (!outbound_parse(part, &network))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" in flohsync.http_allowed_networks is not a network", part),
					 errhint("A network is written as in \"10.0.0.0/8\" or \"fd00::/8\".")));
		names = lappend(names, part);
	}
	policy = calloc(1, offsetof(OutboundPolicy, allowed) + list_length(names) * sizeof(Network));
	if (policy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	foreach(cell, names)
		(void) outbound_parse(lfirst(cell), &policy->allowed[policy->nallowed++]);
	list_free(names);
	pfree(copy);
	return policy;
}

void
outbound_free(OutboundPolicy *policy)
{
	free(policy);
}

/*
 * outbound_allowed is called from a callback of libcurl: it raises nothing and
 * allocates nothing.  When the answer is no, text gets the address.
 */
bool
outbound_allowed(const OutboundPolicy *policy, const struct sockaddr *address, char *text, size_t size)
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
	const unsigned char *bytes;
	int			family = address->sa_family;
	bool		blocked = false;

	if (family == AF_INET)
		bytes = (const unsigned char *) &((const struct sockaddr_in *) address)->sin_addr;
	else if (family == AF_INET6)
	{
		bytes = (const unsigned char *) &((const struct sockaddr_in6 *) address)->sin6_addr;
		if (memcmp(bytes, mapped, 12) == 0 || memcmp(bytes, nat64, 12) == 0)
		{
			bytes += 12;
			family = AF_INET;
		}
		else if (bytes[0] == 0x20 && bytes[1] == 0x02)	/* 6to4 */
		{
			bytes += 2;
			family = AF_INET;
		}
		else if (memcmp(bytes, "\0\x64\xff\x9b\0\x01", 6) == 0)	/* local NAT64: no telling what is behind */
			blocked = true;
	}
	else
	{
		strlcpy(text, "of an unknown family", size);
		return false;
	}

	for (int i = 0; i < policy->nallowed; i++)
		if (outbound_in(&policy->allowed[i], family, bytes))
			return true;
	for (size_t i = 0; i < lengthof(special) && !blocked; i++)
	{
		Network		network;

		blocked = outbound_parse(special[i], &network) && outbound_in(&network, family, bytes);
	}
	if (blocked && inet_ntop(family, bytes, text, size) == NULL)
		strlcpy(text, "?", size);
	return !blocked;
}
