/*
 * table_check.h
 *	  What others have done to the extension's tables.  See table_check.c.
 */
#ifndef FLOHSYNC_TABLE_CHECK_H
#define FLOHSYNC_TABLE_CHECK_H

typedef struct TableFault
{
	const char *message;
	const char *detail;
	const char *hint;
} TableFault;

extern bool table_fault(Oid role, TableFault *fault);
extern void table_check(Oid role);

#endif /* FLOHSYNC_TABLE_CHECK_H */
