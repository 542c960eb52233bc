/*
 * settings.h
 *	  What a connector's config says of its webhooks.  See webhook/settings.c.
 */
#ifndef FLOHSYNC_WEBHOOK_SETTINGS_H
#define FLOHSYNC_WEBHOOK_SETTINGS_H

#include "utils/jsonb.h"

#include "webhook/verify.h"

typedef struct WebhookSettings
{
	WebhookScheme scheme;
	Slice  header; /* name of the header with the signature or secret; NULL data: the usual */
	Jsonb *map;	   /* from the sender's body to events; NULL: it is one */
} WebhookSettings;

extern void	  webhook_settings(Jsonb *webhook, WebhookSettings *settings);
extern Slice *webhook_client_states(Slice body, int *n);

#endif /* FLOHSYNC_WEBHOOK_SETTINGS_H */
