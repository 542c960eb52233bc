/*
 * fuzz_webhook.c
 *	  libFuzzer target: requests that want to be taken for webhooks.
 *
 * The input is a request: two bytes of choices, header lines, an empty line, the
 * body.  In a header, {hex}, {std} and {now} stand for the signatures and the
 * time that are right at that place; {HEX} and {STD} for signatures with the
 * previous secret, {bad} and {BAD} for those with a secret that is none, {wek} for
 * one with the bytes that the previous secret is the base64 of, few as they may be.
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

/* Is it authentic? */
static bool
is_authentic(const Request *r, const Key *keys, int nkeys)
{
	int			id_len, at_len, standard_len, hex_len, n[4];
	const char *id = header(r, "webhook-id", &id_len, &n[0]);
	const char *at = header(r, "webhook-timestamp", &at_len, &n[1]);
	const char *standard = header(r, "webhook-signature", &standard_len, &n[2]);
	const char *hex = header(r, "x-webhook-signature", &hex_len, &n[3]);
	bool		good = false;

	for (int i = 0; i < 4; i++)
		if (n[i] > 1)
			return false;
	if (id && !is_token(id, id_len, 255))
		return false;
	if (standard)
	{
		int64 unix_time = 0;
		char *text;
		int	  len;
		int	  tokens = 0;

		if (!id || !at || at_len < 1 || at_len > 11)
			return false;
		for (int i = 0; i < at_len; i++)
		{
			if (at[i] < '0' || at[i] > '9')
				return false;
			unix_time = unix_time * 10 + (at[i] - '0');
		}
		if (unix_time > NOW_UNIX + 300 || unix_time < NOW_UNIX - 300)
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

	if (strcmp(place, "now") == 0)
		*len += sprintf(out + *len, INT64_FORMAT, NOW_UNIX);
	else if (standard)
	{
		int			id_len, at_len, n, text_len;
		const char *id = header(r, "webhook-id", &id_len, &n);
		const char *at = header(r, "webhook-timestamp", &at_len, &n);
		char *text = signed_text(id ? id : "", id_len, at ? at : "", at_len, r->body, r->body_len,
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
	WebhookHeaders	   h = {{0}};
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
	authentic = is_authentic(&r, keys, nkeys);
	CHECK((problem == NULL) == authentic);
	CHECK(problem != NULL || h.signatures.data == NULL ||
		  llabs(sent_at - NOW) <= 300 * USECS_PER_SEC);
	check_times(r.body, Min(r.body_len, 64));
	keep_end();
	return 0;
}
