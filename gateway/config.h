/*
 * config.h
 *	  The settings of flohsync-http.  See config.c.
 */
#ifndef GATEWAY_CONFIG_H
#define GATEWAY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CONFIG_ERROR_SIZE 512

typedef struct Words
{
	char **word;
	int	   n;
} Words;

typedef struct Config
{
	/* These hold until the program ends. */
	char *db;
	char *listen;
	int	  pool_size;
	int	  queue_limit;
	bool  standby_reads;
	int	  connections;
	int	  connections_per_address;
	int	  body_limit;
	/* These are read again on SIGHUP. */
	char *jwt_keys;
	char *jwt_issuer;
	Words jwt_audience;
	char *jwt_role_claim;
	char *jwt_user_claim;
	Words roles;
	Words cors_origins;
	Words trusted_proxies;
	char *metrics;
	char *public_url;
	char *log_format;
	char *log_level;
	int	  statement_timeout;
	int	  wait_timeout;
	int	  header_timeout;
	int	  body_timeout;
	int	  send_timeout;
	int	  idle_timeout;
	int	  stop_timeout;
	int	  failures_per_second;
	int	  webhooks_per_second;
	int	  webhooks_per_second_address;
	int	  event_clients;
} Config;

/*
 * config_read reads a file (NULL: none) and the environment over it, and says
 * in error what is wrong with them.
 */
extern Config *config_read(const char *path, char error[CONFIG_ERROR_SIZE]);
extern void	   config_free(Config *c);
/* What a reload cannot change is kept from the former; returns a list of these, or NULL. */
extern char *config_keep(Config *c, const Config *former);

/* All settings, as rows of a table in Markdown. */
extern void config_print(FILE *out);

/* The settings in force. */
extern Config *config;

#endif /* GATEWAY_CONFIG_H */
