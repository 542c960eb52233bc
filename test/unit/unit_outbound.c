/*
 * unit_outbound.c
 *	  Checks which addresses may be reached: the first and last of each special
 *	  network and their public neighbours, what hides an address in another, and
 *	  that nothing does so within a special network.
 */
#include "unit.h"

#include "net/outbound.h"

/* Everybody's. */
/* clang-format off */
static const char *const public_addresses[] = {
	"1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
	"128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
	"191.255.255.255", "192.0.1.0", "192.0.1.255", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255",
	"192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0",
	"223.255.255.255",
	"2000::", "2000::1", "2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "2001:4860:4860::8888",
	"2606:4700:4700::1111", "2a00:1450:4001:828::200e", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::",
	"::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2002:808:808::5efe:9.9.9.9", "2600::200:5efe:8.8.8.8",
	"2600::5efe:8.8.8.8", "2600::100:5efe:7f00:1",
};
/* clang-format on */

/* clang-format off */
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
	"::ffff:0:8.8.8.8", "::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1", "::ffff:0:169.254.169.254", "::fffe:8.8.8.8", "::1:0:0:0",
	"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::192.168.0.1", "64:ff9b::",
	"64:ff9b:1::5efe:8.8.8.8", "64:ff9b:1::200:5efe:8.8.8.8", "64:ff9b:1:0:200:5efe:808:808", "::5efe:8.8.8.8", "::200:5efe:8.8.8.8",
	"100::5efe:8.8.8.8", "1234::200:5efe:8.8.8.8", "2002:808:808::5efe:127.0.0.1", "2002:808:808::200:5efe:10.0.0.1",
	"2002:7f00:1::5efe:8.8.8.8",
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
/* clang-format on */

static bool
allowed_port(OutboundPolicy *policy, const char *address, int port)
{
	union
	{
		struct sockaddr		any;
		struct sockaddr_in	v4;
		struct sockaddr_in6 v6;
	} a = {0};
	char text[160];

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
	bool			result = allowed_port(policy, address, 443);

	outbound_free(policy);
	return result;
}

/* Every special network of IPv6, those within another one as well. */
static const char *const networks6[] = {
	"::/128",		 "::1/128",		   "::/96",			 "::ffff:0:0:0/96",
	"::/8",			 "64::/16",		   "64:ff9b:1::/48", "64:ff9b:0:1::/64",
	"100::/64",		 "100:0:0:1::/64", "100::/8",		 "200::/7",
	"400::/6",		 "800::/5",		   "1000::/4",		 "2001::/32",
	"2001:1::/32",	 "2001:2::/48",	   "2001:3::/32",	 "2001:4:112::/48",
	"2001:10::/28",	 "2001:20::/28",   "2001:30::/28",	 "2001::/23",
	"2001:db8::/32", "3fff::/20",	   "4000::/3",		 "5f00::/16",
	"6000::/3",		 "8000::/3",	   "a000::/3",		 "c000::/3",
	"e000::/4",		 "f000::/5",	   "f800::/6",		 "fc00::/7",
	"fc00::/8",		 "fd00::/8",	   "fe00::/9",		 "fe80::/10",
	"fec0::/10",	 "ff00::/8",	   "ff02::/16",
};

static const char *const networks4[] = {
	"0.0.0.0/8",	  "10.0.0.0/8",			"100.64.0.0/10",   "127.0.0.0/8",	 "168.63.129.16/32",
	"169.254.0.0/16", "172.16.0.0/12",		"192.0.0.0/24",	   "192.0.2.0/24",	 "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15",		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
	"240.0.0.0/4",	  "255.255.255.255/32",
};

/*
 * Where ways of writing an IPv4 address into one of IPv6 put its bytes, and what stands
 * beside them.
 */
typedef struct Form
{
	const char *name;
	int			at[4];
	int			nbeside;
	struct
	{
		int			  at;
		unsigned char byte;
	} beside[6];
	bool inverted;
} Form;

static const Form forms[] = {
	{"compatible, NAT64 /96", {12, 13, 14, 15}},
	{"mapped", {12, 13, 14, 15}, 2, {{10, 0xff}, {11, 0xff}}},
	{"translated", {12, 13, 14, 15}, 2, {{8, 0xff}, {9, 0xff}}},
	{"ISATAP", {12, 13, 14, 15}, 4, {{8, 0}, {9, 0}, {10, 0x5e}, {11, 0xfe}}},
	{"ISATAP, universal", {12, 13, 14, 15}, 4, {{8, 2}, {9, 0}, {10, 0x5e}, {11, 0xfe}}},
	{"NAT64 /64", {9, 10, 11, 12}, 1, {{8, 0}}},
	{"NAT64 /56", {7, 9, 10, 11}, 1, {{8, 0}}},
	{"NAT64 /48", {6, 7, 9, 10}, 1, {{8, 0}}},
	{"NAT64 /40", {5, 6, 7, 9}, 1, {{8, 0}}},
	{"NAT64 /32", {4, 5, 6, 7}, 1, {{8, 0}}},
	{"6to4", {2, 3, 4, 5}, 2, {{0, 0x20}, {1, 0x02}}},
	{"Teredo", {12, 13, 14, 15}, 0, {{0}}, true},
	{"Teredo's server", {4, 5, 6, 7}},
};

typedef struct Range
{
	unsigned char address[16];
	int			  bits;
} Range;

static Range
range_of(const char *text)
{
	Range r = {{0}, 0};
	char  address[INET6_ADDRSTRLEN];

	if (sscanf(text, "%45[^/]/%d", address, &r.bits) != 2 ||
		inet_pton(strchr(address, ':') ? AF_INET6 : AF_INET, address, r.address) != 1)
		abort();
	return r;
}

static bool
range_has(const Range *r, const unsigned char *address)
{
	for (int bit = 0; bit < r->bits; bit++)
		if (((r->address[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8)) & 1)
			return false;
	return true;
}

static bool
allowed_bytes(OutboundPolicy *policy, const unsigned char *bytes)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
	char				text[160];

	memcpy(&a.sin6_addr, bytes, 16);
	return outbound_allowed(policy, (struct sockaddr *) &a, text, sizeof(text));
}

/* Writes a byte where the prefix of a network leaves room for it. */
static void
put_behind(unsigned char *address, int bits, int at, unsigned char byte)
{
	unsigned char mask = bits >= 8 * at + 8 ? 0 :
		bits <= 8 * at						? 0xff :
											  (unsigned char) (0xff >> (bits - 8 * at));

	address[at] = (address[at] & ~mask) | (byte & mask);
}

static void
write_form(unsigned char *address, int bits, const Form *form, const unsigned char *inner)
{
	for (int i = 0; i < form->nbeside; i++)
		put_behind(address, bits, form->beside[i].at, form->beside[i].byte);
	for (int i = 0; i < 4; i++)
		put_behind(address, bits, form->at[i], form->inverted ? ~inner[i] : inner[i]);
}

static void
fails(const unsigned char *address, const char *why)
{
	char name[INET6_ADDRSTRLEN];
	char text[200];

	snprintf(text, sizeof(text), "%s: %s", inet_ntop(AF_INET6, address, name, sizeof(name)), why);
	ok(false, text);
}

/*
 * Each special network by each form, around a public IPv4 address and around a special one
 * of each kind.
 */
static void
test_special_by_form(void)
{
	OutboundPolicy *none = outbound_policy("");
	OutboundPolicy *all_of_4 = outbound_policy("0.0.0.0/0");
	Range			nat64 = range_of("64:ff9b::/96");
	Range			mapped = range_of("::ffff:0:0/96");
	int				tried = 0;
	int				wrong = 0;

	for (int n = 0; n < lengthof(networks6); n++)
	{
		OutboundPolicy *named = outbound_policy(networks6[n]);
		Range			r = range_of(networks6[n]);

		for (int f = 0; f < lengthof(forms); f++)
		{
			for (int i = -1; i < (int) lengthof(networks4); i++)
			{
				Range		  inner = range_of(i < 0 ? "8.8.8.8/32" : networks4[i]);
				unsigned char address[16];

				memcpy(address, r.address, 16);
				write_form(address, r.bits, &forms[f], inner.address);
				if (range_has(&nat64, address) || range_has(&mapped, address))
					continue; /* tested below, and as addresses of IPv4 */
				tried++;
				if (allowed_bytes(none, address) && ++wrong < 10)
					fails(address, forms[f].name);
				if (allowed_bytes(all_of_4, address) && ++wrong < 10)
					fails(address, "with all of IPv4 allowed");
				if (!allowed_bytes(named, address) && ++wrong < 10)
					fails(address, "with its own network allowed");
			}
		}
		outbound_free(named);
	}
	ok(wrong == 0 && tried > 7000,
	   "no form gets out of a special network, and the network's own name does");
	outbound_free(none);
	outbound_free(all_of_4);
}

/* What is public by itself, around each kind of special IPv4 address. */
static void
test_public_by_form(void)
{
	static const struct
	{
		const char *prefix;
		int			form;
	} tunnels[] = {
		{"64:ff9b::/96", 0}, {"2600:1:2:3::/64", 3},   {"2600:1:2:3::/64", 4},
		{"2000::/16", 10},	 {"2002:808:808::/48", 3}, {"2002:808:808::/48", 4},
	};
	OutboundPolicy *none = outbound_policy("");
	OutboundPolicy *all_of_4 = outbound_policy("0.0.0.0/0");
	int				tried = 0;
	int				wrong = 0;

	for (int t = 0; t < lengthof(tunnels); t++)
	{
		Range r = range_of(tunnels[t].prefix);
		int	  bits = tunnels[t].form == 10 ? 0 : r.bits;

		for (int i = -1; i < (int) lengthof(networks4); i++)
		{
			Range		  inner = range_of(i < 0 ? "8.8.8.8/32" : networks4[i]);
			unsigned char address[16];

			memcpy(address, r.address, 16);
			write_form(address, bits, &forms[tunnels[t].form], inner.address);
			tried++;
			if (allowed_bytes(none, address) != (i < 0) ||
				allowed_bytes(all_of_4, address) != (i < 0))
			{
				wrong++;
				fails(address, i < 0 ? "is refused" : "is reached");
			}
		}
	}
	ok(wrong == 0 && tried > 100,
	   "what is behind a tunnel is judged as well, and IPv4 networks that are allowed do not count for it");
	outbound_free(none);
	outbound_free(all_of_4);
}

static uint64
next_random(void)
{
	static uint64 state = UINT64CONST(0x9e3779b97f4a7c15);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* An address within a network, of bytes that mean something here more often than not. */
static void
random_within(const Range *r, unsigned char *address)
{
	static const unsigned char some[] = {0,	   0,	 0,	   1,	 2,	   8,  0x20, 0x5e,
										 0x64, 0x9b, 0xfe, 0xff, 0xff, 10, 127};

	memcpy(address, r->address, 16);
	for (int i = 0; i < 16; i++)
	{
		uint64 random = next_random();

		put_behind(address, r->bits, i,
				   random & 0x300 ? some[(random >> 16) % sizeof(some)] : random & 0xff);
	}
	if (next_random() % 2)
	{
		unsigned char inner[4];

		for (int i = 0; i < 4; i++)
			inner[i] = (unsigned char) next_random();
		write_form(address, r->bits, &forms[next_random() % lengthof(forms)], inner);
	}
}

/* Within a special network only what is named is reached, whatever the address looks like. */
static void
test_special_at_random(void)
{
	Range nat64 = range_of("64:ff9b::/96");
	Range mapped = range_of("::ffff:0:0/96");
	int	  wrong = 0;
	int	  tried = 0;
	int	  named_ones = 0;

	for (int round = 0; round < 400; round++)
	{
		Range			named[3];
		char			list[3 * (INET6_ADDRSTRLEN + 8)] = "192.0.2.0/24,2600::/16";
		OutboundPolicy *policy;

		/* Some subnetworks of special networks, and of what is public. */
		for (int i = 0; i < 3; i++)
		{
			Range outer = range_of(networks6[next_random() % lengthof(networks6)]);
			char  name[INET6_ADDRSTRLEN];

			random_within(&outer, named[i].address);
			named[i].bits = outer.bits + next_random() % (129 - outer.bits);
			if (range_has(&mapped, named[i].address))
				named[i] = range_of("fd00::/16");
			for (int byte = 0; byte < 16; byte++)
				put_behind(named[i].address, named[i].bits, byte, 0);
			snprintf(list + strlen(list), sizeof(list) - strlen(list), ",%s/%d",
					 inet_ntop(AF_INET6, named[i].address, name, sizeof(name)), named[i].bits);
		}
		policy = outbound_policy(list);
		for (int i = 0; i < 500; i++)
		{
			Range		  r = range_of(networks6[next_random() % lengthof(networks6)]);
			unsigned char address[16];
			bool		  is_named = false;

			random_within(i % 5 == 0 ? &named[i % 3] : &r, address);
			if (range_has(&nat64, address) || range_has(&mapped, address))
				continue;
			for (int k = 0; k < 3; k++)
				is_named |= range_has(&named[k], address);
			tried++;
			named_ones += is_named;
			if (allowed_bytes(policy, address) != is_named && ++wrong < 10)
				fails(address, list);
		}
		outbound_free(policy);
	}
	ok(wrong == 0, "of special networks, what is named is reached and nothing else");
	ok(tried > 150000 && named_ones > 20000 && tried - named_ones > 100000,
	   "that were enough of each");
}

static bool
parses(const char *networks)
{
	static jmp_buf catcher;
	volatile bool  good = false;

	standalone_catch = &catcher;
	if (setjmp(catcher) == 0)
	{
		outbound_free(outbound_policy(networks));
		good = true;
	}
	standalone_catch = NULL;
	return good;
}

void
test_outbound(void)
{
	static const int refused[] = {0,   1,	22,	 23,   25,	 53,   110,	 143,  389,	 465,
								  587, 636, 993, 2049, 5432, 6000, 6379, 6667, 10080};
	static const int fine[] = {80,	 81,   443,	 3000,	4100,  5000, 8000,
							   8080, 8443, 9000, 10443, 32768, 65535};
	/* clang-format off */
	static const char *const malformed[] = {
		"localhost", "10", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "/8", "::/129", "::1%lo",
		"10.0.0.0/0008", "010.0.0.0/8", "0x7f.0.0.1", "127.1", "300.0.0.0/8", "10.0.0.0/8;127.0.0.1", "1::2::3", "10.0.0.0 / 8",
		"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255.255.255.255.255.255.255/128",
		/* what is not what it looks like */
		"10.0.0.1/8", "10.0.0.0/8,127.0.0.1/31", "fd00::1/8", "::1/127", "0.0.0.1/0", "::ffff:10.0.0.0/104", "::ffff:127.0.0.1",
		/* elements without anything in them */
		",", " , ,", "10.0.0.0/8,", ",10.0.0.0/8", "10.0.0.0/8,,fd00::/8", "\"\"", "10.0.0.0/8 127.0.0.1/32",
	};
	/* clang-format on */
	OutboundPolicy *none = outbound_policy("");
	OutboundPolicy *all = outbound_policy("0.0.0.0/0, ::/0");
	char			name[120];
	struct sockaddr unix_socket = {.sa_family = AF_UNIX};
	char			text[160];

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
		ok(!allowed_port(all, "8.8.8.8", refused[i]) && !allowed_port(all, "::1", refused[i]),
		   name);
	}
	for (int i = 0; i < lengthof(fine); i++)
	{
		snprintf(name, sizeof(name), "port %d is not", fine[i]);
		ok(allowed_port(none, "8.8.8.8", fine[i]), name);
	}
	ok(!outbound_allowed(all, &unix_socket, text, sizeof(text)),
	   "no socket in the file system is reached");

	ok(allowed("127.0.0.1", "127.0.0.1") && !allowed("127.0.0.1", "127.0.0.2"), "one address");
	ok(allowed("127.0.0.1/32,10.1.0.0/16", "10.1.255.255") &&
		   !allowed("127.0.0.1/32,10.1.0.0/16", "10.2.0.0"),
	   "a list");
	ok(allowed(" 10.0.0.0/8 ,\t\"192.168.0.0/16\" ", "192.168.3.4"), "with blanks and quotes");
	ok(allowed("10.0.0.0/9", "10.127.255.255") && !allowed("10.0.0.0/9", "10.128.0.0"),
	   "a network that ends within a byte");
	ok(allowed("fd12:3450::/28", "fd12:345f::1") && !allowed("fd12:3450::/28", "fd12:3460::1"),
	   "also in IPv6");
	ok(allowed("127.0.0.0/8", "::ffff:127.0.0.1"), "a mapped address is the address");
	ok(!allowed("127.0.0.0/8", "::1") && !allowed("::/0", "127.0.0.1"),
	   "and other families are others");
	ok(!allowed("127.0.0.0/8", "64:ff9b::127.0.0.1") && !allowed("10.0.0.0/8", "2002:a00:1::1") &&
		   !allowed("127.0.0.0/8", "::ffff:0:127.0.0.1") && !allowed("127.0.0.0/8", "::127.0.0.1"),
	   "what is behind a tunnel is not allowed with it");
	ok(allowed("64:ff9b::/96", "64:ff9b::10.0.0.1") && allowed("2002::/16", "2002:a00:1::1"),
	   "but with the tunnel's network");
	test_special_by_form();
	test_public_by_form();
	test_special_at_random();
	ok(parses("") && parses(NULL) && parses(" "), "an empty list");
	ok(parses("0.0.0.0/0") && parses("::/0") && parses("10.1.2.3/32") && parses("::1/128"),
	   "the shortest prefixes and the longest");
	for (int i = 0; i < lengthof(malformed); i++)
		ok(!parses(malformed[i]), malformed[i]);
	outbound_free(none);
	outbound_free(all);
}
