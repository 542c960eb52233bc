/*
 * hooks_log.c
 *	  Keeps statements that store a secret out of the server log and of
 *	  pg_stat_statements.
 *
 * The text of a statement is logged before our function is called
 * (log_statement), when it is not called at all (an error in the statement)
 * and after it has returned (log_min_duration_statement, auto_explain).  So
 * messages are filtered here: a statement counts as secret when its text names
 * set_secret, when a nested statement does, when it executes a prepared statement
 * of a session with such a text, or when set_secret was called in it.  Of such a
 * statement the log contains neither text nor parameters nor context, and of
 * errors raised in it, whose message may quote it, only the SQLSTATE; the client
 * gets everything.
 *
 * Once a statement has been parsed, pg_stat_activity does not show it any more,
 * and pg_stat_statements, which would store utility statements verbatim, skips
 * it: it has no query id.
 *
 * The hooks are installed when the library is loaded, which is at server start
 * with shared_preload_libraries.  The hook of the log neither allocates nor
 * raises: it truncates texts in place.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"

#include "base/hex.h"
#include "server/hooks_log.h"

static const char secret_function[] = "set_secret";
static const char shown_instead[] = "flohsync.set_secret(...)";

static emit_log_hook_type			prev_emit_log = NULL;
static post_parse_analyze_hook_type prev_post_parse = NULL;
static TimestampTz hidden_statement = 0;	/* start of the one that is secret beyond its text */
static bool		   secret_prepared = false; /* EXECUTE may be a call of set_secret */

/* hooks_hide_statement replaces the current statement in what others see. */
void
hooks_hide_statement(void)
{
	hidden_statement = GetCurrentStatementStartTimestamp();
	debug_query_string = shown_instead;
	pgstat_report_activity(STATE_RUNNING, shown_instead);
}

/*
 * What an escape in a U&"..." stands for, and how long it is; -1: it is none.
 * Which character begins one is said behind the name, so any may.
 */
static int
log_code(const char *p, int *len)
{
	int code = 0;
	int digits = p[0] != '\0' && p[1] == '+' ? 6 : 4;
	int from = digits == 6 ? 2 : 1;

	if (p[0] == '\0' || p[0] == '"')
		return -1;
	for (int i = 0; i < digits; i++)
	{
		int digit = hex_digit(p[from + i]);

		if (digit < 0)
			return -1;
		code = code << 4 | digit;
	}
	*len = from + digits;
	return code;
}

/* Does a name, of which some characters are written as codes, go on like this? */
static bool
log_spells_it(const char *p)
{
	for (const char *c = secret_function; *c; c++)
	{
		int len = 0;

		if (log_code(p, &len) == *c)
			p += len;
		else if (pg_tolower((unsigned char) *p) == *c)
			p++;
		else
			return false;
	}
	return true;
}

/* Does a part of a text name set_secret?  What follows may be looked at as well. */
static bool
log_part_names_it(const char *text, size_t len)
{
	for (const char *p = text; p < text + len; p++)
	{
		if ((*p == 's' || *p == 'S') &&
			pg_strncasecmp(p, secret_function, sizeof(secret_function) - 1) == 0)
			return true;
		if (*p != '"' || p - text < 2 || p[-1] != '&' || (p[-2] != 'U' && p[-2] != 'u'))
			continue;
		for (const char *q = p + 1; *q != '\0' && *q != '"'; q++)
			if (log_spells_it(q))
				return true;
	}
	return false;
}

static bool
log_names_it(const char *text)
{
	return text != NULL && log_part_names_it(text, strlen(text));
}

static bool
log_is_secret(const char *statement)
{
	return log_names_it(statement) ||
		(secret_prepared && statement != NULL && strcasestr(statement, "execute") != NULL);
}

/*
 * Is a statement secret that was understood?  The first one of a text stands for
 * all of it; of the others each is looked at by itself, as there may be many.
 */
static bool
log_query_is_secret(const char *text, const Query *query)
{
	const char *own = text ? text + Max(query->stmt_location, 0) : NULL;

	if (own == text)
		return log_is_secret(text);
	return log_part_names_it(own, query->stmt_len > 0 ? query->stmt_len : strlen(own));
}

/* Is a message of LOG one that quotes the statement? */
static bool
log_quotes_statement(const ErrorData *edata)
{
	static const char *const starts[] = {"statement: ", "duration: ", "execute ", "parse ",
										 "bind "};

	for (size_t i = 0; i < lengthof(starts) && edata->message_id != NULL; i++)
		if (strncmp(edata->message_id, starts[i], strlen(starts[i])) == 0)
			return true;
	return log_names_it(edata->message) ||
		(edata->message_id != NULL && strcmp(edata->message_id, "%s") == 0);
}

/*
 * Leaves of a message what comes before the statement, in any language: a
 * duration with its number, else what is before the first colon.
 */
static void
log_cut(const ErrorData *edata)
{
	char *message = edata->message;
	char *cut = message;

	if (edata->message_id != NULL && strcmp(edata->message_id, "%s") == 0)
	{
		/* Raised by user code, so it may quote the statement. */
	}
	else if (edata->message_id != NULL && strncmp(edata->message_id, "duration: ", 10) == 0)
	{
		cut += strcspn(cut, "0123456789");
		cut += strspn(cut, "0123456789.");
	}
	else
	{
		char *colon = strchr(message, ':');
		char *name = strcasestr(message, secret_function);

		if (colon != NULL && (name == NULL || colon < name))
			cut = colon + 1;
	}
	strlcpy(cut, cut == message ? "..." : " ...", strlen(cut) + 1);
}

/*
 * The message of an error, or of a warning, may quote the statement, but the client is to
 * see it.
 */
static void
log_in_short(ErrorData *edata)
{
	ereport(
		LOG_SERVER_ONLY,
		(errcode(edata->sqlerrcode),
		 edata->elevel == ERROR ?
			 errmsg(
				 "statement with %s failed, SQLSTATE %s; neither the statement nor the message is logged",
				 shown_instead, unpack_sql_state(edata->sqlerrcode)) :
			 errmsg(
				 "statement with %s issued a message, SQLSTATE %s; neither the statement nor the message is logged",
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
	bool		secret = (hidden_statement != 0 &&
					  hidden_statement == GetCurrentStatementStartTimestamp()) ||
		log_is_secret(debug_query_string);

	/*
	 * Another process may tell of it: a deadlock, the postmaster after a crash.  Or what is
	 * run within the statement names it.
	 */
	secret = secret || log_names_it(edata->message) || log_names_it(edata->detail) ||
		log_names_it(edata->detail_log) || log_names_it(edata->internalquery) ||
		log_names_it(edata->context);
	if (secret && !busy)
	{
		busy = true;
		edata->hide_stmt = edata->hide_ctx = true;
		if (edata->elevel > LOG_SERVER_ONLY && edata->elevel <= ERROR)
			log_in_short(edata);
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

static void
log_post_parse(ParseState *pstate, Query *query, JumbleState *jstate)
{
	if (log_query_is_secret(pstate->p_sourcetext, query))
	{
		query->queryId = 0;
		if (query->utilityStmt != NULL && IsA(query->utilityStmt, PrepareStmt))
			secret_prepared = true;
		hooks_hide_statement();
	}
	if (prev_post_parse)
		prev_post_parse(pstate, query, jstate);
}

void
hooks_log_init(void)
{
	prev_post_parse = post_parse_analyze_hook;
	post_parse_analyze_hook = log_post_parse;
	prev_emit_log = emit_log_hook;
	emit_log_hook = log_emit;
}
