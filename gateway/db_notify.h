/*
 * db_notify.h
 *	  What the database notifies of; for db.c.  See db_notify.c.
 */
#ifndef GATEWAY_DB_NOTIFY_H
#define GATEWAY_DB_NOTIFY_H

#include "db.h"

extern void notify_start(DbNotified notified, DbListening listening);
/* The connection that was asked for; NULL: it could not be made. */
extern void notify_connected(PGconn *conn);
/* Asks for a connection where there is none; to be called often. */
extern void notify_look_after(void);
extern void notify_stop(void);

#endif /* GATEWAY_DB_NOTIFY_H */
