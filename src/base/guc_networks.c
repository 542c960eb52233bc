/*
 * guc_networks.c
 *	  What flohsync.http_allowed_networks says: a comma-separated list of
 *	  networks, each an address, or an address and the length of its prefix;
 *	  blanks and quotes around one do not count.
 *
 * What could be meant otherwise than it would be read is refused: an element
 * without anything in it, bits behind the prefix, an IPv4 network in IPv6.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include <arpa/inet.h>

#include "base/guc_networks.h"

#define NETWORK_TEXT 64 /* more than any has, and as much as is quoted of what is none */

static const unsigned char network_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* Clears the bits behind the prefix; false when there were none. */
static bool
network_cut(GucNetwork *network)
{
	int	 length = network->family == AF_INET ? 4 : 16;
	bool cut = false;

	for (int i = 0; i < length; i++)
	{
		int			  bits = Max(0, Min(8, network->bits - 8 * i));
		unsigned char mask = (unsigned char) (0xff << (8 - bits));

		cut |= (network->address[i] & ~mask) != 0;
		network->address[i] &= mask;
	}
	return cut;
}

/* Reads "address/bits" or "address"; false when it is neither. */
static bool
network_parse(char *text, GucNetwork *network)
{
	char *slash = strchr(text, '/');
	int	  max;

	memset(network, 0, sizeof(*network));
	if (slash)
		*slash = '\0';
	network->family = strchr(text, ':') ? AF_INET6 : AF_INET;
	max = network->family == AF_INET ? 32 : 128;
	network->bits = max;
	if (inet_pton(network->family, text, network->address) != 1)
		return false;
	if (slash == NULL)
		return true;
	if (slash[1] == '\0' || strlen(slash + 1) > 3)
		return false;
	network->bits = 0;
	for (const char *p = slash + 1; *p; p++)
	{
		if (*p < '0' || *p > '9')
			return false;
		network->bits = network->bits * 10 + (*p - '0');
	}
	return network->bits <= max;
}

static bool
network_element(const char *text, size_t len, GucNetwork *network, char *problem, size_t size)
{
	char copy[NETWORK_TEXT];
	char name[INET6_ADDRSTRLEN];
	bool cut;

	while (len > 0 && strchr(" \t\r\n", text[0]))
		text++, len--;
	while (len > 0 && strchr(" \t\r\n", text[len - 1]))
		len--;
	if (len >= 2 && text[0] == '"' && text[len - 1] == '"')
		text++, len -= 2;
	if (len == 0)
	{
		snprintf(problem, size, "An element of the list is empty.");
		return false;
	}
	snprintf(copy, sizeof(copy), "%.*s", (int) Min(len, sizeof(copy)), text);
	if (len >= sizeof(copy) || !network_parse(copy, network))
	{
		snprintf(
			problem, size,
			"\"%.*s\" is no network: it must be an address, or an address and the length of its prefix, such as 10.1.0.0/16.",
			(int) Min(len, sizeof(copy)), text);
		return false;
	}
	cut = network_cut(network);
	if (network->family == AF_INET6 && network->bits >= 96 &&
		memcmp(network->address, network_mapped, 12) == 0)
	{
		snprintf(problem, size, "\"%.*s\" is an address of IPv4 and judged as such; write %s/%d.",
				 (int) len, text,
				 inet_ntop(AF_INET, network->address + 12, name, sizeof(name)) ? name : "?",
				 network->bits - 96);
		return false;
	}
	if (cut)
		snprintf(problem, size, "\"%.*s\" has bits set behind its prefix; the network is %s/%d.",
				 (int) len, text,
				 inet_ntop(network->family, network->address, name, sizeof(name)) ? name : "?",
				 network->bits);
	return !cut;
}

int
guc_parse_networks(const char *list, GucNetwork *networks, int room, char *problem, size_t size)
{
	int n = 0;

	if (list[strspn(list, " \t\r\n")] == '\0')
		return 0;
	for (;;)
	{
		size_t	   len = strcspn(list, ",");
		GucNetwork network;

		if (!network_element(list, len, &network, problem, size))
			return -1;
		if (n < room)
			networks[n] = network;
		n++;
		if (list[len] == '\0')
			return n;
		list += len + 1;
	}
}
