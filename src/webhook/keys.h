/*
 * keys.h
 *	  Which event has named which key of a record last.  See webhook/keys.c.
 */
#ifndef FLOHSYNC_WEBHOOK_KEYS_H
#define FLOHSYNC_WEBHOOK_KEYS_H

#include "utils/jsonb.h"

#include "datatype/timestamp.h"
#include "base/bytes.h"
#include "page/page.h"

#define WEBHOOK_MAX_KEYS 64

/* Attributes that stay, though an event takes all away. */
typedef struct WebhookKept
{
	int	  n;
	Slice names[WEBHOOK_MAX_KEYS];
} WebhookKept;

extern Jsonb *webhook_keys_note(Jsonb *keys, TimestampTz since, Jsonb *data, TimestampTz at);
extern Jsonb *webhook_keys_late(Jsonb *keys, Jsonb *data, TimestampTz at, WebhookKept *kept);

#endif /* FLOHSYNC_WEBHOOK_KEYS_H */
