/*
 * insert.h
 *	  New records of a page, inserted without a statement.  See insert.c.
 */
#ifndef FLOHSYNC_RECORD_INSERT_H
#define FLOHSYNC_RECORD_INSERT_H

#include "record/apply.h"
#include "record/lookup.h"

extern bool insert_records(const ApplyScope *scope, const Record *records, const int *which, int n,
						   ExistingRow *prior, bool *written);

#endif /* FLOHSYNC_RECORD_INSERT_H */
