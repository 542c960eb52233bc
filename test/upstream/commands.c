/*
 * commands.c
 *	  Answers the commands of a client: listings and single records.
 */
#include "call.h"
#include "faults.h"
#include "journal.h"
#include "page.h"
#include "request.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_SIZE 500 /* when the client asks for none */

char	*commands_token = NULL;
unsigned commands_missing = MHD_HTTP_NOT_FOUND;

static void
write_page(buf *b, const page *p, void *closure)
{
	page_render(b, p, closure != NULL && mangles(closure) ? mangle_record : NULL, closure);
}

static void
put_scim(buf *b, const page *p, size_t position, const patch *change)
{
	render_scim_command(b, p->type, p->numbers[position], change);
}

/* How a path's records look: those of /scim have a SCIM resource as their attributes. */
static page_record *
shape_of(call *c)
{
	return strcmp(c->url, "/scim") == 0 ? put_scim : page_put_plain;
}

/* Put the answer's figures into the journal and send it. */
enum MHD_Result
command_finish(call *c, const struck *s, size_t records)
{
	static buf names;
	unsigned   status;
	size_t	   bytes;

	names.n = 0;
	faults_names(s, &names);
	buf_char(&names, '\0');
	status = c->answer.status;
	bytes = c->answer.shared ? c->answer.shared->bytes.n : c->answer.body.n;
	if (s->n > 0)
		spoil_body(s, &c->answer);
	if (validator_apply(c))
	{
		status = c->answer.status;
		records = bytes = 0;
	}
	journal_outcome(status, records, bytes, names.p);
	return s->n > 0 ? wire_send(s, c) : answer_send(c);
}

static enum MHD_Result
list(call *c, const data_type *type, request *q)
{
	page   p = {0};
	struck s = {0};
	size_t records = 0;

	if (q->page_size <= 0)
		q->page_size = PAGE_SIZE;
	p.type = type;
	p.at.page = 1;
	p.at.epoch = cursor_epoch;
	if (q->has_cursor && !cursor_parse(q->cursor, q->page_size, &p.at))
	{
		journal_request(c, q->command, type->name, 0);
		answer_error(&c->answer, MHD_HTTP_BAD_REQUEST, "invalidCursor");
		return command_finish(c, &s, 0);
	}
	journal_request(c, q->command, type->name, p.at.page);
	faults_match(&s, type->name, p.at.page, false);
	c->answer.status = MHD_HTTP_OK;
	if (s.n > 0 && spoil_answer(&s, c, q))
		return command_finish(c, &s, 0);
	if (p.at.epoch < cursor_oldest)
	{
		answer_error(&c->answer, (unsigned) cursor_expired_status, "expiredCursor");
		return command_finish(c, &s, 0);
	}
	if (s.n > 0)
		shape_request(&s, q);
	p.size = q->page_size;
	p.put_record = shape_of(c);
	p.by_position = page_by_position;
	p.incremental = q->has_since;
	p.since = q->since;
	if (s.n == 0)
		records = cache_page(&p, 0, write_page, NULL, &c->answer);
	else
	{
		page_select(&p);
		shape_page(&s, &p, q);
		write_page(&c->answer.body, &p, &s);
		records = p.count;
	}
	page_free(&p);
	return command_finish(c, &s, records);
}

static enum MHD_Result
single(call *c, const data_type *type, request *q)
{
	struck s = {0};
	size_t number = data_lookup(type, q->external_id);
	page   p = {.type = type, .numbers = &number, .count = 1, .put_record = shape_of(c)};

	journal_request(c, q->command, type->name, 0);
	faults_match(&s, type->name, 0, true);
	c->answer.status = MHD_HTTP_OK;
	if (s.n > 0 && spoil_answer(&s, c, q))
		return command_finish(c, &s, 0);
	if (number == 0 || type->records[number - 1].deleted)
	{
		answer_error(&c->answer, commands_missing, "not found");
		return command_finish(c, &s, 0);
	}
	buf_lit(&c->answer.body, "{\"success\":true,\"payload\":{\"resource\":");
	if (mangles(&s))
		mangle_record(&c->answer.body, &p, 0, &s);
	else
		p.put_record(&c->answer.body, &p, 0, NULL);
	buf_lit(&c->answer.body, "}}");
	return command_finish(c, &s, 1);
}

bool
command_token_is_right(call *c)
{
	const char *given = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND,
													"Authorization");

	return commands_token == NULL ||
		(given != NULL && strncmp(given, "Bearer ", 7) == 0 &&
		 strcmp(given + 7, commands_token) == 0);
}

/* A command: a POST to any path but the control paths. */
enum MHD_Result
command_run(call *c)
{
	request			 q;
	struck			 none = {0};
	char			 type[64];
	bool			 one;
	const data_type *t;
	const char		*wrong = NULL;
	unsigned		 status = MHD_HTTP_BAD_REQUEST;

	if (strcmp(c->method, "POST") != 0)
	{
		wrong = "only POST";
		status = MHD_HTTP_METHOD_NOT_ALLOWED;
		memset(&q, 0, sizeof(q));
	}
	else if (!request_parse(c->body.p ? c->body.p : "", c->body.n, &q))
		wrong = "the request is no JSON object";
	else if (!command_token_is_right(c))
	{
		wrong = "unauthorized";
		status = MHD_HTTP_UNAUTHORIZED;
	}
	else if (q.bad_since)
		wrong = "modifiedSince is no time";
	else if (request_type(&q, type, sizeof(type), &one) == NULL || (t = data_find(type)) == NULL)
		wrong = "unknown command";
	if (wrong != NULL)
	{
		journal_request(c, q.command, "", 0);
		answer_error(&c->answer, status, wrong);
		return command_finish(c, &none, 0);
	}
	return one ? single(c, t, &q) : list(c, t, &q);
}
