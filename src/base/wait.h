/*
 * wait.h
 *	  Waiting for sockets, the latch and time.  See wait.c.
 */
#ifndef FLOHSYNC_WAIT_H
#define FLOHSYNC_WAIT_H

/* For 32 requests at once, each of which may try two addresses and ask for a name. */
#define WAIT_MAX_SOCKETS 104

typedef struct WaitSocket
{
	pgsocket fd;
	bool	 read; /* wanted */
	bool	 write;
	bool	 can_read; /* found */
	bool	 can_write;
} WaitSocket;

typedef enum WaitReason
{
	WAIT_HTTP,
	WAIT_RETRY,
	WAIT_RUN,
	WAIT_LAUNCHER,
	WAIT_REDIS,
	WAIT_IDLE
} WaitReason;

typedef struct WaitChannel WaitChannel;

extern int			wait_sockets(WaitSocket *sockets, int n, long timeout_ms, WaitReason reason);
extern WaitChannel *wait_channel_open(pgsocket fd);
extern void			wait_channel_close(WaitChannel *line);
extern bool			wait_channel(WaitChannel *line, bool write, long timeout_ms, WaitReason reason);
extern void			wait_ms(long timeout_ms, WaitReason reason);
extern void			wait_latch(long timeout_ms, WaitReason reason);

#endif /* FLOHSYNC_WAIT_H */
