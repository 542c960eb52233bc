/*
 * guc.h
 *	  The settings flohsync.*.
 */
#ifndef FLOHSYNC_GUC_H
#define FLOHSYNC_GUC_H

extern char *flohsync_databases;
extern bool flohsync_enabled;
extern char *flohsync_encryption_key_file;
extern char *flohsync_encryption_key_file_previous;
extern char *flohsync_http_allowed_networks;
extern int	flohsync_http_connect_timeout;	/* s */
extern int	flohsync_http_max_attempts;
extern int	flohsync_http_max_response_size;	/* kB */
extern int	flohsync_http_max_retry_wait;	/* s */
extern int	flohsync_http_retry_delay;	/* ms */
extern int	flohsync_http_timeout;	/* s */
extern int	flohsync_launcher_naptime;	/* s */
extern bool flohsync_log_runs;
extern int	flohsync_max_workers;
extern int	flohsync_page_size;
extern int	flohsync_retry_delay;
extern int	flohsync_retry_delay;	/* ms */
extern int	flohsync_run_retention; /* s */
extern char *flohsync_timezone;
extern char *flohsync_worker_role;

extern void guc_init(void);

#endif							/* FLOHSYNC_GUC_H */
