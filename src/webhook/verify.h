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
#define WEBHOOK_TOLERANCE_S 300
#define WEBHOOK_SECRETS		2 /* the one, and the one before it */

/* The headers that count; data is NULL where there is none. */
typedef struct WebhookHeaders
{
	Slice	 id;		 /* webhook-id or svix-id; the others likewise */
	Slice	 timestamp;	 /* webhook-timestamp */
	Slice	 signatures; /* webhook-signature */
	Slice	 hex;		 /* x-webhook-signature */
	unsigned names;		 /* that came, as bits */
	bool	 twice;		 /* one of them came more than once, or was no text */
} WebhookHeaders;

extern void webhook_header(WebhookHeaders *headers, Slice name, Slice value, bool is_text);

/*
 * webhook_verify returns NULL when one of the secrets has signed the body, else
 * why not: for the server's log, never for the sender.  sent_at is 0 where the
 * scheme has no time.
 */
extern const char *webhook_verify(const WebhookHeaders *headers, Slice body,
								  const Slice secrets[WEBHOOK_SECRETS], TimestampTz now,
								  TimestampTz *sent_at);


#endif /* FLOHSYNC_WEBHOOK_H */
