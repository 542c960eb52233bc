/*
 * answer.c
 *	  What a request is answered with.
 *
 * No answer holds a statement of SQL, where in the source an error arose, or what is
 * wrong inside the database: of errors that are not the client's (status 500 and up)
 * only the code is told.  The log has the rest.
 */
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/http_status.h"
#include "json_text.h"
#include "log.h"

void
answer_free(Answer *a)
{
	buf_free(&a->body);
	for (int i = 0; i < a->nheaders; i++)
		free(a->value[i]);
	*a = (Answer){0};
}

void
answer_header(Answer *a, const char *name, const char *value)
{
	if (a->nheaders == ANSWER_HEADERS)
		return;
	a->name[a->nheaders] = name;
	a->value[a->nheaders++] = must_copy(value);
}

void
answer_error(Answer *a, unsigned status, const char *code, const char *message, const char *details,
			 const char *hint)
{
	a->status = status;
	a->type = NULL;
	a->body.n = 0;
	snprintf(a->code, sizeof(a->code), "%s", code);
	buf_text(&a->body, "{\"code\":");
	buf_json_text(&a->body, code);
	buf_text(&a->body, ",\"message\":");
	buf_json_text(&a->body, message);
	buf_text(&a->body, ",\"details\":");
	buf_json_text(&a->body, details);
	buf_text(&a->body, ",\"hint\":");
	buf_json_text(&a->body, hint);
	buf_char(&a->body, '}');
}

void
answer_errorf(Answer *a, unsigned status, const char *code, const char *format, ...)
{
	char	text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	answer_error(a, status, code, text, NULL, NULL);
}

static void
answer_away(Answer *a, const char *message, const char *details)
{
	answer_error(a, 503, FLS_NO_DATABASE, message, details, NULL);
	answer_header(a, "Retry-After", "2");
}

/* Whether the role of the request could not be set: nothing else sets one. */
static bool
is_about_role(const DbResult *r)
{
	size_t n = strlen(r->message);

	return (strcmp(r->code, "42501") == 0 &&
			strncmp(r->message, "permission denied to set role", 29) == 0) ||
		(strcmp(r->code, "22023") == 0 && strncmp(r->message, "role \"", 6) == 0 && n > 15 &&
		 strcmp(r->message + n - 15, " does not exist") == 0);
}

void
answer_db_error(Answer *a, const DbResult *r)
{
	int status;

	switch (r->verdict)
	{
		case DB_OK:
			return;
		case DB_AWAY:
			answer_away(a, "the database is not available", NULL);
			return;
		case DB_UNKNOWN:
			answer_away(a, "the connection to the database was lost",
						"Whether the request was carried out is not known.");
			return;
		case DB_BUSY:
			answer_away(a, "too many requests are waiting for the database", NULL);
			return;
		case DB_ERROR:
			break;
	}
	status = http_status_of_sqlstate(r->code);
	if (is_about_role(r))
		answer_error(a, 403, FLS_FORBIDDEN, "the role of the token cannot be used", NULL,
					 "It must exist, and be granted to the user of setting db.");
	else if (strcmp(r->code, "42501") == 0)
		answer_error(a, 403, r->code,
					 strncmp(r->message, "permission denied for ", 22) == 0 ||
							 strncmp(r->message, "permission denied to set role", 29) == 0 ?
						 "permission denied" :
						 r->message,
					 r->detail, r->hint);
	else if (status < 500)
		answer_error(a, status, r->code, r->message, r->detail, r->hint);
	else
	{
		LogField fields[] = {LOG_TEXT("code", r->code), LOG_TEXT("detail", r->detail)};

		log_line(LOG_WARNING, r->message, fields, 2);
		answer_error(a, status, r->code,
					 status == 503 ? "the database cannot do that now" :
									 "the request failed in the database",
					 NULL, NULL);
		if (status == 503)
			answer_header(a, "Retry-After", "2");
	}
	if (status == 401)
		answer_header(a, "WWW-Authenticate", "Bearer");
}

/* Only these are taken from SQL. */
static const char *const header_names[] = {"ETag", "Location", "Retry-After", "Allow",
										   "Cache-Control"};

static void
take_header(void *arg, const char *name, size_t name_n, const char *value, size_t value_n)
{
	Answer *a = arg;

	for (size_t i = 0; i < sizeof(header_names) / sizeof(header_names[0]); i++)
	{
		if (strlen(header_names[i]) == name_n && memcmp(header_names[i], name, name_n) == 0 &&
			a->nheaders < ANSWER_HEADERS)
		{
			for (size_t j = 0; j < value_n; j++)
			{
				if ((unsigned char) value[j] < 0x20 || (unsigned char) value[j] > 0x7e)
					return;
			}
			a->name[a->nheaders] = header_names[i];
			a->value[a->nheaders++] = must_copy_n(value, value_n);
		}
	}
}

void
answer_row(Answer *a, PGresult *row, unsigned status)
{
	const char *told = PQgetisnull(row, 0, 1) ? "" : PQgetvalue(row, 0, 1);
	const char *headers = PQgetisnull(row, 0, 2) ? "" : PQgetvalue(row, 0, 2);
	int			number = atoi(told);

	a->status = number >= 200 && number < 600 ? (unsigned) number : status;
	if (headers[0] != '\0' && !json_pairs(headers, strlen(headers), take_header, a))
		log_message(LOG_WARNING, "response.headers is not an array of objects of strings");
	if (!PQgetisnull(row, 0, 0) && a->status != 204)
		buf_add(&a->body, PQgetvalue(row, 0, 0), PQgetlength(row, 0, 0));
}
