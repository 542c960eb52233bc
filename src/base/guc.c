/*
 * guc.c
 *	  Defines the settings flohsync.*, in alphabetical order.
 *
 * What widens the reach of the extension or names a role takes a superuser or
 * the configuration file.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "base/guc_check.h"

char		*flohsync_databases;
static char *flohsync_acting_user; /* read by SQL only */
int			 flohsync_cache_databases = 256;
int			 flohsync_cache_holdoff;
int			 flohsync_cache_lease_time;
int			 flohsync_cache_lease_wait;
int			 flohsync_cache_max_value_size;
int			 flohsync_cache_outbox_max;
int			 flohsync_cache_ttl;
bool		 flohsync_cache_without_lease;
bool		 flohsync_enabled;
char		*flohsync_encryption_key_file;
char		*flohsync_encryption_key_file_previous;
char		*flohsync_http_allowed_networks;
int			 flohsync_http_connect_timeout;
int			 flohsync_http_max_attempts;
int			 flohsync_http_max_response_size;
int			 flohsync_http_max_retry_wait;
int			 flohsync_http_retry_delay;
int			 flohsync_http_timeout;
int			 flohsync_launcher_naptime;
bool		 flohsync_log_runs;
int			 flohsync_max_workers;
bool		 flohsync_page_fingerprints;
int			 flohsync_page_memory;
int			 flohsync_page_size;
char		*flohsync_redis_ca_file;
int			 flohsync_redis_connect_timeout;
int			 flohsync_redis_timeout;
char		*flohsync_redis_password_file;
char		*flohsync_redis_url;
int			 flohsync_retry_delay;
int			 flohsync_run_retention;
char		*flohsync_timezone;
char		*flohsync_worker_role;

/* guc_init defines the settings: a list, however long. */
void
guc_init(void)
{
	guc_check_begin();
	DefineCustomStringVariable(
		"flohsync.acting_user",
		"Sets the id of the application's user on whose behalf the session resolves matches.", NULL,
		&flohsync_acting_user, "", PGC_USERSET, 0, guc_check_acting_user, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.cache_holdoff",
		"Sets the time for which an invalidated key is not stored again, for upstreams whose replicas lag.",
		NULL, &flohsync_cache_holdoff, 0, 0, 3600000, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_lease_time",
							"Sets the maximum duration of a fetch whose value is still stored.",
							NULL, &flohsync_cache_lease_time, 61000, 10, 3600000, PGC_SUSET,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.cache_lease_wait",
		"Sets the time to wait for a value that another session is fetching, before fetching it again.",
		NULL, &flohsync_cache_lease_wait, 1000, 0, 60000, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_max_value_size",
							"Sets the maximum size of a cached value.", NULL,
							&flohsync_cache_max_value_size, 1024, 1, 64 * 1024, PGC_SUSET,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.cache_outbox_max",
		"Maximum number of pending invalidations per connector; beyond it, all values of the connector are invalidated at once.",
		NULL, &flohsync_cache_outbox_max, 100000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_ttl", "Sets the time to live of cached values.", NULL,
							&flohsync_cache_ttl, 300, 1, 10 * 365 * 86400, PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"flohsync.cache_without_lease", "Disables the lease of cached values; for testing only.",
		"The cache then serves stale values.", &flohsync_cache_without_lease, false, PGC_SUSET,
		GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.databases",
		"Sets the databases in which schedules run: * or a comma-separated list.", NULL,
		&flohsync_databases, "*", PGC_SIGHUP, GUC_LIST_INPUT, guc_check_databases, NULL, NULL);
	DefineCustomBoolVariable("flohsync.enabled",
							 "Enables flohsync background workers; can be set per database.", NULL,
							 &flohsync_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.encryption_key_file",
		"Sets the location of the file with the encryption key for secrets: 64 hex digits.",
		"Only the server's user may have access to it.", &flohsync_encryption_key_file, "",
		PGC_SIGHUP, GUC_SUPERUSER_ONLY, guc_check_encryption_key_file, NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.encryption_key_file_previous",
		"Sets the location of the file with the previous encryption key, needed until rotate_secrets() has been called.",
		NULL, &flohsync_encryption_key_file_previous, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		guc_check_encryption_key_file_previous, NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.http_allowed_networks",
		"Sets the private networks that connectors may connect to, as a comma-separated list of CIDR blocks.",
		"Public addresses are always allowed; loopback, private and other special addresses only if listed here.",
		&flohsync_http_allowed_networks, "", PGC_SUSET, GUC_LIST_INPUT | GUC_SUPERUSER_ONLY,
		guc_check_http_allowed_networks, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_connect_timeout",
							"Sets the maximum time to wait for a connection to an upstream.", NULL,
							&flohsync_http_connect_timeout, 5, 1, 3600, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_max_attempts",
							"Maximum number of attempts at a page before its run fails.", NULL,
							&flohsync_http_max_attempts, 5, 1, 100, PGC_SIGHUP, 0, NULL, NULL,
							NULL);
	DefineCustomIntVariable("flohsync.http_max_response_size",
							"Sets the maximum size of an upstream's answer, after decompression.",
							NULL, &flohsync_http_max_response_size, 64 * 1024, 64, 512 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.http_max_retry_wait",
		"Sets the maximum Retry-After that a run waits for; beyond it the run fails and keeps its cursor.",
		NULL, &flohsync_http_max_retry_wait, 300, 0, 86400, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL,
		NULL);
	DefineCustomIntVariable(
		"flohsync.http_retry_delay",
		"Sets the delay before the second attempt at a page; it doubles with each further attempt.",
		NULL, &flohsync_http_retry_delay, 500, 1, 60000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_timeout",
							"Sets the maximum duration of a request to an upstream.", NULL,
							&flohsync_http_timeout, 60, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL,
							NULL);
	DefineCustomIntVariable(
		"flohsync.launcher_naptime",
		"Sets the maximum time between two checks of the list of databases by the launcher.",
		"A database in which nothing is due is checked by a worker after five times that.",
		&flohsync_launcher_naptime, 60, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("flohsync.log_runs", "Logs the end of each run.", NULL,
							 &flohsync_log_runs, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	/* Without shared memory there is no limit; the server takes no such setting later on. */
	if (process_shared_preload_libraries_in_progress)
	{
		DefineCustomIntVariable(
			"flohsync.cache_databases",
			"Maximum number of databases with cache state in shared memory; for testing only.",
			NULL, &flohsync_cache_databases, 256, 1, 65536, PGC_POSTMASTER,
			GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
		DefineCustomIntVariable("flohsync.max_workers",
								"Maximum number of concurrent workers in the cluster.", NULL,
								&flohsync_max_workers, 4, 1, 64, PGC_POSTMASTER, 0, NULL, NULL,
								NULL);
	}
	DefineCustomBoolVariable(
		"flohsync.page_fingerprints",
		"Enables full passes to pass over pages that come as they came in the last one, byte for byte.",
		"The result is the same; disable it to find out.", &flohsync_page_fingerprints, true,
		PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.page_memory",
		"Sets the maximum memory for reading and storing one page of an upstream.",
		"A run with a page that needs more fails.", &flohsync_page_memory, 256 * 1024, 16 * 1024,
		MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.page_size",
							"Sets the number of records requested from an upstream at a time.",
							NULL, &flohsync_page_size, 500, 1, FLOHSYNC_MAX_PAGE_RECORDS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.redis_ca_file",
		"Sets the location of the CA file for connections to Redis; empty means the system's certificates.",
		NULL, &flohsync_redis_ca_file, "", PGC_SUSET, GUC_SUPERUSER_ONLY, guc_check_redis_ca_file,
		NULL, NULL);
	DefineCustomIntVariable("flohsync.redis_connect_timeout",
							"Sets the maximum time to wait for a connection to Redis.", NULL,
							&flohsync_redis_connect_timeout, 100, 1, 60000, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.redis_password_file",
		"Sets the location of the file with the password for Redis, used if flohsync.redis_url"
		" contains none.",
		"Only the server's user may have access to it.", &flohsync_redis_password_file, "",
		PGC_SIGHUP, GUC_SUPERUSER_ONLY, guc_check_redis_password_file, NULL, NULL);
	DefineCustomIntVariable("flohsync.redis_timeout",
							"Sets the maximum time to wait for a reply from Redis.", NULL,
							&flohsync_redis_timeout, 50, 1, 60000, PGC_SUSET, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomStringVariable(
		"flohsync.redis_url",
		"Sets the URL of the Redis server that caches single records; empty disables the cache.",
		"Set it in the configuration file or for a database, not for a session.",
		&flohsync_redis_url, "", PGC_SUSET, GUC_SUPERUSER_ONLY, guc_check_redis_url, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.retry_delay",
		"Sets the delay before a failed scheduled run is retried; it doubles with each of the three retries.",
		"0 disables retries: the next run is the schedule's.", &flohsync_retry_delay, 5000, 0,
		3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"flohsync.run_retention",
		"Sets the retention of finished runs in the history; failed runs are kept three times as long.",
		"0 disables removal.", &flohsync_run_retention, 30 * 86400, 0, INT_MAX, PGC_SIGHUP,
		GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.timezone",
							   "Sets the default time zone of schedules of new configurations.",
							   NULL, &flohsync_timezone, "UTC", PGC_SIGHUP, 0, guc_check_timezone,
							   NULL, NULL);
	DefineCustomStringVariable("flohsync.worker_role",
							   "Sets the role that workers connect as; not a superuser.", NULL,
							   &flohsync_worker_role, "flohsync_worker", PGC_SIGHUP, 0,
							   guc_check_worker_role, NULL, NULL);
	guc_check_end();
	MarkGUCPrefixReserved("flohsync");
}
