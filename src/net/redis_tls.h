/*
 * redis_tls.h
 *	  TLS over a socket that does not block.  See redis_tls.c.
 */
#ifndef FLOHSYNC_REDIS_TLS_H
#define FLOHSYNC_REDIS_TLS_H

typedef struct RedisTls RedisTls;

/* What a call needs before it can go on. */
typedef enum TlsWant
{
	TLS_DONE,
	TLS_READ,
	TLS_WRITE,
	TLS_FAILED
} TlsWant;

extern RedisTls *redis_tls_open(int fd, const char *host, const char *ca_file, char *problem,
								size_t size);
extern TlsWant	 redis_tls_handshake(RedisTls *tls, char *problem, size_t size);
extern TlsWant	 redis_tls_read(RedisTls *tls, char *buffer, size_t size, size_t *got);
extern TlsWant	 redis_tls_peek(RedisTls *tls);
extern TlsWant	 redis_tls_write(RedisTls *tls, const char *data, size_t len, size_t *sent);
extern void		 redis_tls_close(RedisTls *tls);

#endif /* FLOHSYNC_REDIS_TLS_H */
