/*
 * upstream_answer.c
 *	  What an answer means, and what is told of one that cannot be used.
 *
 * Here, and nowhere else (test/layers checks it), it is decided
 *
 *	- which class a failure or a status has, and whether another attempt is of use;
 *	- how long to wait before it: a Retry-After that is a date is a time of the
 *	  upstream's clock, not of ours;
 *	- how much of an answer is shown: its content type and its first characters;
 *	- what a message may hold: no secret of the connector, nor anything else that
 *	  a message must not hold, whoever asked for the answer.
 *
 * A kind may know more: rest/limits.c has the statuses that a definition gives a
 * meaning of its own.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "base/clean.h"
#include "source/source.h"

#define SHOW_CHARS 200 /* of a body */

/* By "this cannot be had at the moment": the same request may fare better a little later. */
const int source_passing_statuses[SOURCE_PASSING_STATUSES] = {408, 425, 429, 500, 502, 503, 504};

/* How messages name who answers: of a request that failed, and of an answer. */
static const char *const answerers[][2] = {
	[SOURCE_UPSTREAM] = {"upstream", "upstream"},
	[SOURCE_TOKEN_ENDPOINT] = {"token endpoint", "the token endpoint"},
};

/*
 * Messages
 */

/* source_say is a message that may quote an upstream, made fit to be told. */
void
source_say(const Source *source, char *out, size_t size, const char *format, va_list args)
{
	StringInfoData text;
	char		  *told;

	initStringInfo(&text);
	for (;;)
	{
		va_list again;
		int		more;

		va_copy(again, args);
		more = appendStringInfoVA(&text, format, again);
		va_end(again);
		if (more == 0)
			break;
		enlargeStringInfo(&text, more);
	}
	told = source_told(source, text.data, text.len, size - 1);
	strlcpy(out, told, size);
	pfree(told);
	pfree(text.data);
}

/*
 * source_vfail says what is wrong with an answer.  Its class tells whether
 * another attempt helps, unless the caller knows.
 */
void
source_vfail(const Source *source, SourceAnswer *answer, ErrorClass error_class, const char *format,
			 va_list args)
{
	source_say(source, answer->message, sizeof(answer->message), format, args);
	answer->error_class = error_class;
	answer->retryable = error_class_retries(error_class);
}

void
source_fail(const Source *source, SourceAnswer *answer, ErrorClass error_class, const char *format,
			...)
{
	va_list args;

	va_start(args, format);
	source_vfail(source, answer, error_class, format, args);
	va_end(args);
}

/* The beginning of a body. */
static char *
answer_excerpt(const Source *source, const SourceAnswer *answer)
{
	char *text = source_told(source, answer->body, answer->len, CLEAN_MAX);

	text[pg_mbcharcliplen(text, strlen(text), SHOW_CHARS)] = '\0';
	return text;
}

/* source_show adds to the message of an answer that cannot be used what it looks like. */
void
source_show(const Source *source, SourceAnswer *answer)
{
	char *body = answer_excerpt(source, answer);
	char *type = source_told(source, answer->content_type, strlen(answer->content_type),
							 sizeof(answer->content_type));
	char *message = pstrdup(answer->message);

	if (!answer->by_http)
		source_fail(source, answer, answer->error_class, "%s; the answer %s%s", message,
					body[0] ? "begins with: " : "is empty", body);
	else
		source_fail(source, answer, answer->error_class, "%s; the answer %s%s%s%s", message,
					type[0] ? "is " : "has no content type", type,
					body[0] ? " and begins with: " : " and is empty", body);
	pfree(body);
	pfree(type);
	pfree(message);
}

/*
 * Answers by HTTP
 */

/* How long an answer asks to wait; -1: it does not say. */
static int64
answer_retry_after_ms(const HttpResponse *response)
{
	return http_retry_after_ms(response->retry_after,
							   response->date > 0 ? response->date : time(NULL));
}

/*
 * source_take takes over what came by HTTP; false, with the answer's class set,
 * when nothing came that could be looked at.
 */
bool
source_take(const Source *source, SourceAnswer *answer, const HttpResponse *response,
			SourceAnswerer who)
{
	/* A token endpoint that is not where it was said to be. */
	bool misled = who == SOURCE_TOKEN_ENDPOINT &&
		(response->failure == HTTP_REDIRECT || response->failure == HTTP_BAD_URL);

	answer->by_http = true;
	answer->body = response->body;
	answer->len = response->len;
	answer->started_at = response->started_at;
	answer->ms = response->ms;
	answer->date = response->date;
	answer->retry_after_ms = -1;
	strlcpy(answer->content_type, response->content_type, sizeof(answer->content_type));
	answer->status = response->failure == HTTP_OK ? response->status : 0;
	source_take_validators(source, answer, response);
	if (response->failure == HTTP_OK)
		return true;
	source_fail(source, answer, misled ? ERRCLASS_AUTH : http_failure_class(response->failure),
				"%s: %s", answerers[who][0], response->message);
	return false;
}

/*
 * source_status_is_complete: is an answer with this status all that was asked for?
 * False, too, for one that is an error; then its class stays unset.  A status of
 * success that says otherwise sets it: 202 has nothing yet, 204 and 205 have
 * nothing, 206 has a part.
 */
bool
source_status_is_complete(const Source *source, SourceAnswer *answer, const HttpResponse *response)
{
	if (answer->not_modified)
		return true;
	switch (answer->status)
	{
		case 202:
			source_fail(source, answer, ERRCLASS_HTTP_STATUS,
						"upstream answered with status 202: the result is not ready");
			answer->retryable = true;
			break;
		case 204:
		case 205:
			source_fail(source, answer, ERRCLASS_BAD_ANSWER,
						"upstream answered with status %d: there is no content", answer->status);
			break;
		case 206:
			source_fail(source, answer, ERRCLASS_BAD_ANSWER,
						"upstream answered with status 206: the content is partial");
			break;
		default:
			return answer->status >= 200 && answer->status <= 299;
	}
	answer->retry_after_ms = answer_retry_after_ms(response);
	return false;
}

/* The class of a status that is an error, and whether the same request may fare better later. */
static ErrorClass
answer_class(int status, SourceAnswerer who, bool *passes)
{
	*passes = false;
	for (int i = 0; i < SOURCE_PASSING_STATUSES; i++)
		*passes |= source_passing_statuses[i] == status;
	/* It has one purpose: by whatever else it says, it does not like what it was asked with. */
	if (who == SOURCE_TOKEN_ENDPOINT)
	{
		*passes |= status >= 500;
		return status == 429 ? ERRCLASS_THROTTLED : *passes ? ERRCLASS_HTTP_STATUS : ERRCLASS_AUTH;
	}
	switch (status)
	{
		case 401:
		case 403:
			return ERRCLASS_AUTH;
		case 404:
		case 410:
			return ERRCLASS_NOT_FOUND;
		case 429:
			return ERRCLASS_THROTTLED;
	}
	return ERRCLASS_HTTP_STATUS;
}

/*
 * Notes whether an answer may be about the cursor: it has a status that says that
 * the request makes no sense, or names the cursor as its cause, in the words of
 * RFC 9865.
 */
static void
answer_cursor_refused(SourceAnswer *answer)
{
	static const int		 statuses[] = {400, 404, 405, 406, 409, 410, 412, 414, 416, 422};
	static const char *const words[] = {"expiredCursor", "invalidCursor"};

	answer->cursor_refused = answer->cursor_expired = false;
	for (size_t i = 0; i < lengthof(statuses); i++)
		answer->cursor_refused |= answer->status == statuses[i];
	for (size_t i = 0; i < lengthof(words) && answer->cursor_refused; i++)
		answer->cursor_expired |= memmem(answer->body, Min(answer->len, 4096), words[i],
										 strlen(words[i])) != NULL;
}

/*
 * source_fail_status is for an answer whose status says that it is none.  The
 * reason is what it says of that itself; NULL: the beginning of the body is shown.
 */
void
source_fail_status(const Source *source, SourceAnswer *answer, const HttpResponse *response,
				   SourceAnswerer who, const char *reason)
{
	char *body = reason ? pstrdup(reason) : answer_excerpt(source, answer);
	bool  json = strcasestr(answer->content_type, "json") != NULL;
	bool  typed = !reason && answer->content_type[0] != '\0' && body[0] != '\0' && !json;
	bool  passes;

	source_fail(source, answer, answer_class(answer->status, who, &passes),
				"%s answered with status %d%s%s%s%s%s", answerers[who][1], answer->status,
				typed ? " (" : "", typed ? answer->content_type : "", typed ? ")" : "",
				body[0] ? ": " : "", body);
	answer->retryable = passes;
	answer->retry_after_ms = answer_retry_after_ms(response);
	answer_cursor_refused(answer);
	pfree(body);
}
