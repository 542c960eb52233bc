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

/* What came from outside; NULL: nothing. */
typedef struct WebhookRequest
{
	text	   *connector;
	Slice		body;
	Jsonb	   *headers;
	bool		by_http; /* the answer is one of HTTP, and these are known: */
	const char *method;
	Jsonb	   *query;
} WebhookRequest;

typedef enum WebhookAction
{
	WEBHOOK_CREATED,
	WEBHOOK_UPDATED,
	WEBHOOK_DELETED,
	WEBHOOK_NO_ACTION /* one that is nothing to us */
} WebhookAction;

/* The record that one is about. */
typedef struct WebhookRecord
{
	const Webhook *hook;
	WebhookAction  action;
	text		  *type;
	char		  *id;
	TimestampTz	   event_at; /* 0: unknown */
	bool		   fetched;	 /* the webhook has no data; the upstream was asked for the record: */
	const char	  *whole;	 /* the record, as JSON; NULL: it has none */
	TimestampTz	   asked_at; /* when that was */
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
extern void		   webhook_scope(WebhookRecord *r);
extern bool		   webhook_upsert(WebhookRecord *r, bool *ignored);
extern bool		   webhook_delete(WebhookRecord *r, bool *ignored);
extern bool		   webhook_call_handler(const Webhook *hook);
extern Datum	   webhook_receive(const WebhookRequest *request);
extern Datum	   webhook_handle(Datum connector, Jsonb *body);
extern char		  *webhook_take(const Webhook *hook);
extern char		  *webhook_take_events(const Webhook *hook, Jsonb *map);
extern void		   webhook_read_record(WebhookRecord *r);
extern const char *webhook_store_record(WebhookRecord *r, bool *changed);
extern bool		   webhook_note_id(const Webhook *hook, Slice id);
extern void		   webhook_forget(void);
extern char		  *webhook_answer(const char *action, bool changed);
extern Datum	   webhook_done(const char *answer, MemoryContext caller, const RunAs *saved);

#endif /* FLOHSYNC_SQLFN_WEBHOOK_H */
