/*
 * hooks_log.c
 *	  Statements that store a secret stay out of the server log.
 *
 * The text of a statement reaches the log before our function is called
 * (log_statement), when it is not called at all (an error in the statement)
 * and after it has returned (log_min_duration_statement, auto_explain).  So
 * what is about to be logged is looked at here: a statement counts as secret
 * when its text names set_secret, or when set_secret was called in it.  Of
 * such a statement the log gets neither text nor parameters nor context, and
 * of an error in it, whose message may quote it, only the SQLSTATE; the client
 * gets everything.
 *
 * The hook is there from the loading of the library on, which is the start of
 * the server with shared_preload_libraries.  It allocates nothing and raises
 * nothing: it shortens texts where they are.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"

#include "hooks_log.h"

static const char secret_function[] = "set_secret";
static const char shown_instead[] = "flohsync.set_secret(...)";

static emit_log_hook_type prev_emit_log = NULL;
static TimestampTz hidden_statement = 0;	/* start of the statement that called set_secret */

/* hooks_hide_statement is called by set_secret: from now on its statement looks like this to others. */
void
hooks_hide_statement(void)
{
	hidden_statement = GetCurrentStatementStartTimestamp();
	debug_query_string = shown_instead;
	pgstat_report_activity(STATE_RUNNING, shown_instead);
}

static bool
log_names_it(const char *text)
{
	return text != NULL && strcasestr(text, secret_function) != NULL;
}

/* Is a message of LOG one that quotes the statement? */
static bool
log_quotes_statement(const ErrorData *edata)
{
	static const char *const starts[] = {"statement: ", "duration: ", "execute ", "parse ", "bind "};

	for (size_t i = 0; i < lengthof(starts) && edata->message_id != NULL; i++)
		if (strncmp(edata->message_id, starts[i], strlen(starts[i])) == 0)
			return true;
	return log_names_it(edata->message);
}

/*
 * Leaves of a message what comes before the statement, in any language: a
 * duration with its number, else what is before the first colon.
 */
static void
log_cut(const ErrorData *edata)
{
	char	   *message = edata->message;
	char	   *cut = message;

	if (edata->message_id != NULL && strncmp(edata->message_id, "duration: ", 10) == 0)
	{
		cut += strcspn(cut, "0123456789");
		cut += strspn(cut, "0123456789.");
	}
	else
	{
		char	   *colon = strchr(message, ':');
		char	   *name = strcasestr(message, secret_function);

		if (colon != NULL && (name == NULL || colon < name))
			cut = colon + 1;
	}
	strlcpy(cut, cut == message ? "..." : " ...", strlen(cut) + 1);
}

/* An error's message may quote the statement, but the client is to see it. */
static void
log_error_in_short(ErrorData *edata)
{
	ereport(LOG_SERVER_ONLY,
			(errcode(edata->sqlerrcode),
			 errmsg("statement with %s failed, SQLSTATE %s; neither it nor the message is logged",
					shown_instead, unpack_sql_state(edata->sqlerrcode)),
			 errhidestmt(true), errhidecontext(true)));
	edata->output_to_server = false;
	/* It would stay there as the session's last one. */
	pgstat_report_activity(STATE_RUNNING, shown_instead);
}

static void
log_emit(ErrorData *edata)
{
	static bool busy = false;
	bool		secret = (hidden_statement != 0 && hidden_statement == GetCurrentStatementStartTimestamp()) ||
		log_names_it(debug_query_string);

	/* Another process may tell of it: a deadlock, the postmaster after a crash. */
	secret = secret || log_names_it(edata->message) || log_names_it(edata->detail) || log_names_it(edata->detail_log);
	if (secret && !busy)
	{
		busy = true;
		edata->hide_stmt = edata->hide_ctx = true;
		if (edata->elevel == ERROR)
			log_error_in_short(edata);
		else if (edata->elevel <= LOG_SERVER_ONLY)
		{
			/* For the log only, or for a client that asked for as much. */
			edata->detail = edata->detail_log = edata->internalquery = NULL;
			if (edata->message != NULL && log_quotes_statement(edata))
				log_cut(edata);
		}
		busy = false;
	}
	if (prev_emit_log)
		prev_emit_log(edata);
}

void
hooks_log_init(void)
{
	prev_emit_log = emit_log_hook;
	emit_log_hook = log_emit;
}
