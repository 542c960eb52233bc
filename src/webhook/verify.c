/*
 * verify.c
 *	  Is a webhook authentic, and when did it happen?
 *
 * Two schemes, HMAC-SHA256 both:
 *	- Standard Webhooks: "v1," and the base64 of the HMAC of "id.timestamp.body";
 *	  a list of these is a rotation of the sender's.  Where there is such a
 *	  header, nothing else counts.
 *	- X-Webhook-Signature: the HMAC of the body in hex.
 * A secret is a text whose bytes are the key; one that is base64, or "whsec_"
 * and base64, may also stand for the bytes behind that, as libraries of the
 * first scheme take it.
 *
 * Everything here comes from the outside.  What is done does not depend on
 * which secrets there are, or whether there is any: a key is made up for each
 * that is missing, and all are tried.  Comparing takes the same time whatever
 * is different.
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

/* webhook_header takes a header, if it is one of those that count. */
void
webhook_header(WebhookHeaders *h, Slice name, Slice value, bool is_text)
{
	static const struct
	{
		const char *name;
		size_t		offset;
	} names[] = {
		{"webhook-id", offsetof(WebhookHeaders, id)},
		{"webhook-timestamp", offsetof(WebhookHeaders, timestamp)},
		{"webhook-signature", offsetof(WebhookHeaders, signatures)},
		{"x-webhook-signature", offsetof(WebhookHeaders, hex)},
		/* The names of the service that the scheme comes from. */
		{"svix-id", offsetof(WebhookHeaders, id)},
		{"svix-timestamp", offsetof(WebhookHeaders, timestamp)},
		{"svix-signature", offsetof(WebhookHeaders, signatures)},
	};
	Slice *which;
	size_t i = 0;

	while (i < lengthof(names) && !webhook_same_name(name, names[i].name))
		i++;
	if (i == lengthof(names))
		return;
	which = (Slice *) ((char *) h + names[i].offset);
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
webhook_find_hex(Slice hex, unsigned char macs[WEBHOOK_KEYS][CRYPTO_HMAC_BYTES],
				 const WebhookKey *keys)
{
	unsigned char signature[CRYPTO_HMAC_BYTES];

	if (hex.len > 7 && pg_strncasecmp(hex.data, "sha256=", 7) == 0)
		hex = (Slice){hex.data + 7, hex.len - 7};
	if (hex.len != 2 * CRYPTO_HMAC_BYTES)
		return false;
	return crypto_hex_decode(hex.data, hex.len, signature) && webhook_signed(signature, macs, keys);
}

/* What of a header of the first scheme goes into the signed text. */
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

const char *
webhook_verify(const WebhookHeaders *h, Slice body, const Slice secrets[WEBHOOK_SECRETS],
			   TimestampTz now, TimestampTz *sent_at)
{
	bool		  standard = h->signatures.data != NULL;
	WebhookKey	  keys[WEBHOOK_KEYS];
	unsigned char made_up[CRYPTO_HMAC_BYTES];
	unsigned char macs[WEBHOOK_KEYS][CRYPTO_HMAC_BYTES];
	char		 *text = NULL;
	bool		  any = false;
	bool		  signed_all = true;
	bool		  found;

	*sent_at = 0;
	if (h->twice)
		return "a signature header occurs more than once, or is not a string";
	if (!standard && h->hex.data == NULL)
		return "the signature is missing";
	if (h->id.data != NULL && !webhook_is_token(h->id, WEBHOOK_MAX_ID))
		return "the header webhook-id is malformed";
	if (standard)
	{
		if (h->id.data == NULL)
			return "the header webhook-id is missing";
		if (!webhook_is_token(h->timestamp, 11) ||
			!time_unix(h->timestamp.data, h->timestamp.len, sent_at))
			return "the header webhook-timestamp is missing or malformed";
		text = palloc((Size) h->id.len + h->timestamp.len + body.len + 2);
		memcpy(text, h->id.data, h->id.len);
		text[h->id.len] = '.';
		memcpy(text + h->id.len + 1, h->timestamp.data, h->timestamp.len);
		text[h->id.len + 1 + h->timestamp.len] = '.';
		memcpy(text + h->id.len + h->timestamp.len + 2, body.data, body.len);
		body = (Slice){text, h->id.len + h->timestamp.len + 2 + body.len};
	}

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
	if (!signed_all)
		return "OpenSSL could not compute HMAC-SHA256";
	found = standard ? webhook_find_standard(h->signatures, macs, keys) :
					   webhook_find_hex(h->hex, macs, keys);
	if (!found)
		return any ? "no secret of the connector has made the signature" :
					 "there is no such connector, or it has no secret \"webhook\"";
	if (standard &&
		(*sent_at > now + WEBHOOK_TOLERANCE_S * USECS_PER_SEC ||
		 *sent_at < now - WEBHOOK_TOLERANCE_S * USECS_PER_SEC))
		return "the timestamp is more than five minutes off";
	return NULL;
}
