/*
 * framing.h
 *	  Whether a request is framed so that everybody reads it alike.  See framing.c.
 */
#ifndef GATEWAY_FRAMING_H
#define GATEWAY_FRAMING_H

#include <stdbool.h>
#include <stddef.h>

struct Request;

/* False, with the problem: one that begins with "501 " is a transfer coding that is not known. */
extern bool framing_ok(struct Request *r, const char *method, const char *version, char *problem,
					   size_t size);

#endif /* GATEWAY_FRAMING_H */
