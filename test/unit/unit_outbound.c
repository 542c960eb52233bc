/*
 * unit_outbound.c
 *	  Checks which addresses may be reached: the first and last of each special
 *	  network and their public neighbours, and what hides an address in another.
 */
#include "unit.h"

#include "outbound.h"

/* Everybody's. */
static const char *const public_addresses[] = {
	"1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
	"128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
	"191.255.255.255", "192.0.1.0", "192.0.1.255", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255",
	"192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0",
	"223.255.255.255",
	"2000::", "2000::1", "2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "2001:4860:4860::8888",
	"2606:4700:4700::1111", "2a00:1450:4001:828::200e", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::",
	"::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:0:8.8.8.8", "2600::200:5efe:8.8.8.8",
	"2600::5efe:8.8.8.8", "2600::100:5efe:7f00:1",
};

static const char *const special_addresses[] = {
	"0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.0", "10.1.2.3", "10.255.255.255", "100.64.0.0", "100.100.100.200",
	"100.127.255.255", "127.0.0.0", "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "168.63.129.16",
	"169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255", "172.16.0.0", "172.20.10.1",
	"172.31.255.255", "192.0.0.0", "192.0.0.192", "192.0.0.255", "192.0.2.0", "192.0.2.255", "192.88.99.0",
	"192.88.99.255", "192.168.0.0", "192.168.1.1", "192.168.255.255", "198.18.0.0", "198.19.255.255",
	"198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255", "224.0.0.0", "224.0.0.1", "239.255.255.255",
	"240.0.0.0", "255.255.255.254", "255.255.255.255",
	"::", "::1", "::2", "::7f00:1", "::127.0.0.1", "::8.8.8.8", "::10.0.0.1", "::ffff:0.0.0.0", "::ffff:10.0.0.1",
	"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:172.16.0.1", "::ffff:192.168.0.1", "::ffff:255.255.255.255",
	"::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1", "::ffff:0:169.254.169.254", "::fffe:8.8.8.8", "::1:0:0:0",
	"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::192.168.0.1", "64:ff9b::",
	"64:ff9b:1::", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1", "64:ff9b:0:1::8.8.8.8", "64::1",
	"100::", "100::1", "100:0:0:1::1", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "400::1",
	"2001::", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:1::1", "2001:2::1", "2001:10::1", "2001:20::1",
	"2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
	"2002:7f00:1::", "2002:7f00:1::1", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2002:c0a8:101::1", "2002::1", "2002:e000:1::1",
	"2600::200:5efe:127.0.0.1", "2600::5efe:10.0.0.1", "2600::5efe:169.254.169.254", "fe80::5efe:8.8.8.8",
	"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5f00::1", "7fff::1", "8000::", "c000::1", "e000::1",
	"fc00::", "fc00::1", "fd00::1", "fd00:ec2::254", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::1", "fe80::",
	"fe80::1", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::1", "feff::1", "ff00::", "ff02::1", "ff05::2",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

static bool
allowed_port(OutboundPolicy *policy, const char *address, int port)
{
	union
	{
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	}			a = {0};
	char		text[160];

	if (strchr(address, ':'))
	{
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(port);
		if (inet_pton(AF_INET6, address, &a.v6.sin6_addr) != 1)
			abort();
	}
	else
	{
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(port);
		if (inet_pton(AF_INET, address, &a.v4.sin_addr) != 1)
			abort();
	}
	return outbound_allowed(policy, &a.any, text, sizeof(text));
}

static bool
allowed(const char *networks, const char *address)
{
	OutboundPolicy *policy = outbound_policy(networks);
	bool		result = allowed_port(policy, address, 443);

	outbound_free(policy);
	return result;
}

static bool
parses(const char *networks)
{
	static jmp_buf catcher;
	volatile bool good = false;

	shim_catch = &catcher;
	if (setjmp(catcher) == 0)
	{
		outbound_free(outbound_policy(networks));
		good = true;
	}
	shim_catch = NULL;
	return good;
}

void
test_outbound(void)
{
	static const int refused[] = {0, 1, 22, 23, 25, 53, 110, 143, 389, 465, 587, 636, 993, 2049, 5432, 6000, 6379, 6667, 10080};
	static const int fine[] = {80, 81, 443, 3000, 4100, 5000, 8000, 8080, 8443, 9000, 10443, 32768, 65535};
	static const char *const malformed[] = {
		"localhost", "10", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "/8", "::/129", "::1%lo",
		"10.0.0.0/0008", "0x7f.0.0.1", "127.1", "300.0.0.0/8", "10.0.0.0/8;127.0.0.1", "1::2::3", "10.0.0.0 / 8",
		"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255.255.255.255.255.255.255/128",
	};
	OutboundPolicy *none = outbound_policy("");
	OutboundPolicy *all = outbound_policy("0.0.0.0/0, ::/0");
	char		name[120];
	struct sockaddr unix_socket = {.sa_family = AF_UNIX};
	char		text[160];

	for (int i = 0; i < lengthof(public_addresses); i++)
	{
		snprintf(name, sizeof(name), "%s may be reached", public_addresses[i]);
		ok(allowed_port(none, public_addresses[i], 443), name);
	}
	for (int i = 0; i < lengthof(special_addresses); i++)
	{
		snprintf(name, sizeof(name), "%s may not be reached", special_addresses[i]);
		ok(!allowed_port(none, special_addresses[i], 443), name);
		ok(allowed_port(all, special_addresses[i], 443), "but where it is allowed");
	}
	for (int i = 0; i < lengthof(refused); i++)
	{
		snprintf(name, sizeof(name), "port %d is refused", refused[i]);
		ok(!allowed_port(all, "8.8.8.8", refused[i]) && !allowed_port(all, "::1", refused[i]), name);
	}
	for (int i = 0; i < lengthof(fine); i++)
	{
		snprintf(name, sizeof(name), "port %d is not", fine[i]);
		ok(allowed_port(none, "8.8.8.8", fine[i]), name);
	}
	ok(!outbound_allowed(all, &unix_socket, text, sizeof(text)), "no socket in the file system is reached");

	ok(allowed("127.0.0.1", "127.0.0.1") && !allowed("127.0.0.1", "127.0.0.2"), "one address");
	ok(allowed("127.0.0.1/32,10.1.0.0/16", "10.1.255.255") && !allowed("127.0.0.1/32,10.1.0.0/16", "10.2.0.0"), "a list");
	ok(allowed(" 10.0.0.0/8 ,\t\"192.168.0.0/16\" ", "192.168.3.4"), "with blanks and quotes");
	ok(allowed("10.0.0.0/9", "10.127.255.255") && !allowed("10.0.0.0/9", "10.128.0.0"), "a network that ends within a byte");
	ok(allowed("fd12:3456::/28", "fd12:345f::1") && !allowed("fd12:3456::/28", "fd12:3460::1"), "also in IPv6");
	ok(allowed("127.0.0.0/8", "::ffff:127.0.0.1"), "a mapped address is the address");
	ok(!allowed("::ffff:127.0.0.1", "127.0.0.1") && !allowed("127.0.0.0/8", "::1"), "and other families are others");
	ok(!allowed("127.0.0.0/8", "64:ff9b::127.0.0.1") && !allowed("10.0.0.0/8", "2002:a00:1::1") &&
	   !allowed("127.0.0.0/8", "::ffff:0:127.0.0.1") && !allowed("127.0.0.0/8", "::127.0.0.1"),
	   "what is behind a tunnel is not allowed with it");
	ok(allowed("64:ff9b::/96", "64:ff9b::10.0.0.1") && allowed("2002::/16", "2002:a00:1::1"), "but with the tunnel's network");
	ok(parses("") && parses(NULL) && parses(" , ,"), "an empty list");
	for (int i = 0; i < lengthof(malformed); i++)
		ok(!parses(malformed[i]), malformed[i]);
	outbound_free(none);
	outbound_free(all);
}
