/*
 * log.c
 *	  The log: a line for each thing, as text or as JSON, on standard error.
 *
 * No secret gets here: neither query strings, bodies and headers of requests, nor
 * connection strings.  What comes from outside is escaped, so that a line is a line.
 */
#include "log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"

static bool			   json;
static LogLevel		   most = LOG_REQUEST;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static const char *const level_names[] = {"error", "warning", "info", "request"};

void
log_settings(bool as_json, LogLevel level)
{
	pthread_mutex_lock(&mutex);
	json = as_json;
	most = level;
	pthread_mutex_unlock(&mutex);
}

bool
log_wants(LogLevel level)
{
	return level <= most;
}

static void
add_field(Buf *line, const LogField *f)
{
	if (!f->is_number && f->text == NULL)
		return;
	if (json)
	{
		buf_char(line, ',');
		buf_json_text(line, f->name);
		buf_char(line, ':');
	}
	else
		buf_printf(line, " %s=", f->name);
	if (f->is_number)
		buf_printf(line, "%lld", f->number);
	else if (json || f->text[0] == '\0' || strpbrk(f->text, " \"=\\\n\r\t") != NULL ||
			 !is_text(f->text, strlen(f->text)))
		buf_json_text(line, f->text);
	else
		buf_text(line, f->text);
}

void
log_line(LogLevel level, const char *message, const LogField *fields, int n)
{
	Buf				line = {0};
	struct timespec now;
	struct tm		tm;
	char			at[40];
	size_t			done = 0;

	if (!log_wants(level))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", &tm);
	pthread_mutex_lock(&mutex);
	if (json)
	{
		buf_printf(&line, "{\"at\":\"%s.%03ldZ\",\"level\":\"%s\",\"message\":", at,
				   now.tv_nsec / 1000000, level_names[level]);
		buf_json_text(&line, message);
	}
	else
	{
		buf_printf(&line, "%s.%03ldZ %s: ", at, now.tv_nsec / 1000000, level_names[level]);
		for (const char *p = message; *p != '\0'; p++)
			buf_char(&line, (unsigned char) *p < 0x20 ? ' ' : *p);
	}
	for (int i = 0; i < n; i++)
		add_field(&line, &fields[i]);
	buf_text(&line, json ? "}\n" : "\n");
	while (done < line.n)
	{
		ssize_t wrote = write(STDERR_FILENO, line.p + done, line.n - done);

		if (wrote <= 0)
			break;
		done += wrote;
	}
	pthread_mutex_unlock(&mutex);
	buf_free(&line);
}

void
log_message(LogLevel level, const char *format, ...)
{
	char	text[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_line(level, text, NULL, 0);
}
