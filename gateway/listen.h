/*
 * listen.h
 *	  The address that the server listens on.  See listen.c.
 */
#ifndef GATEWAY_LISTEN_H
#define GATEWAY_LISTEN_H

/* A socket that listens at setting listen; -1, with the reason in the log, when there is none. */
extern int	listen_open(void);
extern void listen_close(int fd);
/* Where that is, with the port that the system has chosen if it was to. */
extern const char *listen_address(int fd);

#endif /* GATEWAY_LISTEN_H */
