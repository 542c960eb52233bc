/*
 * cached_plan.h
 *	  Statements whose text is made of settings, planned once.  See cached_plan.c.
 */
#ifndef FLOHSYNC_CACHED_PLAN_H
#define FLOHSYNC_CACHED_PLAN_H

#include "tcop/dest.h"

extern void cached_plan_read(Oid function, const text *sql, int nargs, const Oid *types,
							 Datum *values, DestReceiver *dest);

#endif /* FLOHSYNC_CACHED_PLAN_H */
