/*
 * row_security.h
 *	  Row level security on a table of ours.  See row_security.c.
 */
#ifndef FLOHSYNC_ROW_SECURITY_H
#define FLOHSYNC_ROW_SECURITY_H

extern const char *row_security_table(Oid role);
extern void row_security_check(Oid role);

#endif							/* FLOHSYNC_ROW_SECURITY_H */
