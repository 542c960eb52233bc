/*
 * ledger.h
 *	  What a page has seen, as bytes.  See ledger.c.
 */
#ifndef FLOHSYNC_LEDGER_H
#define FLOHSYNC_LEDGER_H

extern bytea *ledger_encode(int64 *nums, int n);

#endif /* FLOHSYNC_LEDGER_H */
