/*
 * outbound.h
 *	  Which addresses a connector may reach.  See outbound.c.
 */
#ifndef FLOHSYNC_OUTBOUND_H
#define FLOHSYNC_OUTBOUND_H

#include <arpa/inet.h>
#include <sys/socket.h>

typedef struct OutboundPolicy OutboundPolicy;

extern OutboundPolicy *outbound_policy(const char *allowed_networks);
extern void			   outbound_free(OutboundPolicy *policy);
extern bool outbound_allowed(const OutboundPolicy *policy, const struct sockaddr *address,
							 char *text, size_t size);

#endif /* FLOHSYNC_OUTBOUND_H */
