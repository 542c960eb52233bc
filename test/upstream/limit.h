/*
 * limit.h
 *	  Rate limits.  See limit.c.
 */
#ifndef UPSTREAM_LIMIT_H
#define UPSTREAM_LIMIT_H

#include "settings.h"

extern void limit_refuse(answer *a, const char *name, long long seconds);
extern bool limit_strikes(answer *a);
extern void limit_set(call *c); /* NULL: no limit */

#endif
