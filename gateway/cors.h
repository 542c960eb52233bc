/*
 * cors.h
 *	  Pages of other origins.  See cors.c.
 */
#ifndef GATEWAY_CORS_H
#define GATEWAY_CORS_H

struct Request;

extern void cors_headers(struct Request *r);
extern void cors_preflight(struct Request *r, const char *methods);

#endif /* GATEWAY_CORS_H */
