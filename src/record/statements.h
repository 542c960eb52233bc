/*
 * statements.h
 *	  The statements by which records of a page are written.  See statements.c.
 */
#ifndef FLOHSYNC_RECORD_STATEMENTS_H
#define FLOHSYNC_RECORD_STATEMENTS_H

#include "record/apply.h"
#include "record/lookup.h"

/* record/statements.c */
extern uint64 apply_insert(const ApplyScope *scope, const Record *records, const int *which, int n);
extern void	  apply_recheck_tombstones(const ApplyScope *scope, const Record *records,
									   ExistingRow *prior, const int *which, int n, bool *written);
extern uint64 apply_lock(Datum connector, Datum resource_type, Datum id);
extern uint64 apply_update(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
						   const int *which, int n);
extern uint64 apply_touch(const ApplyScope *scope, const ExistingRow *prior, const int *which,
						  int n);
extern uint64 apply_rehash(const ApplyScope *scope, const Record *records, const ExistingRow *prior,
						   const int *which, int n);
extern void	  apply_returned(const Record *records, int n, uint64 rows, ExistingRow *prior,
							 bool *written);

#endif /* FLOHSYNC_RECORD_STATEMENTS_H */
