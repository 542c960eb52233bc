/*
 * fuzz_webhook.c
 *	  libFuzzer target: requests that want to be taken for webhooks.
 *
 * The input is a request: two bytes of choices (the first is that of the secrets and
 * of the scheme that the config names), header lines, an empty line, the
 * body.  In a header, {hex}, {std} and {now} stand for the signatures and the
 * time that are right at that place; {HEX} and {STD} for signatures with the
 * previous secret, {bad} and {BAD} for those with a secret that is none, {wek} for
 * one with the bytes that the previous secret is the base64 of, few as they may be; {slk} for the
 * one of Slack, {sec} for the secret itself.
 * Then a byte of it may be changed.  Whether it is authentic is decided here once more,
 * from the description of the schemes: a forgery is never taken, and what was
 * signed is.
 */
#include "base/standalone_time.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "net/crypto.h"
#include "keep.h"
#include "base/time_text.h"
#include "webhook/verify.h"

jmp_buf *standalone_catch = NULL;

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_UNIX INT64CONST(1753000000)
#define NOW \
	((NOW_UNIX - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY) * USECS_PER_SEC)

/* Pairs of secrets: the one and the one before. */
static const char *const secret_pairs[][2] = {
	{"a long random text", NULL},
	{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "older"},
	{"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr", "whsec_QUJD"},
	{NULL, "only the one before"},
	{NULL, NULL},
	{"", ""},
	{"whsec_", "whsec_%%%%"},
	{"short", "MfKQ"},
};

typedef struct Key
{
	unsigned char bytes[256];
	int			  len;
} Key;

static Key weak;

static int
base64_value(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' :
		c >= 'a' && c <= 'z'	? c - 'a' + 26 :
		c >= '0' && c <= '9'	? c - '0' + 52 :
		c == '+'				? 62 :
		c == '/'				? 63 :
								  -1;
}

/* The bytes of a base64 text with padding; -1 when it is none. */
static int
base64_bytes(const char *text, int len, unsigned char *out)
{
	int n = 0;
	int padding = 0;

	if (len % 4 != 0)
		return -1;
	for (int i = 0; i < len; i += 4)
	{
		uint32 bits = 0;

		for (int k = 0; k < 4; k++)
		{
			int v = base64_value(text[i + k]);

			if (text[i + k] == '=' && i + 4 == len && k >= 2)
			{
				v = 0;
				padding++;
			}
			else if (v < 0 || padding > 0)
				return -1;
			bits = bits << 6 | v;
		}
		out[n++] = bits >> 16;
		out[n++] = bits >> 8;
		out[n++] = bits;
	}
	return n - padding;
}

/*
 * The keys that secrets stand for: the text, and what is behind "whsec_", or the text, as
 * base64.
 */
static int
keys_of(const char *const secrets[2], Key *keys)
{
	int n = 0;

	for (int i = 0; i < 2; i++)
	{
		const char *s = secrets[i];
		bool		prefixed;
		int			len;

		if (s == NULL || s[0] == '\0')
			continue;
		keys[n].len = strlen(s);
		memcpy(keys[n++].bytes, s, strlen(s));
		prefixed = strncmp(s, "whsec_", 6) == 0 && s[6];
		s += prefixed ? 6 : 0;
		len = base64_bytes(s, strlen(s), keys[n].bytes);
		if (len >= (prefixed ? 1 : 24))
			keys[n++].len = len;
	}
	return n;
}

static void
mac_of(const Key *key, const char *data, size_t len, unsigned char mac[32])
{
	CHECK(HMAC(EVP_sha256(), key->bytes, key->len, (const unsigned char *) data, len, mac, NULL) !=
		  NULL);
}

typedef struct Request
{
	struct
	{
		const char *name;
		int			name_len;
		char		value[2048];
		int			len;
	} headers[24];
	int			nheaders;
	const char *body;
	int			body_len;
} Request;

/* A header's value by its name in small letters; NULL when it is not there once. */
static const char *
header(const Request *r, const char *name, int *len, int *count)
{
	const char *value = NULL;

	*count = 0;
	*len = 0;
	for (int i = 0; i < r->nheaders; i++)
	{
		if (r->headers[i].name_len != (int) strlen(name) ||
			strncasecmp(r->headers[i].name, name, strlen(name)) != 0)
			continue;
		(*count)++;
		value = r->headers[i].value;
		*len = r->headers[i].len;
		while (*len > 0 && (*value == ' ' || *value == '\t'))
			value++, (*len)--;
		while (*len > 0 && (value[*len - 1] == ' ' || value[*len - 1] == '\t'))
			(*len)--;
	}
	return value;
}

/* "id.timestamp.body", malloc'ed */
static char *
signed_text(const char *id, int id_len, const char *at, int at_len, const char *body, int body_len,
			int *len)
{
	char *text = malloc(id_len + at_len + body_len + 2);

	memcpy(text, id, id_len);
	text[id_len] = '.';
	memcpy(text + id_len + 1, at, at_len);
	text[id_len + 1 + at_len] = '.';
	memcpy(text + id_len + at_len + 2, body, body_len);
	*len = id_len + at_len + body_len + 2;
	return text;
}

static bool
is_token(const char *text, int len, int max)
{
	if (len < 1 || len > max)
		return false;
	for (int i = 0; i < len; i++)
		if (text[i] < '!' || text[i] > '~' || text[i] == '.')
			return false;
	return true;
}

/* Is the secret itself there, once? */
static bool
has_secret(const Request *r, const char *const secrets[2])
{
	int			len, n;
	const char *value = header(r, "authorization", &len, &n);
	bool		good = false;

	for (int i = 0; i < 2; i++)
		good |= n == 1 && secrets[i] && secrets[i][0] && len == (int) strlen(secrets[i]) &&
			memcmp(value, secrets[i], len) == 0;
	return good;
}

/* Is a text, after a prefix, the HMAC in hex by the text of a secret? */
static bool
is_hex_of(const char *const secrets[2], const char *given, int given_len, const char *prefix,
		  const char *text, int len)
{
	int	 skip = strlen(prefix);
	bool good = false;

	if (given == NULL || given_len != skip + 64 || strncasecmp(given, prefix, skip) != 0)
		return false;
	for (int i = 0; i < 2; i++)
	{
		unsigned char mac[32];
		char		  hex[65];

		if (secrets[i] == NULL || secrets[i][0] == '\0')
			continue;
		HMAC(EVP_sha256(), secrets[i], strlen(secrets[i]), (const unsigned char *) text, len, mac,
			 NULL);
		for (int k = 0; k < 32; k++)
			sprintf(hex + 2 * k, "%02x", mac[k]);
		good |= strncasecmp(hex, given + skip, 64) == 0;
	}
	return good;
}

/* "v0:timestamp:body", malloc'ed */
static char *
slack_text(const Request *r, int *len)
{
	int			at_len, n;
	const char *at = header(r, "x-slack-request-timestamp", &at_len, &n);
	char	   *text = malloc(at_len + r->body_len + 4);

	memcpy(text, "v0:", 3);
	if (at)
		memcpy(text + 3, at, at_len);
	text[3 + at_len] = ':';
	memcpy(text + 4 + at_len, r->body, r->body_len);
	*len = 4 + at_len + r->body_len;
	return text;
}

static bool
is_github(const Request *r, const char *const secrets[2])
{
	int			id_len, hex_len, event_len, n[3];
	const char *id = header(r, "x-github-delivery", &id_len, &n[0]);
	const char *hex = header(r, "x-hub-signature-256", &hex_len, &n[1]);

	(void) header(r, "x-github-event", &event_len, &n[2]);
	return n[0] < 2 && n[1] < 2 && n[2] < 2 && (!id || is_token(id, id_len, 255)) &&
		is_hex_of(secrets, hex, hex_len, "sha256=", r->body, r->body_len);
}

/* Is it about now? */
static bool
is_now(const char *at, int len)
{
	int64 unix_time = 0;

	if (!at || len < 1 || len > 11)
		return false;
	for (int i = 0; i < len; i++)
	{
		if (at[i] < '0' || at[i] > '9')
			return false;
		unix_time = unix_time * 10 + (at[i] - '0');
	}
	return unix_time <= NOW_UNIX + 300 && unix_time >= NOW_UNIX - 300;
}

static bool
is_slack(const Request *r, const char *const secrets[2])
{
	int			at_len, hex_len, n[2], len;
	const char *at = header(r, "x-slack-request-timestamp", &at_len, &n[0]);
	const char *hex = header(r, "x-slack-signature", &hex_len, &n[1]);
	char	   *text = slack_text(r, &len);
	bool		good = n[0] < 2 && n[1] < 2 && is_now(at, at_len) &&
		is_hex_of(secrets, hex, hex_len, "v0=", text, len);

	free(text);
	return good;
}

/* Of a header that may have two names, and then the same value twice; without a scheme, it has. */
static const char *
header_of(const Request *r, WebhookScheme scheme, const char *end, int *len, int *count)
{
	char		names[2][32];
	int			lens[2], counts[2];
	const char *values[2];

	snprintf(names[0], sizeof(names[0]), "webhook-%s", end);
	snprintf(names[1], sizeof(names[1]), "svix-%s", end);
	for (int i = 0; i < 2; i++)
		values[i] = header(r, names[i], &lens[i], &counts[i]);
	for (int i = 0; i < 2; i++)
		if (scheme != WEBHOOK_NO_SCHEME ? i == (scheme == WEBHOOK_SVIX) : counts[!i] == 0)
		{
			*len = lens[i];
			*count = counts[i];
			return values[i];
		}
	*len = lens[0];
	*count = counts[0] == 1 && counts[1] == 1 && lens[0] == lens[1] &&
			memcmp(values[0], values[1], lens[0]) == 0 ?
		1 :
		2;
	return values[0];
}

/* Is it authentic? */
static bool
is_authentic(const Request *r, WebhookScheme scheme, const char *const secrets[2], const Key *keys,
			 int nkeys)
{
	int			id_len, at_len, standard_len, hex_len, n[4];
	const char *id = header_of(r, scheme, "id", &id_len, &n[0]);
	const char *at = header_of(r, scheme, "timestamp", &at_len, &n[1]);
	const char *standard = header_of(r, scheme, "signature", &standard_len, &n[2]);
	const char *hex = header(r, "x-webhook-signature", &hex_len, &n[3]);
	bool		good = false;

	switch (scheme)
	{
		case WEBHOOK_GRAPH:
			return true; /* as far as headers go */
		case WEBHOOK_UNKNOWN_SCHEME:
			return false;
		case WEBHOOK_OKTA:
			return has_secret(r, secrets);
		case WEBHOOK_GITHUB:
			return is_github(r, secrets);
		case WEBHOOK_SLACK:
			return is_slack(r, secrets);
		case WEBHOOK_HMAC_HEX:
			standard = at = NULL;
			n[1] = n[2] = 0;
			break;
		case WEBHOOK_STANDARD:
		case WEBHOOK_SVIX:
			hex = NULL;
			n[3] = 0;
			break;
		default:
			break;
	}
	for (int i = 0; i < 4; i++)
		if (n[i] > 1)
			return false;
	if (id && !is_token(id, id_len, 255))
		return false;
	if (standard)
	{
		char *text;
		int	  len;
		int	  tokens = 0;

		if (!id || !is_now(at, at_len))
			return false;
		text = signed_text(id, id_len, at, at_len, r->body, r->body_len, &len);
		for (const char *p = standard; p < standard + standard_len && tokens < 16;)
		{
			const char	 *end = memchr(p, ' ', standard + standard_len - p);
			unsigned char given[64];

			if (end == NULL)
				end = standard + standard_len;
			if (end - p == 47 && memcmp(p, "v1,", 3) == 0 && base64_bytes(p + 3, 44, given) == 32)
				for (int k = 0; k < nkeys; k++)
				{
					unsigned char mac[32];

					mac_of(&keys[k], text, len, mac);
					good |= memcmp(mac, given, 32) == 0;
				}
			tokens += end > p;
			p = end + 1;
		}
		free(text);
		return good;
	}
	if (hex == NULL)
		return false;
	if (hex_len > 7 && strncasecmp(hex, "sha256=", 7) == 0)
		hex += 7, hex_len -= 7;
	for (int k = 0; k < nkeys && hex_len == 64; k++)
	{
		unsigned char mac[32];
		char		  text[65];

		mac_of(&keys[k], r->body, r->body_len, mac);
		for (int i = 0; i < 32; i++)
			sprintf(text + 2 * i, "%02x", mac[i]);
		good |= strncasecmp(text, hex, 64) == 0;
	}
	return good;
}

/* Puts what a place holder stands for behind a header's value; false when it is none. */
static bool
expand(Request *r, const char *place, const Key *keys, int nkeys, char *out, int *len)
{
	static const Key wrong = {"a secret that is none", 21};
	const Key		*key = strcmp(place, "wek") == 0 ?
			  &weak :
			  strcasecmp(place, "bad") == 0 || nkeys == 0 ?
			  &wrong :
			  &keys[place[0] >= 'A' && place[0] <= 'Z' ? nkeys - 1 : 0];
	bool			 standard = strcasecmp(place, "std") == 0 || strcmp(place, "BAD") == 0;
	unsigned char	 mac[32];

	if (strcmp(place, "sec") == 0)
	{
		memcpy(out + *len, key->bytes, key->len);
		*len += key->len;
	}
	else if (strcmp(place, "slk") == 0)
	{
		int	  text_len;
		char *text = slack_text(r, &text_len);

		mac_of(key, text, text_len, mac);
		free(text);
		*len += sprintf(out + *len, "v0=");
		for (int i = 0; i < 32; i++)
			*len += sprintf(out + *len, "%02x", mac[i]);
	}
	else if (strcmp(place, "now") == 0)
		*len += sprintf(out + *len, INT64_FORMAT, NOW_UNIX);
	else if (standard)
	{
		int			id_len, at_len, n, text_len;
		const char *id = header(r, "webhook-id", &id_len, &n);
		const char *at = header(r, "webhook-timestamp", &at_len, &n);
		char	   *text;

		if (id == NULL)
		{
			id = header(r, "svix-id", &id_len, &n);
			at = header(r, "svix-timestamp", &at_len, &n);
		}
		text = signed_text(id ? id : "", id_len, at ? at : "", at_len, r->body, r->body_len,
						   &text_len);

		mac_of(key, text, text_len, mac);
		free(text);
		*len += sprintf(out + *len, "v1,");
		*len += EVP_EncodeBlock((unsigned char *) out + *len, mac, 32);
	}
	else if (strcasecmp(place, "hex") == 0 || strcmp(place, "bad") == 0 ||
			 strcmp(place, "wek") == 0)
	{
		mac_of(key, r->body, r->body_len, mac);
		for (int i = 0; i < 32; i++)
			*len += sprintf(out + *len, "%02x", mac[i]);
	}
	else
		return false;
	return true;
}

static void
read_header(Request *r, const char *line, const char *end, const Key *keys, int nkeys)
{
	const char *colon = memchr(line, ':', end - line);
	char		value[2048];
	int			len = 0;

	if (colon == NULL || r->nheaders == (int) lengthof(r->headers))
		return;
	for (const char *p = colon + 1; p < end && len < (int) sizeof(value) - 100;)
	{
		char place[4];

		if (*p == '{' && end - p >= 5 && p[4] == '}')
		{
			memcpy(place, p + 1, 3);
			place[3] = '\0';
			if (expand(r, place, keys, nkeys, value, &len))
			{
				p += 5;
				continue;
			}
		}
		value[len++] = *p++;
	}
	r->headers[r->nheaders].name = line;
	r->headers[r->nheaders].name_len = colon - line;
	memcpy(r->headers[r->nheaders].value, value, len);
	r->headers[r->nheaders++].len = len;
}

static void
check_times(const char *text, int len)
{
	TimestampTz at = 0;
	Slice		slice = {text, len};

	if (time_iso(slice.data, slice.len, &at))
		CHECK(at >= (int64) (date2j(1, 1, 1) - 1 - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY &&
			  at <= (int64) (date2j(9999, 12, 31) + 2 - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY);
	if (time_unix(slice.data, slice.len, &at))
		CHECK(len > 0 && len <= 14 && IS_VALID_TIMESTAMP(at));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static Request	   r;
	static char		   text[8192];
	const char *const *pair;
	const char		  *line = text;
	const char		  *end;
	Key				   keys[4];
	int				   nkeys;
	uint8			   spoil;
	WebhookHeaders	   h = {0};
	Slice			   secrets[WEBHOOK_SECRETS];
	TimestampTz		   sent_at = 0;
	const char		  *problem;
	bool			   authentic;

	if (size < 2 || size - 2 > sizeof(text))
		return 0;
	pair = secret_pairs[data[0] % lengthof(secret_pairs)];
	spoil = data[1];
	memcpy(text, data + 2, size - 2);
	end = text + size - 2;
	nkeys = keys_of(pair, keys);
	h.scheme = data[0] / lengthof(secret_pairs) % (WEBHOOK_UNKNOWN_SCHEME + 1);
	weak.len = pair[1] ? Max(0, base64_bytes(pair[1], strlen(pair[1]), weak.bytes)) : 0;

	/* The body comes first, as it is what is signed. */
	r.nheaders = 0;
	r.body = memmem(text, size - 2, "\n\n", 2);
	r.body = r.body ? r.body + 2 : end;
	r.body_len = end - r.body;
	while (line < r.body)
	{
		const char *newline = memchr(line, '\n', r.body - line);

		if (newline == NULL)
			newline = r.body;
		read_header(&r, line, newline, keys, nkeys);
		line = newline + 1;
	}
	/* One byte of the body or of a header is changed after the signing. */
	if (spoil & 1 && r.body_len > 0)
		text[r.body - text + (spoil >> 2) % r.body_len] ^= 1 << (spoil % 7);
	if (spoil & 2 && r.nheaders > 0)
	{
		int i = (spoil >> 2) % r.nheaders;

		if (r.headers[i].len > 0)
			r.headers[i].value[(spoil >> 4) % r.headers[i].len] ^= 1 << (spoil % 7);
	}

	keep_begin();
	for (int i = 0; i < r.nheaders; i++)
	{
		Slice name = {r.headers[i].name, r.headers[i].name_len};
		Slice value = {r.headers[i].value, r.headers[i].len};

		webhook_header(&h, name, value, true);
	}
	for (int i = 0; i < WEBHOOK_SECRETS; i++)
		secrets[i] = (Slice){pair[i], pair[i] ? (int) strlen(pair[i]) : 0};
	problem = webhook_verify(&h, (Slice){r.body, r.body_len}, secrets, NOW, &sent_at);
	authentic = is_authentic(&r, h.scheme, pair, keys, nkeys);
	CHECK((problem == NULL) == authentic);
	CHECK(webhook_are_secrets(&h.secret, 1, secrets) == (h.secret.data && has_secret(&r, pair)));
	CHECK(problem != NULL || (h.signatures.data == NULL && h.scheme != WEBHOOK_SLACK) ||
		  llabs(sent_at - NOW) <= 300 * USECS_PER_SEC);
	check_times(r.body, Min(r.body_len, 64));
	keep_end();
	return 0;
}
