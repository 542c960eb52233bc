/*
 * faults.h
 *	  Records that were set aside.  See record/faults.c.
 */
#ifndef FLOHSYNC_RECORD_FAULTS_H
#define FLOHSYNC_RECORD_FAULTS_H

#include "page/page.h"

#define RECORD_FAULT_BYTES 4096 /* stored part of such a record */

extern void record_faults_of_page(int64 run, int page, const RecordFault *faults, int n);
extern void record_faults_of_upsert(Datum connector, Datum type, const RecordFault *faults, int n);

#endif /* FLOHSYNC_RECORD_FAULTS_H */
