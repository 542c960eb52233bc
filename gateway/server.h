/*
 * server.h
 *	  The HTTP server: connections of clients, their limits, and the framing of
 *	  requests.  See server.c.
 */
#ifndef GATEWAY_SERVER_H
#define GATEWAY_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "request.h"

typedef enum ConnState
{
	CONN_HEAD, /* waits for a request, or reads its head */
	CONN_BODY,
	CONN_WORK,
	CONN_SEND,
	CONN_STREAM /* of events */
} ConnState;

/* A connection of a client. */
struct Conn
{
	Conn	 *next;
	Conn	 *prev;
	int		  fd;
	ConnState state;
	int64_t	  deadline; /* milliseconds of loop_now; 0: none */
	bool	  cut;
	bool	  local;
	char	  address[64];
	Request	 *request; /* whose line was read */
};

typedef struct ServerNumbers
{
	int		connections;
	int64_t accepted;
	int64_t cut;	/* for slowness or for lack of room */
	int		active; /* requests */
} ServerNumbers;

extern bool		   server_start(void);
extern const char *server_address(void);
/* Lets the library do what it has to; to be called in each turn. Returns how long it may wait. */
extern int64_t server_turn(void);
/* Takes no more connections. */
extern void			 server_quiesce(void);
extern void			 server_stop(void);
extern ServerNumbers server_numbers(void);
extern void			 conn_state(Conn *conn, ConnState state, int64_t milliseconds);
extern bool			 server_stopping(void);

#endif /* GATEWAY_SERVER_H */
