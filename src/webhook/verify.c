/*
 * verify.c
 *	  Is a webhook authentic, and when did it happen?
 *
 * HMAC-SHA256 by a secret of the connector:
 *	- Standard Webhooks: "v1," and the base64 of the HMAC of "id.timestamp.body";
 *	  a list of these is a rotation of the sender's.  Svix has other names for its headers.
 *	- X-Webhook-Signature, or a header that the config names: the HMAC of the body in hex.
 *	- GitHub: "sha256=" and the same.
 *	- Slack: "v0=" and the HMAC of "v0:timestamp:body" in hex.
 * Or the secret itself:
 *	- Okta: in the header Authorization, or one that the config names.
 *	- Microsoft Graph: in each notification of the body.
 * If the config names a scheme, no other counts.  Else the first two do, and where there is
 * a header of the first, the second does not.
 *
 * A secret is a text whose bytes are the key; for the first two, one that is base64, or
 * "whsec_" and base64, may also stand for the bytes behind that, as libraries
 * of Standard Webhooks take it.
 *
 * Everything here comes from the outside.  What is done does not depend on
 * which scheme and secrets there are, or whether there is any, nor on what is wrong with the
 * headers: a key is made up for each that is missing, all are tried, and the body goes through
 * all.  Comparing takes the same time whatever is different.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone_time.h"
#else
#include "postgres.h"

#include "base/compat.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"
#endif

#include "base/bytes.h"
#include "base/time_text.h"
#include "net/crypto.h"
#include "webhook/verify.h"

#define WEBHOOK_KEYS		   (2 * WEBHOOK_SECRETS)
#define WEBHOOK_MAX_SIGNATURES 16
#define WEBHOOK_MIN_KEY		   24 /* bytes of a key given as base64 without prefix */
#define WEBHOOK_BASE64_LEN	   44 /* of 32 bytes */

typedef struct WebhookKey
{
	const void *data;
	size_t		len;
	bool		real;
} WebhookKey;

static bool
webhook_same_name(Slice name, const char *lower)
{
	return name.len == strlen(lower) && pg_strncasecmp(name.data, lower, name.len) == 0;
}

static Slice
webhook_trim(Slice text)
{
	while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
		text.data++, text.len--;
	while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
		text.len--;
	return text;
}

/* webhook_scheme is that of a name. */
WebhookScheme
webhook_scheme(Slice name)
{
#define WEBHOOK_SCHEME_NAME(id, text) \
	if (name.len == strlen(text) && memcmp(name.data, text, name.len) == 0) \
		return WEBHOOK_##id;
	WEBHOOK_SCHEMES(WEBHOOK_SCHEME_NAME)
#undef WEBHOOK_SCHEME_NAME
	return WEBHOOK_UNKNOWN_SCHEME;
}

#define OF(id) (1 << WEBHOOK_##id)

static const struct
{
	const char *name;
	size_t		offset;
	unsigned	schemes; /* in which it counts */
} webhook_names[] = {
	{"webhook-id", offsetof(WebhookHeaders, id), OF(NO_SCHEME) | OF(STANDARD) | OF(HMAC_HEX)},
	{"webhook-timestamp", offsetof(WebhookHeaders, timestamp), OF(NO_SCHEME) | OF(STANDARD)},
	{"webhook-signature", offsetof(WebhookHeaders, signatures), OF(NO_SCHEME) | OF(STANDARD)},
	{"x-webhook-signature", offsetof(WebhookHeaders, hex), OF(NO_SCHEME) | OF(HMAC_HEX)},
	/* The names of the service that the scheme comes from. */
	{"svix-id", offsetof(WebhookHeaders, id), OF(NO_SCHEME) | OF(SVIX)},
	{"svix-timestamp", offsetof(WebhookHeaders, timestamp), OF(NO_SCHEME) | OF(SVIX)},
	{"svix-signature", offsetof(WebhookHeaders, signatures), OF(NO_SCHEME) | OF(SVIX)},
	{"x-hub-signature-256", offsetof(WebhookHeaders, hex), OF(GITHUB)},
	{"x-github-delivery", offsetof(WebhookHeaders, id), OF(GITHUB)},
	{"x-github-event", offsetof(WebhookHeaders, event), OF(GITHUB)},
	{"x-slack-signature", offsetof(WebhookHeaders, hex), OF(SLACK)},
	{"x-slack-request-timestamp", offsetof(WebhookHeaders, timestamp), OF(SLACK)},
	{"authorization", offsetof(WebhookHeaders, secret), OF(OKTA)},
};

#undef OF

/* Where a header of a name goes; -1: it does not count. */
static int
webhook_find_name(const WebhookHeaders *h, Slice name)
{
	for (int i = 0; i < (int) lengthof(webhook_names); i++)
	{
		bool where = webhook_names[i].offset == offsetof(WebhookHeaders, hex) ||
			webhook_names[i].offset == offsetof(WebhookHeaders, secret);

		if ((webhook_names[i].schemes & (1 << h->scheme)) == 0)
			continue;
		if (where && h->custom.data != NULL)
		{
			if (name.len == h->custom.len &&
				pg_strncasecmp(name.data, h->custom.data, name.len) == 0)
				return i;
		}
		else if (webhook_same_name(name, webhook_names[i].name))
			return i;
	}
	return -1;
}

/* webhook_header takes a header, if it is one of those that count. */
void
webhook_header(WebhookHeaders *h, Slice name, Slice value, bool is_text)
{
	int	   i = webhook_find_name(h, name);
	Slice *which;

	if (i < 0)
		return;
	which = (Slice *) ((char *) h + webhook_names[i].offset);
	value = webhook_trim(value);
	/* Some send both names, and then with the same value. */
	if (!is_text || (h->names & (1 << i)) != 0 ||
		(which->data != NULL &&
		 (which->len != value.len || memcmp(which->data, value.data, value.len) != 0)))
		h->twice = true;
	h->names |= 1 << i;
	*which = value;
}

/* The keys that a secret can stand for: two, one of them made up where need be. */
static void
webhook_keys(Slice secret, const unsigned char *made_up, WebhookKey *keys)
{
	Slice		   encoded = secret;
	unsigned char *decoded;
	size_t		   room;
	ssize_t		   len;
	bool		   prefixed = secret.len > 6 && memcmp(secret.data, "whsec_", 6) == 0;

	keys[0] = keys[1] = (WebhookKey){made_up, CRYPTO_HMAC_BYTES, false};
	if (secret.data == NULL || secret.len == 0)
		return;
	keys[0] = (WebhookKey){secret.data, secret.len, true};
	if (prefixed)
		encoded = (Slice){secret.data + 6, secret.len - 6};
	room = CRYPTO_BASE64_ROOM((size_t) encoded.len);
	decoded = palloc(room);
	len = crypto_base64_decode(CRYPTO_BASE64, encoded.data, encoded.len, decoded);
	if (len >= (prefixed ? 1 : WEBHOOK_MIN_KEY))
		keys[1] = (WebhookKey){decoded, len, true};
	else
		crypto_wipe(decoded, room);
}

/* Of the keys, these are copies. */
static void
webhook_wipe_keys(WebhookKey *keys)
{
	for (int k = 1; k < WEBHOOK_KEYS; k += 2)
		if (keys[k].real)
			crypto_wipe((void *) keys[k].data, keys[k].len);
}

/* Is the signature that of a real key? */
static bool
webhook_signed(const unsigned char *signature, unsigned char macs[WEBHOOK_KEYS][CRYPTO_HMAC_BYTES],
			   const WebhookKey *keys)
{
	bool found = false;

	for (int k = 0; k < WEBHOOK_KEYS; k++)
		found |= crypto_equal(signature, CRYPTO_HMAC_BYTES, macs[k], CRYPTO_HMAC_BYTES) &
			keys[k].real;
	return found;
}

static bool
webhook_find_standard(Slice list, unsigned char macs[WEBHOOK_KEYS][CRYPTO_HMAC_BYTES],
					  const WebhookKey *keys)
{
	int	 n = 0;
	bool found = false;

	for (int i = 0; i < list.len && n < WEBHOOK_MAX_SIGNATURES;)
	{
		int			  end = i;
		unsigned char signature[CRYPTO_BASE64_ROOM(WEBHOOK_BASE64_LEN)];

		while (end < list.len && list.data[end] != ' ')
			end++;
		/* Of other versions there may be some beside. */
		if (end - i == 3 + WEBHOOK_BASE64_LEN && memcmp(list.data + i, "v1,", 3) == 0 &&
			crypto_base64_decode(CRYPTO_BASE64, list.data + i + 3, WEBHOOK_BASE64_LEN, signature) ==
				CRYPTO_HMAC_BYTES)
			found |= webhook_signed(signature, macs, keys);
		n += end > i;
		i = end + 1;
	}
	return found;
}

static bool
webhook_find_hex(WebhookScheme scheme, Slice hex,
				 unsigned char macs[WEBHOOK_KEYS][CRYPTO_HMAC_BYTES], const WebhookKey *keys)
{
	unsigned char signature[CRYPTO_HMAC_BYTES];
	const char	 *prefix = scheme == WEBHOOK_SLACK ? "v0=" : "sha256=";
	int			  len = strlen(prefix);
	bool		  prefixed = hex.len > len && pg_strncasecmp(hex.data, prefix, len) == 0;

	if (prefixed)
		hex = (Slice){hex.data + len, hex.len - len};
	else if (scheme == WEBHOOK_SLACK || scheme == WEBHOOK_GITHUB)
		return false;
	if (hex.len != 2 * CRYPTO_HMAC_BYTES)
		return false;
	return crypto_hex_decode(hex.data, hex.len, signature) && webhook_signed(signature, macs, keys);
}

/* What of a header goes into the signed text. */
static bool
webhook_is_token(Slice text, int max)
{
	if (text.len == 0 || text.len > max)
		return false;
	for (int i = 0; i < text.len; i++)
		if (text.data[i] <= ' ' || text.data[i] > '~' || text.data[i] == '.')
			return false;
	return true;
}

static bool
webhook_is_time(Slice text, TimestampTz *at)
{
	return webhook_is_token(text, 11) && time_unix(text.data, text.len, at);
}

/* Is the signature one of Standard Webhooks? */
static bool
webhook_is_standard(const WebhookHeaders *h)
{
	return h->signatures.data != NULL || h->scheme == WEBHOOK_STANDARD || h->scheme == WEBHOOK_SVIX;
}

/*
 * What is wrong with the headers, NULL: nothing; and the text before the body that was signed
 * with it, of which the parts are put into before.
 */
static const char *
webhook_headers_problem(const WebhookHeaders *h, Slice before[4], TimestampTz *sent_at)
{
	if (h->scheme == WEBHOOK_UNKNOWN_SCHEME)
		return "the config of the connector names a scheme that is none";
	if (h->twice)
		return "a signature header occurs more than once, or is not a string";
	if (h->scheme == WEBHOOK_GRAPH)
		return NULL;
	if (h->scheme == WEBHOOK_OKTA)
		return h->secret.data == NULL ? "the header with the secret is missing" : NULL;
	if (h->signatures.data == NULL && h->hex.data == NULL)
		return "the signature is missing";
	if (h->id.data != NULL && !webhook_is_token(h->id, WEBHOOK_MAX_ID))
		return "the id of the delivery is malformed";
	if (h->scheme == WEBHOOK_SLACK)
	{
		if (!webhook_is_time(h->timestamp, sent_at))
			return "the header x-slack-request-timestamp is missing or malformed";
		before[0] = (Slice){"v0:", 3};
		before[1] = h->timestamp;
		before[2] = (Slice){":", 1};
	}
	else if (webhook_is_standard(h))
	{
		if (h->id.data == NULL)
			return "the header webhook-id is missing";
		if (!webhook_is_time(h->timestamp, sent_at))
			return "the header webhook-timestamp is missing or malformed";
		before[0] = h->id;
		before[1] = before[3] = (Slice){".", 1};
		before[2] = h->timestamp;
	}
	return NULL;
}

/* What was signed: a copy also where it is the body alone, as all else is done whatever came. */
static Slice
webhook_signed_text(const Slice before[4], Slice body)
{
	Size  len = body.len;
	char *text;
	char *end;

	for (int i = 0; i < 4; i++)
		len += before[i].len;
	text = end = palloc(Max(len, 1));
	for (int i = 0; i < 4; i++)
		if (before[i].len > 0)
		{
			memcpy(end, before[i].data, before[i].len);
			end += before[i].len;
		}
	if (body.len > 0)
		memcpy(end, body.data, body.len);
	return (Slice){text, (int) len};
}

/*
 * Longer than a screen: whatever is wrong, all is done, and only the last part says what it was.
 */
const char *
webhook_verify(const WebhookHeaders *h, Slice body, const Slice secrets[WEBHOOK_SECRETS],
			   TimestampTz now, TimestampTz *sent_at)
{
	WebhookKey	  keys[WEBHOOK_KEYS];
	unsigned char made_up[CRYPTO_HMAC_BYTES];
	unsigned char macs[WEBHOOK_KEYS][CRYPTO_HMAC_BYTES];
	Slice		  before[4] = {{NULL}};
	const char	 *problem;
	bool		  any = false;
	bool		  signed_all = true;
	bool		  found;

	*sent_at = 0;
	problem = webhook_headers_problem(h, before, sent_at);
	body = webhook_signed_text(before, body);
	if (!crypto_random(made_up, sizeof(made_up)))
		return "could not generate random bytes";
	for (int s = 0; s < WEBHOOK_SECRETS; s++)
		webhook_keys(secrets[s], made_up, keys + 2 * s);
	for (int k = 0; k < WEBHOOK_KEYS; k++)
	{
		any |= keys[k].real;
		signed_all = crypto_hmac_sha256(keys[k].data, keys[k].len, body.data, body.len, macs[k]) &&
			signed_all;
	}
	webhook_wipe_keys(keys);
	/* These senders know nothing of base64. */
	if (h->scheme == WEBHOOK_GITHUB || h->scheme == WEBHOOK_SLACK)
		for (int k = 1; k < WEBHOOK_KEYS; k += 2)
			keys[k].real = false;
	if (!signed_all)
		return "OpenSSL could not compute HMAC-SHA256";
	if (problem)
		return problem;
	switch (h->scheme)
	{
		case WEBHOOK_GRAPH:
			found = true;
			break;
		case WEBHOOK_OKTA:
			found = webhook_are_secrets(&h->secret, 1, secrets);
			break;
		default:
			found = webhook_is_standard(h) ? webhook_find_standard(h->signatures, macs, keys) :
											 webhook_find_hex(h->scheme, h->hex, macs, keys);
	}
	if (!found)
		return !any ? "there is no such connector, or it has no secret \"webhook\"" :
			h->scheme == WEBHOOK_OKTA ? "what came is no secret of the connector" :
										"no secret of the connector has made the signature";
	if (before[0].data != NULL &&
		(*sent_at > now + WEBHOOK_TOLERANCE_S * USECS_PER_SEC ||
		 *sent_at < now - WEBHOOK_TOLERANCE_S * USECS_PER_SEC))
		return "the timestamp is more than five minutes off";
	return NULL;
}

/* Values and secrets are compared by what a key that nobody knows makes of them. */
bool
webhook_are_secrets(const Slice *values, int n, const Slice secrets[WEBHOOK_SECRETS])
{
	unsigned char key[CRYPTO_HMAC_BYTES];
	unsigned char macs[WEBHOOK_SECRETS][CRYPTO_HMAC_BYTES];
	bool		  all = n > 0;

	if (!crypto_random(key, sizeof(key)))
		return false;
	for (int s = 0; s < WEBHOOK_SECRETS; s++)
		if (!crypto_hmac_sha256(key, sizeof(key), secrets[s].data ? secrets[s].data : "",
								secrets[s].len, macs[s]))
			return false;
	for (int i = 0; i < n; i++)
	{
		unsigned char mac[CRYPTO_HMAC_BYTES];
		bool		  one = false;

		if (!crypto_hmac_sha256(key, sizeof(key), values[i].data, values[i].len, mac))
			return false;
		for (int s = 0; s < WEBHOOK_SECRETS; s++)
			one |= crypto_equal(mac, sizeof(mac), macs[s], sizeof(mac)) & (secrets[s].len > 0);
		all &= one;
	}
	return all;
}
