/*
 * webhook.h
 *	  Webhooks of upstreams.  See webhook.c.
 */
#ifndef GATEWAY_WEBHOOK_H
#define GATEWAY_WEBHOOK_H

#include <stdbool.h>

struct Request;

/* Whether the sender is within its limits; answers if it is not. */
extern bool webhook_allowed(struct Request *r);
extern void webhook_run(struct Request *r);
/* The parameters of its call, once the headers are known. */
extern void webhook_params(struct Request *r);

#endif /* GATEWAY_WEBHOOK_H */
