/*
 * flohsync.c
 *	  Loading of the library.
 *
 * Under shared_preload_libraries there is shared memory and a launcher; loaded
 * any other way, the functions work, and runs that are asked for by hand are
 * done, but nothing happens by itself.  A server started for pg_upgrade gets
 * neither: it must be left alone.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/flohsync.h"
#include "base/guc.h"
#include "base/run_as.h"
#include "base/table_trigger.h"
#include "entry/profile.h"
#include "record/outbox.h"
#include "server/hooks.h"
#include "server/hooks_log.h"
#include "server/launcher.h"
#include "server/worker.h"
#include "shared/shmem.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	guc_init();
	hooks_log_init();
	run_as_guard_init();
	table_trigger_init();
	profile_new_init();
	outbox_wake = worker_wake_cache;
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	shmem_init();
	hooks_init();
	launcher_register();
}
