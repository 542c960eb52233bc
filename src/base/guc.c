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

char	   *flohsync_databases;
static char *flohsync_acting_user;	/* read by SQL only */
int			flohsync_cache_databases = 256;
int			flohsync_cache_holdoff;
int			flohsync_cache_lease_time;
int			flohsync_cache_lease_wait;
int			flohsync_cache_max_value_size;
int			flohsync_cache_outbox_max;
int			flohsync_cache_ttl;
bool		flohsync_cache_without_lease;
bool		flohsync_enabled;
char	   *flohsync_encryption_key_file;
char	   *flohsync_encryption_key_file_previous;
char	   *flohsync_http_allowed_networks;
int			flohsync_http_connect_timeout;
int			flohsync_http_max_attempts;
int			flohsync_http_max_response_size;
int			flohsync_http_max_retry_wait;
int			flohsync_http_retry_delay;
int			flohsync_http_timeout;
int			flohsync_launcher_naptime;
bool		flohsync_log_runs;
int			flohsync_max_workers;
int			flohsync_page_memory;
int			flohsync_page_size;
char	   *flohsync_redis_ca_file;
int			flohsync_redis_connect_timeout;
int			flohsync_redis_timeout;
char	   *flohsync_redis_password_file;
char	   *flohsync_redis_url;
int			flohsync_retry_delay;
int			flohsync_run_retention;
char	   *flohsync_timezone;
char	   *flohsync_worker_role;

/* guc_init defines the settings: a list, however long. */
void
guc_init(void)
{
	guc_check_begin();
	DefineCustomStringVariable("flohsync.acting_user",
							   "Id of the application's user on whose behalf the session resolves matches.",
							   NULL, &flohsync_acting_user, "",
							   PGC_USERSET, 0, guc_check_acting_user, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_holdoff",
							"How long nothing is stored for a key that was invalidated, for upstreams whose replicas lag.",
							NULL, &flohsync_cache_holdoff, 0, 0, 3600000,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_lease_time",
							"How long a fetch may take for its value to be stored.",
							NULL, &flohsync_cache_lease_time, 61000, 10, 3600000,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_lease_wait",
							"How long a reader waits for a value that another one is fetching, before it fetches it itself.",
							NULL, &flohsync_cache_lease_wait, 1000, 0, 60000,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_max_value_size",
							"Largest value that the cache stores.",
							NULL, &flohsync_cache_max_value_size, 1024, 1, 64 * 1024,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_outbox_max",
							"Invalidations of a connector that wait one by one; more become one that stands for all.",
							NULL, &flohsync_cache_outbox_max, 100000, 1, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.cache_ttl",
							"How long a value stays in the cache.",
							NULL, &flohsync_cache_ttl, 300, 1, 10 * 365 * 86400,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("flohsync.cache_without_lease",
							 "Stores values without the lease, for the test that shows what it is good for.",
							 "The cache then serves stale values.", &flohsync_cache_without_lease, false,
							 PGC_SUSET, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.databases",
							   "Databases in which scheduled runs happen: * or a comma-separated list.",
							   NULL, &flohsync_databases, "*",
							   PGC_SIGHUP, GUC_LIST_INPUT, guc_check_databases, NULL, NULL);
	DefineCustomBoolVariable("flohsync.enabled",
							 "Whether workers run anything; can be set for one database.",
							 NULL, &flohsync_enabled, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.encryption_key_file",
							   "File with the key that secrets are encrypted with: 64 hex digits.",
							   "Only the server's user may be able to read it.",
							   &flohsync_encryption_key_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, guc_check_encryption_key_file, NULL, NULL);
	DefineCustomStringVariable("flohsync.encryption_key_file_previous",
							   "File with the key before, until rotate_secrets() has been called.",
							   NULL, &flohsync_encryption_key_file_previous, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, guc_check_encryption_key_file_previous, NULL, NULL);
	DefineCustomStringVariable("flohsync.http_allowed_networks",
							   "Private networks that connectors may reach, as a comma-separated list of CIDR blocks.",
							   "Public addresses can always be reached; loopback, private and other special ones only if listed here.",
							   &flohsync_http_allowed_networks, "",
							   PGC_SUSET, GUC_LIST_INPUT | GUC_SUPERUSER_ONLY, guc_check_http_allowed_networks, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_connect_timeout",
							"Time to wait for a connection to an upstream.",
							NULL, &flohsync_http_connect_timeout, 5, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_max_attempts",
							"How often a page is asked for before its run fails.",
							NULL, &flohsync_http_max_attempts, 5, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_max_response_size",
							"Largest answer of an upstream, counted after decompression.",
							NULL, &flohsync_http_max_response_size, 64 * 1024, 64, 512 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_max_retry_wait",
							"Longest Retry-After that a run waits for; beyond it the run fails and keeps its cursor.",
							NULL, &flohsync_http_max_retry_wait, 300, 0, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_retry_delay",
							"Delay before the second attempt at a page; it doubles with each further one.",
							NULL, &flohsync_http_retry_delay, 500, 1, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.http_timeout",
							"Time that one request to an upstream may take.",
							NULL, &flohsync_http_timeout, 60, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.launcher_naptime",
							"Longest time after which the launcher looks at the list of databases again.",
							"After five times as long a worker looks into a database that has nothing due.", &flohsync_launcher_naptime, 60, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("flohsync.log_runs",
							 "Writes a line to the server log at the end of each run.",
							 NULL, &flohsync_log_runs, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	/* Without shared memory there is no limit; the server takes no such setting later on. */
	if (process_shared_preload_libraries_in_progress)
	{
		DefineCustomIntVariable("flohsync.cache_databases",
								"Databases that share what they know about the cache, for the test that has few.",
								NULL, &flohsync_cache_databases, 256, 1, 65536,
								PGC_POSTMASTER, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
		DefineCustomIntVariable("flohsync.max_workers",
								"Most workers at a time, in the whole cluster.",
								NULL, &flohsync_max_workers, 4, 1, 64,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	}
	DefineCustomIntVariable("flohsync.page_memory",
							"Most memory that reading and storing one page of an upstream may take.",
							"A page that takes more ends its run with an error.",
							&flohsync_page_memory, 256 * 1024, 16 * 1024, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.page_size",
							"Number of records to ask an upstream for at a time.",
							NULL, &flohsync_page_size, 500, 1, FLOHSYNC_MAX_PAGE_RECORDS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.redis_ca_file",
							   "File with the certificates that Redis' own is checked against; empty: those of the system.",
							   NULL, &flohsync_redis_ca_file, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, guc_check_redis_ca_file, NULL, NULL);
	DefineCustomIntVariable("flohsync.redis_connect_timeout",
							"Time to wait for a connection to Redis.",
							NULL, &flohsync_redis_connect_timeout, 100, 1, 60000,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.redis_password_file",
							   "File whose first line is Redis' password, where flohsync.redis_url holds none.",
							   "Only the server's user may be able to read it.",
							   &flohsync_redis_password_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, guc_check_redis_password_file, NULL, NULL);
	DefineCustomIntVariable("flohsync.redis_timeout",
							"Time to wait for an answer of Redis.",
							NULL, &flohsync_redis_timeout, 50, 1, 60000,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.redis_url",
							   "Address of the Redis that caches single records; empty: there is no cache.",
							   "Set it in the configuration file or for a database, not for a session.",
							   &flohsync_redis_url, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, guc_check_redis_url, NULL, NULL);
	DefineCustomIntVariable("flohsync.retry_delay",
							"Delay before a scheduled run that failed is tried again; it doubles with each of the three tries.",
							"0 leaves it to the next tick of the schedule.", &flohsync_retry_delay, 5000, 0, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("flohsync.run_retention",
							"How long finished runs are kept in the history; failures three times as long.",
							"0 keeps them for ever.", &flohsync_run_retention, 30 * 86400, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("flohsync.timezone",
							   "Time zone of schedules of new configurations.",
							   NULL, &flohsync_timezone, "UTC",
							   PGC_SIGHUP, 0, guc_check_timezone, NULL, NULL);
	DefineCustomStringVariable("flohsync.worker_role",
							   "Role as which workers connect; not a superuser.",
							   NULL, &flohsync_worker_role, "flohsync_worker",
							   PGC_SIGHUP, 0, guc_check_worker_role, NULL, NULL);
	guc_check_end();
	MarkGUCPrefixReserved("flohsync");
}
