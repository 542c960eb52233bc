/*
 * log.h
 *	  The log: a line for each thing, as text or as JSON, on standard error.
 *	  See log.c.
 */
#ifndef GATEWAY_LOG_H
#define GATEWAY_LOG_H

#include <stdbool.h>

typedef enum LogLevel
{
	LOG_ERROR,
	LOG_WARNING,
	LOG_INFO,
	LOG_REQUEST /* each request */
} LogLevel;

/* A member of a line: text when it is not NULL, else the number. */
typedef struct LogField
{
	const char *name;
	const char *text;
	long long	number;
	bool		is_number;
} LogField;

#define LOG_TEXT(name, value)	((LogField){(name), (value), 0, false})
#define LOG_NUMBER(name, value) ((LogField){(name), NULL, (value), true})

extern void log_settings(bool as_json, LogLevel level);
extern bool log_wants(LogLevel level);
extern void log_line(LogLevel level, const char *message, const LogField *fields, int n);
extern void log_message(LogLevel level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* GATEWAY_LOG_H */
