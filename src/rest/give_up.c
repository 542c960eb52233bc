/*
 * give_up.c
 *	  Pages that fail although the list can continue without them.
 *
 * - the page after the last one, where the definition says how the upstream
 *   answers for it (pagination.end_status), or where a total has been reached and
 *   the page was only requested for confirmation;
 * - a list of for_each: one parent without an accessible list must not prevent
 *   the others from being listed.  Its stored records remain, since the pass
 *   is incomplete.  If that happens to more than a few parents and to the
 *   majority of them, the parents are not the cause, and the run ends.
 */
#include "postgres.h"

#include "rest/rest.h"

#define FAILED_ID_BYTES 120 /* reported part of a parent's id */

/*
 * Is it this list, rather than the server or our credentials, that there is something wrong
 * with?
 */
static bool
give_up_is_of_list(const SourceAnswer *answer)
{
	static const ErrorClass classes[] = {
		ERRCLASS_AUTH,		 ERRCLASS_NOT_FOUND, ERRCLASS_HTTP_STATUS,
		ERRCLASS_BAD_ANSWER, ERRCLASS_UPSTREAM,	 ERRCLASS_TOO_LARGE,
		ERRCLASS_TIMEOUT,	 ERRCLASS_PROTOCOL,	 ERRCLASS_BLOCKED_ADDRESS,
	};

	if (answer->status == 401)
		return false;
	for (size_t i = 0; i < lengthof(classes); i++)
		if (answer->error_class == classes[i])
			return true;
	return false;
}

/* Does a status say nothing of what was asked for? */
static bool
give_up_is_no_answer(int status)
{
	return status >= 500 || status == 407 || status == 408 || status == 423 || status == 425 ||
		status == 451;
}

/*
 * rest_leave_parent leaves the rest of the parent's list out, because of a status or a
 * class; false when too many are.
 */
bool
rest_leave_parent(RestState *state, int status, ErrorClass error_class)
{
	const RestParent *parent = rest_parent(state);
	char			 *id;

	if (parent == NULL)
		return false;
	if (state->at.nfailed >= REST_FAILED_MOST &&
		2 * (int64) (state->at.nfailed + 1) > rest_parent_count(state))
		return false;
	if (state->at.nfailed < REST_FAILED_NAMES)
	{
		MemoryContext old = MemoryContextSwitchTo(state->request_context);

		id = source_told(state->source, parent->external_id, strlen(parent->external_id),
						 FAILED_ID_BYTES);
		state->at.failed[state->at.nfailed] = status >= 300 || (status >= 202 && status <= 206) ?
			psprintf("\"%s\" (status %d)", id, status) :
			psprintf("\"%s\" (%s)", id, error_class_name(error_class));
		MemoryContextSwitchTo(old);
	}
	state->at.nfailed++;
	state->at.only_missing = false;
	return true;
}

/* rest_failed_text names the parents whose lists could not be had; palloc'd. */
char *
rest_failed_text(const RestState *state)
{
	StringInfoData out;
	int			   n = state->at.nfailed;

	initStringInfo(&out);
	appendStringInfo(
		&out, "the %s of %d parent record%s could not be had, and what is stored of %s stays: ",
		n == 1 ? "list" : "lists", n, n == 1 ? "" : "s", n == 1 ? "it" : "them");
	for (int i = 0; i < REST_FAILED_NAMES && state->at.failed[i]; i++)
		appendStringInfo(&out, "%s%s", i ? ", " : "", state->at.failed[i]);
	if (n > REST_FAILED_NAMES)
		appendStringInfo(&out, " and %d more", n - REST_FAILED_NAMES);
	return out.data;
}

bool
rest_give_up(Source *source, const SourceAnswer *answer)
{
	RestState			 *state = source->state;
	const RestPagination *p = &state->def->pages;
	bool				  behind = state->list->behind && state->at.inner &&
		strcmp(state->list->behind, state->at.inner) == 0;

	/* Whatever went wrong before a request was sent goes wrong for all of them. */
	if (state->external_id || state->problem.error_class ||
		answer->error_class == ERRCLASS_THROTTLED)
		return false;
	if (state->at.inner != NULL && answer->status != 0 &&
		rest_status_in(answer->status, p->end_status, p->nend_status))
	{
		state->nothing = state->ended = true;
		return true;
	}
	if (behind &&
		(answer->status == 204 ||
		 (answer->status >= 400 && answer->status != 401 && answer->status != 403)))
	{
		state->nothing = state->ended = true;
		if (give_up_is_no_answer(answer->status))
			state->unsure =
				"the upstream answered the request for the page after the last one with an error, so it is not certain that there is none: see pagination.end_status";
		return true;
	}
	if (state->def->parent_type == NULL || !give_up_is_of_list(answer) ||
		!rest_leave_parent(state, answer->status, answer->error_class))
		return false;
	state->nothing = true;
	return true;
}
