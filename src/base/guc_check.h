/*
 * guc_check.h
 *	  Which values settings take.  See guc_check.c.
 */
#ifndef FLOHSYNC_GUC_CHECK_H
#define FLOHSYNC_GUC_CHECK_H

#include "utils/guc.h"

/* While the settings are defined, values are those that were there before. */
extern void guc_check_begin(void);
extern void guc_check_end(void);

extern bool guc_check_acting_user(char **newval, void **extra, GucSource source);
extern bool guc_check_databases(char **newval, void **extra, GucSource source);
extern bool guc_check_encryption_key_file(char **newval, void **extra, GucSource source);
extern bool guc_check_encryption_key_file_previous(char **newval, void **extra, GucSource source);
extern bool guc_check_http_allowed_networks(char **newval, void **extra, GucSource source);
extern bool guc_check_redis_ca_file(char **newval, void **extra, GucSource source);
extern bool guc_check_redis_password_file(char **newval, void **extra, GucSource source);
extern bool guc_check_redis_url(char **newval, void **extra, GucSource source);
extern bool guc_check_timezone(char **newval, void **extra, GucSource source);
extern bool guc_check_worker_role(char **newval, void **extra, GucSource source);

#endif /* FLOHSYNC_GUC_CHECK_H */
