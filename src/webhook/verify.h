/*
 * verify.h
 *	  Is a webhook authentic, and when did it happen?  See webhook/verify.c.
 */
#ifndef FLOHSYNC_WEBHOOK_H
#define FLOHSYNC_WEBHOOK_H

#include "datatype/timestamp.h"

#include "base/bytes.h"
#include "page/page.h"

#define WEBHOOK_MAX_BODY	(1024 * 1024)
#define WEBHOOK_MAX_HEADERS (64 * 1024)
#define WEBHOOK_MAX_ID		255
#define WEBHOOK_MAX_EVENTS	1000 /* in a body */
#define WEBHOOK_TOLERANCE_S 300
#define WEBHOOK_SECRETS		2 /* the one, and the one before it */

/*
 * The schemes that a connector's config may name: X(id, name).  Without one, those of
 * Standard Webhooks, by both names, and of X-Webhook-Signature are taken.
 */
#define WEBHOOK_SCHEMES(X) \
	X(STANDARD, "standard") \
	X(SVIX, "svix") \
	X(HMAC_HEX, "hmac_hex") \
	X(GITHUB, "github") \
	X(OKTA, "okta") \
	X(GRAPH, "graph") \
	X(SLACK, "slack")

#define WEBHOOK_SCHEME_ID(id, name) WEBHOOK_##id,

typedef enum WebhookScheme
{
	WEBHOOK_NO_SCHEME,
	WEBHOOK_SCHEMES(WEBHOOK_SCHEME_ID) WEBHOOK_UNKNOWN_SCHEME
} WebhookScheme;

#undef WEBHOOK_SCHEME_ID

/* The headers that count; data is NULL where there is none. */
typedef struct WebhookHeaders
{
	WebhookScheme scheme; /* set before the first header, as is custom */
	Slice	 custom; /* name of the header with the signature or secret; NULL data: the usual */
	Slice	 id;	 /* of the delivery */
	Slice	 timestamp;
	Slice	 signatures; /* base64, a list */
	Slice	 hex;
	Slice	 secret; /* the secret itself */
	Slice	 event;	 /* what the sender calls it, not signed */
	unsigned names;	 /* that came, as bits */
	bool	 twice;	 /* one of them came more than once, or was no text */
} WebhookHeaders;

extern WebhookScheme webhook_scheme(Slice name);
extern void			 webhook_header(WebhookHeaders *headers, Slice name, Slice value, bool is_text);

/*
 * webhook_verify returns NULL when one of the secrets has signed the body, or
 * is what came, else why not: for the server's log, never for the sender.  sent_at is 0
 * where the scheme has no time.  The secret of WEBHOOK_GRAPH is in the body:
 * there it is for webhook_are_secrets.
 */
extern const char *webhook_verify(const WebhookHeaders *headers, Slice body,
								  const Slice secrets[WEBHOOK_SECRETS], TimestampTz now,
								  TimestampTz *sent_at);

/* webhook_are_secrets: are there values, and is each one of the secrets? */
extern bool webhook_are_secrets(const Slice *values, int n, const Slice secrets[WEBHOOK_SECRETS]);

#endif /* FLOHSYNC_WEBHOOK_H */
