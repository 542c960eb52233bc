/*
 * answer.c
 *	  Building an answer, and handing it to libmicrohttpd.
 */
#include "call.h"
#include "data.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void
answer_json(answer *a, unsigned status, const char *format, ...)
{
	va_list args;
	char	text[2048];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	a->status = status;
	a->body.n = 0;
	buf_str(&a->body, text);
}

void
answer_error(answer *a, unsigned status, const char *message)
{
	a->status = status;
	a->body.n = 0;
	buf_lit(&a->body, "{\"success\":false,\"error\":");
	buf_json_str(&a->body, message);
	buf_char(&a->body, '}');
}

void
answer_header(answer *a, const char *name, const char *value)
{
	if (a->headers == MAX_HEADERS)
		return;
	a->name[a->headers] = must_strdup(name);
	a->value[a->headers++] = must_strdup(value);
}

void
shared_release(void *shared)
{
	shared_bytes *s = shared;

	if (--s->refs > 0)
		return;
	buf_free(&s->bytes);
	free(s);
}

/* answer_no_body takes the body away again. */
void
answer_no_body(answer *a)
{
	a->body.n = 0;
	if (a->shared == NULL)
		return;
	shared_release(a->shared);
	a->shared = NULL;
}

void
answer_free(answer *a)
{
	buf_free(&a->body);
	if (a->shared != NULL)
		shared_release(a->shared);
	free(a->content_type);
	free(a->date);
	for (int i = 0; i < a->headers; i++)
	{
		free(a->name[i]);
		free(a->value[i]);
	}
	memset(a, 0, sizeof(*a));
}

/* The Date header's value: the server's clock, unless a fault says otherwise. */
static const char *
date_value(const answer *a)
{
	static char	  text[64];
	static time_t last = 0;
	time_t		  now;
	struct tm	  tm;

	if (a->date != NULL)
		return a->date;
	now = (time_t) (clock_now() / 1000000);
	if (now != last)
	{
		gmtime_r(&now, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		last = now;
	}
	return text;
}

/* Status line and headers as bytes, without those that frame the body. */
void
answer_head(buf *b, const answer *a)
{
	const char *date = date_value(a);

	buf_printf(b, "HTTP/1.1 %u %s\r\n", a->status, MHD_get_reason_phrase_for(a->status));
	if (*date)
		buf_printf(b, "Date: %s\r\n", date);
	if (a->content_type == NULL || *a->content_type)
		buf_printf(b, "Content-Type: %s\r\n",
				   a->content_type ? a->content_type : "application/json");
	for (int i = 0; i < a->headers; i++)
		buf_printf(b, "%s: %s\r\n", a->name[i], a->value[i]);
}

/* Queue the answer; it is empty afterwards. */
enum MHD_Result
answer_send(call *c)
{
	answer				*a = &c->answer;
	struct MHD_Response *r;
	enum MHD_Result		 result;
	const char			*date = date_value(a);

	if (a->shared != NULL)
	{
		r = MHD_create_response_from_buffer_with_free_callback_cls(a->shared->bytes.n,
																   a->shared->bytes.p,
																   shared_release, a->shared);
		a->shared = NULL;
	}
	else
	{
		r = MHD_create_response_from_buffer(a->body.n, a->body.p, MHD_RESPMEM_MUST_FREE);
		memset(&a->body, 0, sizeof(a->body));
	}
	if (r == NULL)
		return MHD_NO;
	if (*date)
		MHD_add_response_header(r, "Date", date);
	if (a->content_type == NULL || *a->content_type)
		MHD_add_response_header(r, "Content-Type",
								a->content_type ? a->content_type : "application/json");
	for (int i = 0; i < a->headers; i++)
		MHD_add_response_header(r, a->name[i], a->value[i]);
	result = MHD_queue_response(c->connection, a->status, r);
	MHD_destroy_response(r);
	return result;
}

/* A parameter of the URL, or NULL. */
const char *
call_arg(call *c, const char *name)
{
	return MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name);
}

long long
call_arg_int(call *c, const char *name, long long otherwise)
{
	const char *s = call_arg(c, name);

	return s != NULL && *s != '\0' ? strtoll(s, NULL, 10) : otherwise;
}
