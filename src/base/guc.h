/*
 * guc.h
 *	  The settings flohsync.*.
 */
#ifndef FLOHSYNC_GUC_H
#define FLOHSYNC_GUC_H

extern int	 flohsync_cache_databases;		/* slots in shared memory */
extern int	 flohsync_cache_holdoff;		/* ms */
extern int	 flohsync_cache_lease_time;		/* ms */
extern int	 flohsync_cache_lease_wait;		/* ms */
extern int	 flohsync_cache_max_value_size; /* kB */
extern int	 flohsync_cache_outbox_max;
extern int	 flohsync_cache_ttl;		   /* s */
extern bool	 flohsync_cache_without_lease; /* for one test */
extern char *flohsync_databases;
extern bool	 flohsync_enabled;
extern char *flohsync_encryption_key_file;
extern char *flohsync_encryption_key_file_previous;
extern char *flohsync_http_allowed_networks;
extern int	 flohsync_http_connect_timeout; /* s */
extern int	 flohsync_http_max_attempts;
extern int	 flohsync_http_max_response_size; /* kB */
extern int	 flohsync_http_max_retry_wait;	  /* s */
extern int	 flohsync_http_retry_delay;		  /* ms */
extern int	 flohsync_http_timeout;			  /* s */
extern int	 flohsync_launcher_naptime;		  /* s */
extern bool	 flohsync_log_runs;
extern int	 flohsync_max_workers;
extern bool	 flohsync_page_fingerprints;
extern int	 flohsync_page_memory; /* kB */
extern int	 flohsync_page_size;
extern char *flohsync_redis_ca_file;
extern int	 flohsync_redis_connect_timeout; /* ms */
extern int	 flohsync_redis_timeout;		 /* ms */
extern char *flohsync_redis_password_file;
extern char *flohsync_redis_url;
extern int	 flohsync_retry_delay;	 /* ms */
extern int	 flohsync_run_retention; /* s */
extern char *flohsync_timezone;
extern char *flohsync_worker_role;

extern void guc_init(void);

#endif /* FLOHSYNC_GUC_H */
