/*
 * rights.h
 *	  Calls of inner halves.  See rights.c.
 */
#ifndef FLOHSYNC_ENTRY_RIGHTS_H
#define FLOHSYNC_ENTRY_RIGHTS_H

#include "fmgr.h"

#include "base/run_as.h"

extern Datum rights_call_inner_half(FunctionCallInfo fcinfo, RunAsInner how);

#endif /* FLOHSYNC_ENTRY_RIGHTS_H */
