/*
 * handshake.h
 *	  What senders ask before they send, and answers as HTTP has them.  See
 *	  webhook/handshake.c.
 */
#ifndef FLOHSYNC_WEBHOOK_HANDSHAKE_H
#define FLOHSYNC_WEBHOOK_HANDSHAKE_H

#include "webhook/settings.h"
#include "webhook/webhook.h"

extern char *webhook_greeting(const WebhookRequest *request, const WebhookSettings *settings);
extern char *webhook_test_answer(const WebhookRequest *request, const Webhook *hook,
								 const WebhookHeaders *headers);
extern char *webhook_by_http(const WebhookRequest *request, char *answer);

#endif /* FLOHSYNC_WEBHOOK_HANDSHAKE_H */
