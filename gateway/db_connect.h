/*
 * db_connect.h
 *	  Connections are made in a thread of their own.  See db_connect.c.
 */
#ifndef GATEWAY_DB_CONNECT_H
#define GATEWAY_DB_CONNECT_H

#include <libpq-fe.h>
#include <stdbool.h>

typedef enum ConnectFor
{
	CONNECT_READ,
	CONNECT_WRITE,
	CONNECT_LISTEN
} ConnectFor;

typedef struct ConnectJob
{
	struct ConnectJob *next;
	ConnectFor		   purpose;
	void			  *arg;
	PGconn			  *conn; /* NULL: it failed */
	bool			   refused;
	char			   problem[512];
} ConnectJob;

/* Names of the statements that each connection has. */
#define DB_BEGIN		"begin"
#define DB_COMMIT		"commit"
#define DB_ENTER_READ	"enter_read"
#define DB_ENTER_WRITE	"enter_write"
#define DB_ENTER_PARAMS 5

/* The file descriptor that can be read when a job is done; -1: no thread could be started. */
extern int		   connect_start(void);
extern void		   connect_stop(void);
extern void		   connect_ask(ConnectFor purpose, void *arg);
extern ConnectJob *connect_done(void);
/* Makes a connection at once. */
extern void connect_now(ConnectJob *job);
/* Whether reads and writes go to different hosts. */
extern bool connect_several_hosts(void);

#endif /* GATEWAY_DB_CONNECT_H */
