/*
 * guc_redis.h
 *	  What flohsync.redis_url says.  See guc_redis.c.
 */
#ifndef FLOHSYNC_GUC_REDIS_H
#define FLOHSYNC_GUC_REDIS_H

#define REDIS_ADDRESS_TEXT 256

/* Plain memory: nothing to free, and explicit_bzero takes the password away. */
typedef struct RedisAddress
{
	bool tls;
	bool local; /* host is the path of a socket */
	char host[REDIS_ADDRESS_TEXT];
	int	 port;
	int	 database;
	char user[REDIS_ADDRESS_TEXT]; /* empty: none */
	char password[2 * REDIS_ADDRESS_TEXT];
	bool has_password;
} RedisAddress;

extern const char *guc_parse_redis_url(const char *url, RedisAddress *address);

#endif /* FLOHSYNC_GUC_REDIS_H */
