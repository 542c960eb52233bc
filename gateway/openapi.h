/*
 * openapi.h
 *	  GET /openapi.json.  See openapi.c.
 */
#ifndef GATEWAY_OPENAPI_H
#define GATEWAY_OPENAPI_H

#include <stdbool.h>
#include <stdio.h>

struct Request;

/* Makes the document anew, after the settings have been read. */
extern void openapi_make(void);
extern void openapi_run(struct Request *r);
extern void openapi_print(FILE *out);

#endif /* GATEWAY_OPENAPI_H */
