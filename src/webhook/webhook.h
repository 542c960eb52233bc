/*
 * webhook.h
 *	  A webhook on its way through the SQL-callable functions.  See webhook/webhook.c.
 */
#ifndef FLOHSYNC_SQLFN_WEBHOOK_H
#define FLOHSYNC_SQLFN_WEBHOOK_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "base/bytes.h"
#include "base/run_as.h"
#include "page/filter.h"
#include "page/page.h"
#include "record/upsert.h"

/* A webhook that is believed. */
typedef struct Webhook
{
	Datum		connector; /* uuid */
	Jsonb	   *body;
	Slice		id; /* of the delivery; NULL data where there is none */
	TimestampTz received_at;
	TimestampTz sent_at; /* by the sender's clock; 0: unknown */
} Webhook;

/* The record that one is about. */
typedef struct WebhookRecord
{
	const Webhook *hook;
	text		  *type;
	char		  *id;
	TimestampTz	   event_at; /* 0: unknown */
	Filter		   filter;
	bool		   filtered;   /* there are filter rules */
	bool		   followed;   /* records of the type have consumers: matching, a workflow */
	bool		   told_cache; /* whoever wrote the record has */
	/* why it did not get the lock of the matching; NULL: it has, or does not need it */
	char	   *hindered;
	UpsertScope scope;
} WebhookRecord;

extern void webhook_check_enabled(bool enabled, const char *name);
FLOHSYNC_NORETURN(extern void webhook_refuse(const char *key, const char *problem,
											 const char *hint));
extern JsonbValue *webhook_member(Jsonb *body, const char *key);
extern bool		   webhook_upsert(WebhookRecord *r, bool *ignored);
extern bool		   webhook_delete(WebhookRecord *r, bool *ignored);
extern bool		   webhook_call_handler(const Webhook *hook);
extern Datum	   webhook_receive(text *connector, Slice body, Jsonb *given);
extern Datum	   webhook_handle(Datum connector, Jsonb *body);
extern char		  *webhook_take(const Webhook *hook);
extern Datum	   webhook_done(const char *answer, MemoryContext caller, const RunAs *saved);

#endif /* FLOHSYNC_SQLFN_WEBHOOK_H */
