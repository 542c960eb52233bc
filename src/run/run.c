/*
 * run.c
 *	  One run, from claim to end.
 *
 *	  start --> walk (pass.c) --> settle --> post-sync --> purge --> end
 *	              |                 |           |
 *	              +--> failed       +--> held <-+
 *
 * settle, post-sync, each batch of purge and each page of the walk are one
 * transaction each, so that the tables always show the progress of the run.  A
 * "running" run without a process is therefore simply started again, and resumes
 * after its last page.
 *
 * The caller holds the lock of the run.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/db_lock.h"
#include "base/db_value.h"
#include "base/guc.h"
#include "run/run.h"
#include "run/state.h"
#include "shared/shmem.h"

#define RUN_PURGE_BATCH		5000
#define RUN_FINISH_ATTEMPTS 100
/* So few records cannot have outgrown what is known of the tables. */
#define RUN_ANALYZE_RECORDS 10000

/* Microseconds since an instant. */
int64
run_microseconds(instr_time *since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *since);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* run_fail ends a run with an error, or as cancelled. */
void
run_fail(Run *run, ErrorClass error_class, const char *format, ...)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	char		  message[CLEAN_MAX];
	va_list		  args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	clean_into(message, sizeof(message), message, strlen(message));
	run->status = error_class == ERRCLASS_CANCELLED ? "cancelled" : "error";
	run->error_class = error_class;
	run->error = pstrdup(message);
	run->reason = pstrdup(message);
	run->complete = false;
	MemoryContextSwitchTo(old);
}

/* run_incomplete says why a pass does not count as complete; the first reason stays. */
void
run_incomplete(Run *run, const char *format, ...)
{
	char	message[512];
	va_list args;

	if (!run->complete)
		return;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	clean_into(message, sizeof(message), message, strlen(message));
	run->complete = false;
	run->reason = MemoryContextStrdup(run->context, message);
}

/*
 * run_unread: likewise, when something requested was not received, or was discarded: it has
 * to be requested again.
 */
void
run_unread(Run *run, const char *reason)
{
	run->unread = true;
	run_incomplete(run, "%s", reason);
}

/*
 * run_begin starts a transaction of a run that has begun.  Foreign code
 * in this process, a connector's query or what is behind the seam, may have
 * released its locks; then another worker may execute the run by now.
 */
void
run_begin(Run *run, const char *activity)
{
	db_begin(activity);
	if (run->setup.connector_id == NULL)
		return;
	if (!db_keep_run(run->setup.connector_id, run->setup.resource_type))
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("flohsync run " INT64_FORMAT " was taken over by another worker", run->id),
				 errhint(
					 "Functions that a connector runs must not call pg_advisory_unlock_all().")));
	db_lock_wait(DB_LOCK_CONNECTOR, db_lock_key(run->setup.connector_id), true);
}

static void
run_error_context(void *arg)
{
	Run *run = arg;

	if (run->setup.connector_name == NULL)
		errcontext("flohsync run " INT64_FORMAT, run->id);
	else
		errcontext("flohsync run " INT64_FORMAT
				   " of connector \"%s\", resource type \"%s\", page %d",
				   run->id, clean(run->setup.connector_name), run->setup.resource_type, run->page);
}

typedef struct StartWork
{
	Run			*run;
	StartOutcome outcome;
} StartWork;

static void
run_start_work(void *arg)
{
	StartWork *work = arg;
	Run		  *run = work->run;

	memset(&run->setup, 0, sizeof(run->setup));
	db_begin("starting a run");
	work->outcome = store_start_run(run->id, run->left, &run->setup, run->context);
	if (work->outcome == START_RUN)
	{
		MemoryContext old = MemoryContextSwitchTo(run->context);
		uint64		 *hashes = NULL;
		int			  n = 0;

		filter_prepare(&run->setup.filter);
		if (run->setup.resumed)
			n = pages_seen_cursors(run->setup.pass_id, &hashes, run->context);
		pass_know_cursors(run, hashes, n);
		MemoryContextSwitchTo(old);
		prints_begin(run);
	}
	db_commit();
}

/* The rule of hashes as a text[]. */
static Datum
run_hash_ignore(const RunSetup *setup)
{
	Slice *paths = palloc(sizeof(Slice) * Max(setup->nhash_ignore, 1));

	for (int i = 0; i < setup->nhash_ignore; i++)
		paths[i] = (Slice){setup->hash_ignore[i], strlen(setup->hash_ignore[i])};
	return db_text_array(paths, setup->nhash_ignore);
}

/* run_start: false when there is nothing to do. */
static bool
run_start(Run *run)
{
	StartWork work = {.run = run};

	db_retry(run_start_work, &work);
	if (work.outcome != START_RUN)
	{
		if (work.outcome == START_REFUSED)
			shmem_run_finished();
		return false;
	}

	run->setup.spec.page_size = flohsync_page_size;
	run->setup.spec.one_at_a_time = run->setup.filter.max_records > 0;
	run->scope.connector = DirectFunctionCall1(uuid_in, CStringGetDatum(run->setup.connector_id));
	run->scope.resource_type = CStringGetTextDatum(run->setup.resource_type);
	run->scope.rehash = run->setup.rehash;
	if (run->setup.rehash)
		run->scope.hash_ignore = run_hash_ignore(&run->setup);
	memory_begin(&run->memory, TopMemoryContext);
	run->setup.spec.memory = run->scope.memory = &run->memory;
	run->parser = page_parser_create((const char *const *) run->setup.hash_ignore,
									 run->setup.nhash_ignore, &run->memory);
	run->source = source_open(&run->setup.spec);
	run->page = run->setup.last_page + 1;
	run->first_answer = true;
	run->complete = true;
	run->some_read = run->setup.resumed;
	run->unread = run->setup.unread;
	if (run->setup.incomplete)
		run_incomplete(run, "%s", run->setup.incomplete);
	return true;
}

typedef struct SettleWork
{
	Run			*run;
	SettleResult result;
} SettleWork;

static void
run_settle_work(void *arg)
{
	SettleWork *work = arg;
	Run		   *run = work->run;
	RunGuard	guard;
	char	   *overlap;

	run_begin(run, "settling a pass");
	guard = guard_run(&run->setup);
	if (guard == RUN_CONFIG_GONE)
		run_fail(run, ERRCLASS_CONFIGURATION, "the configuration was deleted during the run");
	else if (guard == RUN_CANCELLED)
		run_fail(run, ERRCLASS_CANCELLED, "run was cancelled");
	else
	{
		if (guard == RUN_FILTER_CHANGED)
			run_unread(run, "the filter rules were changed during the run");
		overlap = run->unread ? NULL : pages_overlap(run->id, run->context);
		if (overlap)
			run_unread(run, overlap);
		store_settle_pass(run->id, run->complete, &work->result, run->context);
	}
	db_commit();
}

typedef struct AsBeforeWork
{
	Run *run;
	bool settled;
} AsBeforeWork;

static void
run_settle_as_before_work(void *arg)
{
	AsBeforeWork *work = arg;

	run_begin(work->run, "settling a pass");
	work->settled = guard_run(&work->run->setup) == RUN_GO_ON &&
		store_settle_as_before(work->run->id);
	db_commit();
}

/* Has nothing changed, so that there is nothing to do?  That is all that most passes come to. */
static bool
run_settle_as_before(Run *run)
{
	AsBeforeWork work = {run, false};

	if (run->complete && !run->some_read && prints_were_taken(run))
		db_retry(run_settle_as_before_work, &work);
	return work.settled;
}

static void
run_analyze_work(void *arg)
{
	run_begin(arg, "analyzing tables");
	store_analyze_grown();
	db_commit();
}

static void
run_hold(Run *run, char *message)
{
	run->status = "held";
	run->error_class = ERRCLASS_SAFEGUARD;
	run->error = message;
}

static void
run_post_sync_work(void *arg)
{
	SettleWork *work = arg;

	run_begin(work->run, "post-sync processing");
	store_post_sync(work->run->id, strcmp(work->run->status, "held") == 0, &work->result,
					work->run->context);
	db_commit();
}

/*
 * run_post_sync does what follows a pass.  The run does not fail for it: what
 * went wrong is recorded, and done again after the next pass.
 */
static void
run_post_sync(Run *run)
{
	SettleWork work = {.run = run};
	instr_time t;

	INSTR_TIME_SET_CURRENT(t);
	PG_TRY();
	{
		db_retry(run_post_sync_work, &work);
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(run->context);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		db_abort();
		ereport(LOG,
				(errmsg("post-sync processing failed: %s", clean(edata->message)),
				 edata->context ? errdetail_internal("%s", clean(edata->context)) : 0));
		run_begin(run, "recording a failure");
		store_post_sync_failed(run->id, edata->sqlerrcode, edata->message);
		db_commit();
		work.result.held = false;
	}
	PG_END_TRY();
	if (work.result.held)
		run_hold(run, work.result.message);
	run->timings.post_sync_us += run_microseconds(&t);
}

typedef struct PurgeWork
{
	Run	 *run;
	int64 n;
} PurgeWork;

static void
run_purge_work(void *arg)
{
	PurgeWork *work = arg;

	run_begin(work->run, "purging stale records");
	/*
	 * What a deferred key of others forbids must be met there, where single records are left
	 * out, not at the commit.
	 */
	db_constraints_immediate();
	work->n = store_purge_run(work->run->id, RUN_PURGE_BATCH);
	db_commit();
}

/*
 * run_settle ends a pass that came through: what it did not see goes stale, and old stale
 * records go.
 */
static void
run_settle(Run *run)
{
	SettleWork work = {.run = run};
	instr_time t;

	INSTR_TIME_SET_CURRENT(t);
	MemoryContextSwitchTo(run->context);
	run_report_stage("settling");
	if (run_settle_as_before(run))
	{
		run->status = "success";
		run->timings.settle_us += run_microseconds(&t);
		return;
	}
	db_retry(run_settle_work, &work);
	if (run->status != NULL)
		return;
	run->status = "success";
	if (work.result.held)
		run_hold(run, work.result.message);
	/* A transaction of its own: nobody who vacuums has to wait for post-sync. */
	if ((int64) run->page * run->setup.spec.page_size >= RUN_ANALYZE_RECORDS)
		db_retry(run_analyze_work, run);
	run_post_sync(run);
	if (strcmp(run->status, "success") == 0 && run->complete)
	{
		PurgeWork purge = {.run = run};

		run_report_stage("purging");
		do
			db_retry(run_purge_work, &purge);
		while (purge.n >= RUN_PURGE_BATCH / 2); /* some of it may not be deletable */
	}
	run->timings.settle_us += run_microseconds(&t);
}

typedef struct FinishWork
{
	Run	 *run;
	char *summary;
} FinishWork;

static void
run_finish_work(void *arg)
{
	FinishWork *work = arg;
	Run		   *run = work->run;
	TimestampTz watermark = 0;

	/*
	 * The next incremental pass asks for what has changed since.  A pass may be
	 * incomplete, because of a record that cannot be told from others, say, and
	 * still have got all that was asked for.  Changes made upstream while its
	 * clock is behind ours must not fall before the watermark.
	 */
	if (run->setup.pass_started_at != 0 && !run->unread)
		watermark = run->setup.pass_started_at -
			(run->skew_s > 2 ? run->skew_s * USECS_PER_SEC : 0);
	MemoryContextSwitchTo(run->context);
	run_begin(run, "finishing a run");
	store_finish_run(run->id, run->status, run->complete, run->reason, run->error, run->error_class,
					 watermark, run->retry_after_ms);
	/* The configuration is locked by now, and the run after it. */
	store_set_timings(run->id, &run->timings);
	work->summary = store_run_summary(run->id, run->context);
	db_commit();
}

/*
 * A cancel request now is too late: the end of the run is written anyway.  False when it has
 * to be tried again.
 */
static bool
run_finish_once(FinishWork *work, int attempt)
{
	volatile bool done = true;

	PG_TRY();
	{
		db_retry(run_finish_work, work);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_QUERY_CANCELED || attempt >= RUN_FINISH_ATTEMPTS)
			PG_RE_THROW();
		MemoryContextSwitchTo(work->run->context);
		FlushErrorState();
		db_abort();
		done = false;
	}
	PG_END_TRY();
	return done;
}

static void
run_finish(Run *run)
{
	FinishWork	work = {.run = run};
	const char *summary;

	for (int attempt = 1; !run_finish_once(&work, attempt); attempt++)
		;
	/* Ids may be in it. */
	summary = work.summary ? clean_json(work.summary, strlen(work.summary), CLEAN_MAX) : NULL;
	shmem_run_finished();
	if (flohsync_log_runs && run->setup.connector_name)
	{
		if (run->error)
			ereport(LOG,
					(errmsg("sync of %s/%s: run " INT64_FORMAT " %s: %s",
							clean(run->setup.connector_name), run->setup.resource_type, run->id,
							run->status, clean(run->error)),
					 summary ? errdetail_internal("%s", summary) : 0, errhidecontext(true)));
		else
			ereport(LOG,
					(errmsg("sync of %s/%s: run " INT64_FORMAT " %s",
							clean(run->setup.connector_name), run->setup.resource_type, run->id,
							run->status),
					 summary ? errdetail_internal("%s", summary) : 0, errhidecontext(true)));
	}
}

/* The run that this process does; 0: none. */
static int64 current_run = 0;

/*
 * run_report_stage shows others at once what the run is at (view sync_progress),
 * where it is not the fetching of pages; does nothing outside of a run.
 */
void
run_report_stage(const char *stage)
{
	char doing[NAMEDATALEN];

	if (current_run == 0)
		return;
	if (strcmp(stage, "fetching") == 0)
		snprintf(doing, sizeof(doing), "flohsync run " INT64_FORMAT, current_run);
	else
		snprintf(doing, sizeof(doing), "flohsync run " INT64_FORMAT ": %s", current_run, stage);
	pgstat_report_appname(doing);
}

/*
 * run_execute does a run.  Raises only when not even the end of the run could
 * be written; the run is then found and resumed later.
 */
void
run_execute(int64 id)
{
	MemoryContext		 caller = CurrentMemoryContext;
	MemoryContext		 context = AllocSetContextCreate(TopMemoryContext, "flohsync run",
														 ALLOCSET_DEFAULT_SIZES);
	Run					*run = MemoryContextAllocZero(context, sizeof(Run));
	ErrorContextCallback callback;
	volatile bool		 started = false;

	run->id = id;
	run->left = shmem_note_run(id);
	run->context = context;
	run->page_context = AllocSetContextCreate(context, "flohsync page", ALLOCSET_DEFAULT_SIZES);
	callback.callback = run_error_context;
	callback.arg = run;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		started = run_start(run);
		if (started)
		{
			current_run = id;
			run_report_stage("fetching");
			pass_walk(run);
			if (run->status == NULL)
				run_settle(run);
		}
	}
	PG_CATCH();
	{
		current_run = 0;
		run_handle_error(run);
		started = true;
	}
	PG_END_TRY();
	current_run = 0;
	error_context_stack = callback.previous;

	source_close(run->source);
	run->source = NULL;
	if (started)
		run_finish(run);
	(void) shmem_note_run(0);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}
