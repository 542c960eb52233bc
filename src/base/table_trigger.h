/*
 * table_trigger.h
 *	  What triggers of others do to rows that the extension writes.  See table_trigger.c.
 */
#ifndef FLOHSYNC_TABLE_TRIGGER_H
#define FLOHSYNC_TABLE_TRIGGER_H

extern void table_trigger_init(void);

#endif /* FLOHSYNC_TABLE_TRIGGER_H */
