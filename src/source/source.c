/*
 * source.c
 *	  Where pages come from: the common part of all kinds of connectors.
 *
 * A page is requested (source_ask, which may send a request and return), then
 * its answer is awaited (source_answer), and then converted to a page
 * (source_read).  A single record is requested with source_get and read with
 * source_read_one.  Close a source also after an error.
 *
 * Only this file makes pages of answers, and messages about what went wrong with
 * one (test/layers checks it): a message never contains a secret of the connector,
 * nor anything that messages must not contain, whatever the answer was for.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "base/clean.h"
#include "base/flohsync.h"
#include "json/json.h"
#include "net/crypto.h"
#include "source/source.h"

#define SHOW_CHARS	200			/* of a body */

Source *
source_open(const SourceSpec *spec)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "flohsync source",
												  ALLOCSET_DEFAULT_SIZES);
	Source	   *source = MemoryContextAllocZero(context, sizeof(Source));

	source->context = context;
	source->spec = *spec;
	source->memory = spec->memory;
	if (source->memory == NULL)
	{
		source->memory = MemoryContextAlloc(context, sizeof(PageMemory));
		memory_begin(source->memory, context);
	}
	source->kind = strcmp(spec->kind, source_kind_sql.name) == 0 ? &source_kind_sql :
		strcmp(spec->kind, source_kind_rest.name) == 0 ? &source_kind_rest : &source_kind_command;
	source->kind->open(source);
	return source;
}

void
source_ask(Source *source, const char *cursor)
{
	source->kind->ask(source, cursor);
}

void
source_answer(Source *source, SourceAnswer *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->retry_after_ms = -1;
	source->kind->answer(source, answer);
}

/*
 * Messages about answers
 */

/* source_say is a message that may quote an upstream, sanitized. */
void
source_say(const Source *source, char *out, size_t size, const char *format, va_list args)
{
	StringInfoData text;
	char	   *told;

	initStringInfo(&text);
	for (;;)
	{
		va_list		again;
		int			more;

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

/* source_fail says what is wrong with an answer.  It is not worth another attempt unless the caller says so. */
void
source_fail(const Source *source, SourceAnswer *answer, const char *error_class, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	source_say(source, answer->message, sizeof(answer->message), format, args);
	va_end(args);
	answer->error_class = error_class;
	answer->retryable = false;
}

/* The beginning of a body. */
static char *
show_body(const Source *source, const char *body, size_t len)
{
	char	   *text = source_told(source, body, len, CLEAN_MAX);

	text[pg_mbcharcliplen(text, strlen(text), SHOW_CHARS)] = '\0';
	return text;
}

/* source_show adds to the message of an answer that cannot be used what it looks like. */
void
source_show(const Source *source, SourceAnswer *answer)
{
	char	   *body = show_body(source, answer->body, answer->len);
	char	   *type = source_told(source, answer->content_type, strlen(answer->content_type), sizeof(answer->content_type));
	char	   *message = pstrdup(answer->message);

	if (!answer->by_http)
		source_fail(source, answer, answer->error_class, "%s; the answer %s%s", message,
					body[0] ? "begins with: " : "is empty", body);
	else
		source_fail(source, answer, answer->error_class, "%s; the answer %s%s%s%s", message,
					type[0] ? "is " : "has no content type", type, body[0] ? " and begins with: " : " and is empty", body);
	pfree(body);
	pfree(type);
	pfree(message);
}

/*
 * source_take takes over what came by HTTP; false, with the answer's class set,
 * when nothing came that could be looked at.
 */
bool
source_take(const Source *source, SourceAnswer *answer, const HttpResponse *response, const char *who)
{
	answer->by_http = true;
	answer->body = response->body;
	answer->len = response->len;
	answer->started_at = response->started_at;
	answer->ms = response->ms;
	answer->date = response->date;
	strlcpy(answer->content_type, response->content_type, sizeof(answer->content_type));
	answer->status = response->failure == HTTP_OK ? response->status : 0;
	if (response->failure == HTTP_OK)
		return true;
	source_fail(source, answer, http_failure_class(response->failure), "%s: %s", who, response->message);
	answer->retryable = http_failure_passes(response->failure);
	return false;
}

/* source_fail_status is for an answer whose status says that it is none. */
void
source_fail_status(const Source *source, SourceAnswer *answer, const char *who, const char *error_class)
{
	char	   *body = show_body(source, answer->body, answer->len);
	bool		json = strcasestr(answer->content_type, "json") != NULL;
	bool		typed = answer->content_type[0] != '\0' && body[0] != '\0' && !json;

	source_fail(source, answer, error_class, "%s answered with status %d%s%s%s%s%s", who, answer->status,
				typed ? " (" : "", typed ? answer->content_type : "", typed ? ")" : "", body[0] ? ": " : "", body);
	pfree(body);
}

/*
 * source_status_is_complete: is an answer with this status all that was asked for?
 * False, too, for one that is an error; then its class stays unset.  A status of
 * success that says otherwise sets it: 202 has nothing yet, 204 and 205 have
 * nothing, 206 has a part.
 */
bool
source_status_is_complete(const Source *source, SourceAnswer *answer)
{
	switch (answer->status)
	{
		case 202:
			source_fail(source, answer, "http_status", "upstream answered with status 202: the result is not ready");
			answer->retryable = true;
			return false;
		case 204:
		case 205:
			source_fail(source, answer, "bad_answer", "upstream answered with status %d: there is no content", answer->status);
			return false;
		case 206:
			source_fail(source, answer, "bad_answer", "upstream answered with status 206: the content is partial");
			return false;
	}
	return answer->status >= 200 && answer->status <= 299;
}

/* source_read_commands reads an answer of the command protocol; otherwise as source_read. */
bool
source_read_commands(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	const char *problem = NULL;

	if (!page_parse(parser, answer->body, answer->len, page, &problem))
	{
		source_fail(source, answer, page->too_large ? "too_large" : "protocol", "upstream's answer cannot be read: %s", problem);
		if (page->too_large)
			return false;
		source_show(source, answer);
		/* A cut or garbled answer; maybe the next one is whole. */
		answer->retryable = true;
		return false;
	}
	if (page->success)
		return true;
	source_fail(source, answer, "upstream", "upstream reported an error: %s", page->upstream_error);
	if (page->unexplained)
		source_show(source, answer);
	answer->cursor_refused = true;
	return false;
}

/* source_read makes a page of an answer that came; false with the answer's class set when it is none. */
bool
source_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	return source->kind->read ? source->kind->read(source, parser, answer, page) :
		source_read_commands(source, parser, answer, page);
}

/*
 * source_give_up: no further attempt is made at a page.  True when the list goes
 * on all the same: the answer is then an empty page, which source_read tells the
 * consequences of.
 */
bool
source_give_up(Source *source, SourceAnswer *answer)
{
	if (source->kind->give_up == NULL || !source->kind->give_up(source, answer))
		return false;
	answer->error_class = NULL;
	answer->message[0] = '\0';
	answer->retryable = false;
	answer->body = "[]";
	answer->len = 2;
	return true;
}

/*
 * source_get asks for one record and waits for it.  On success the body is an
 * answer of the command protocol whose payload.resources has the record, or
 * none when the upstream says that there is no such record.  One attempt: who
 * asks for a single record does not want to wait for a second one.
 */
void
source_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->retry_after_ms = -1;
	if (source->kind->get)
	{
		source->kind->get(source, external_id, answer);
		return;
	}
	source_fail(source, answer, "configuration", "connectors of this kind cannot be asked for one record");
	answer->not_supported = true;
}

/*
 * source_read_one makes a page of what source_get answered: of one record, of
 * none, or of one that was set aside.  False with the answer's class set when it
 * is none.
 */
bool
source_read_one(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	return source_read_commands(source, parser, answer, page);
}

/* source_close also wipes the secrets that the caller's spec has. */
void
source_close(Source *source)
{
	if (source == NULL)
		return;
	source->kind->close(source);
	for (int i = 0; i < source->nhidden; i++)
		crypto_wipe(source->hidden[i], strlen(source->hidden[i]));
	source_wipe_secrets(source->spec.secrets, source->spec.nsecrets);
	MemoryContextDelete(source->context);
}

/* source_parser is a page parser that lives, and is counted, with the source. */
PageParser *
source_parser(const Source *source)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	PageParser *parser = page_parser_create(NULL, 0, source->memory);

	MemoryContextSwitchTo(old);
	return parser;
}

static void
source_member(StringInfo out, const char *key, const char *text)
{
	if (text == NULL)
		return;
	appendStringInfo(out, ",\"%s\":", key);
	escape_json(out, text);
}

/* source_request is the request of a page: absent keys are left out. */
char *
source_request(const SourceSpec *spec, const char *cursor)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"command\":");
	escape_json(&out, spec->list_command);
	source_member(&out, "cursor", cursor);
	appendStringInfo(&out, ",\"pageSize\":%d", spec->page_size);
	if (spec->filter)
		appendStringInfo(&out, ",\"filter\":%s", spec->filter);
	source_member(&out, "modifiedSince", spec->modified_since);
	appendStringInfoChar(&out, '}');
	return out.data;
}

/* source_get_request is the request for one record. */
char *
source_get_request(const SourceSpec *spec, const char *external_id)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"command\":");
	escape_json(&out, spec->get_command);
	source_member(&out, "externalId", external_id);
	appendStringInfoChar(&out, '}');
	return out.data;
}

static JsonParser *
source_parse(PageMemory *memory, const char *body, size_t len)
{
	JsonParser *json = json_parser_create();

	json->memory = memory;
	return json_parse(json, body, len, FLOHSYNC_MAX_NESTING + 3) ? json : NULL;
}

/*
 * source_cursor_refused notes whether an answer may be about the cursor: it has a
 * status that says that the request makes no sense, or names the cursor as its
 * cause, in the words of RFC 9865.
 */
void
source_cursor_refused(SourceAnswer *answer, int status, const char *body, size_t len)
{
	static const int statuses[] = {400, 404, 405, 406, 409, 410, 412, 414, 416, 422};
	static const char *const words[] = {"expiredCursor", "invalidCursor"};

	answer->cursor_refused = answer->cursor_expired = false;
	for (size_t i = 0; i < lengthof(statuses); i++)
		answer->cursor_refused |= status == statuses[i];
	for (size_t i = 0; i < lengthof(words) && answer->cursor_refused; i++)
		answer->cursor_expired |= memmem(body, Min(len, 4096), words[i], strlen(words[i])) != NULL;
}

/*
 * source_none_found: is this the answer of somebody who knows the protocol and
 * not the record, rather than of a web server that does not know the address?
 */
bool
source_none_found(const Source *source, const char *body, size_t len)
{
	JsonParser *json = len <= FLOHSYNC_MAX_ERROR_BODY ? source_parse(source->memory, body, len) : NULL;
	uint32		success;

	if (json == NULL || json->nodes[JSON_ROOT].type != JSON_OBJECT)
		return false;
	success = json_member(json, JSON_ROOT, "success", 7);
	return success != 0 && json->nodes[success].type == JSON_FALSE;
}

/*
 * source_one_record turns the answer to a request for one record into a page:
 * the record is payload.resource, or stands alone in payload.resources.
 */
void
source_one_record(Source *source, SourceAnswer *answer)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	JsonParser *json = source_parse(source->memory, answer->body, answer->len);
	uint32		payload;
	uint32		record = 0;
	StringInfoData out;

	if (json != NULL && json->nodes[JSON_ROOT].type == JSON_OBJECT)
	{
		payload = json_member(json, JSON_ROOT, "payload", 7);
		if (payload != 0 && json->nodes[payload].type == JSON_OBJECT)
			record = json_member(json, payload, "resource", 8);
	}
	/* Anything else is passed on; reading it reports what is wrong. */
	if (record != 0)
	{
		const JsonNode *node = &json->nodes[record];

		memory_take(source->memory, (Size) (node->end - node->start) * 2);
		initStringInfo(&out);
		appendStringInfoString(&out, "{\"success\":true,\"payload\":{\"resources\":[");
		if (node->type != JSON_NULL)
			appendBinaryStringInfo(&out, answer->body + node->start, node->end - node->start);
		appendStringInfoString(&out, "]}}");
		answer->body = out.data;
		answer->len = out.len;
	}
	if (json != NULL)
		json_parser_trim(json, 0);
	MemoryContextSwitchTo(old);
}
