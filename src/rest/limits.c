/*
 * limits.c
 *	  What a definition says of statuses and limits: which answers are none because
 *	  of the upstream's limit, which are worth another attempt, and how long to wait
 *	  before the next request.  What holds for any upstream is in
 *	  source/upstream_answer.c.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/guc.h"
#include "rest/rest.h"

bool
rest_status_in(int status, const int *list, int n)
{
	for (int i = 0; i < n; i++)
		if (list[i] == status)
			return true;
	return false;
}

/* The number in a header; -1 when there is none. */
static int64
limits_number(RestState *state, const char *name)
{
	char  *text = name ? http_header(rest_client(state), name, 0) : NULL;
	char  *end;
	double value;

	if (text == NULL || text[0] < '0' || text[0] > '9')
		return -1;
	value = strtod(text, &end);
	return value < 1e12 ? (int64) value : -1;
}

/* Milliseconds until the upstream's limit is reset, by its own clock; -1: it does not say. */
static int64
limits_reset_ms(RestState *state, const HttpResponse *response)
{
	int64  reset = limits_number(state, state->def->reset_header);
	time_t now = response->date > 0 ? response->date : time(NULL);

	if (reset < 0)
		return -1;
	if (state->def->reset_seconds)
		return reset * 1000;
	/* The second is not over yet. */
	return Max(0, (reset - (int64) now) * 1000);
}

/* rest_note_limit: an answer before its turn may say that no request is left for a while. */
void
rest_note_limit(RestState *state)
{
	HttpResponse response = {.date = http_early_date(rest_client(state))};
	int64		 ms = limits_number(state, state->def->remaining_header) == 0 ?
			   limits_reset_ms(state, &response) :
			   -1;

	if (ms > 0)
		state->source->not_before = Max(state->source->not_before,
										TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms));
}

static bool
limits_body_says(RestState *state, const HttpResponse *response)
{
	JsonParser *json = rest_parser(state);

	if (state->def->throttle_body == NULL || response->len > FLOHSYNC_MAX_ERROR_BODY ||
		!json_parse(json, response->body, response->len, FLOHSYNC_MAX_NESTING) ||
		(json->nodes[JSON_ROOT].flags & JSON_F_BAD))
		return false;
	return rest_says_yes(state, state->def->throttle_body, json, JSON_ROOT, state->scratch[0]);
}

/*
 * rest_classify: what an answer's status and headers mean; error_class stays NULL for one
 * with a page.
 */
void
rest_classify(RestState *state, const HttpResponse *response, SourceAnswer *answer)
{
	const RestDefinition *d = state->def;
	int					  status = response->status;
	bool				  used_up;
	bool				  throttled;
	int64				  reset_ms;

	state->status = response->failure == HTTP_OK ? status : 0;
	if (!source_take(state->source, answer, response, SOURCE_UPSTREAM))
		return;
	used_up = limits_number(state, d->remaining_header) == 0;
	reset_ms = limits_reset_ms(state, response);
	if (used_up && reset_ms > 0)
		state->source->not_before = Max(state->source->not_before,
										TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
																	reset_ms));
	/* Of a list, a part is better than nothing; then it is not complete (rest/page.c). */
	if (status == 206 && state->external_id == NULL)
		return;
	/* No content is that of an empty list, where a list may be missing. */
	if ((status == 204 || (status == 200 && response->len == 0)) && state->external_id == NULL &&
		d->missing_is_empty)
	{
		state->nothing = state->ended = true;
		return;
	}
	if (source_status_is_complete(state->source, answer, response) || answer->error_class)
		return;
	throttled = status == 429 ||
		(rest_status_in(status, d->throttle_status, d->nthrottle_status) &&
		 (response->retry_after[0] != '\0' || used_up || limits_body_says(state, response)));
	source_fail_status(state->source, answer, response, SOURCE_UPSTREAM, NULL);
	answer->retryable = throttled || rest_status_in(status, d->retry_status, d->nretry_status);
	if (throttled)
		answer->error_class = ERRCLASS_THROTTLED;
	if (throttled && answer->retry_after_ms < 0)
		answer->retry_after_ms = reset_ms;
}
