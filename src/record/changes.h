/*
 * changes.h
 *	  What post-sync is told of, and who keeps a connector.  See record/changes.c.
 */
#ifndef FLOHSYNC_RECORD_CHANGES_H
#define FLOHSYNC_RECORD_CHANGES_H

#include "utils/uuid.h"

extern void changes_note(Datum connector, Datum resource_type, const pg_uuid_t *ids, int n, const char *change);
extern void changes_hold_connector(Datum connector);

#endif							/* FLOHSYNC_RECORD_CHANGES_H */
