/*
 * ledger.h
 *	  What a page has seen, as bytes.  See ledger.c.
 */
#ifndef FLOHSYNC_LEDGER_H
#define FLOHSYNC_LEDGER_H

#include "fmgr.h"

extern bytea *ledger_encode(int64 *nums, int n);
extern bool	  ledger_union_has(const bytea *ranges, int64 num);
extern Datum  flohsync_ledger_encode(PG_FUNCTION_ARGS);

#endif /* FLOHSYNC_LEDGER_H */
