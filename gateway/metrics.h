/*
 * metrics.h
 *	  What this server counts.  See metrics.c.
 */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include <stdbool.h>

#include "buf.h"

struct Request;

typedef enum Metric
{
	METRIC_BAD_TOKEN,
	METRIC_FORBIDDEN,
	METRIC_RATE_LIMITED,
	METRIC_TOKEN_CACHED,
	METRIC_TOKEN_VERIFIED,
	METRIC_COUNT
} Metric;

extern void metrics_count(Metric metric);
/* A request has ended: counts it, and logs it. */
extern void metrics_request(struct Request *r, bool complete);
extern void metrics_print(Buf *b);

#endif /* GATEWAY_METRICS_H */
