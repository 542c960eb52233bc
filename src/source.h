/*
 * source.h
 *	  Where pages come from: the kinds of connectors.  See source.c.
 */
#ifndef FLOHSYNC_SOURCE_H
#define FLOHSYNC_SOURCE_H

#include "http.h"

typedef struct SourceSpec
{
	const char *kind;			/* "command" or "sql" */
	const char *list_command;
	const char *get_command;	/* for one record; NULL: the connector offers none */
	const char *resource_type;
	const char *filter;			/* filter rules as JSON text, or NULL */
	const char *modified_since; /* ISO 8601, or NULL */
	int			page_size;
	/* kind command */
	const char *url;
	char	  **headers;
	int			nheaders;
	/* kind sql: one of the two */
	const char *function;
	const char *query;
	const char *owner;			/* role with whose rights it runs */
	bool		in_transaction; /* the caller has a transaction open and wants it kept */
} SourceSpec;

typedef struct SourceAnswer
{
	const char *error_class;	/* NULL: body is an answer of the command protocol */
	char		message[640];
	bool		retryable;
	bool		cursor_refused; /* the status says that it may be the cursor that is not liked */
	bool		cursor_expired; /* the upstream says that it is */
	bool		not_supported;	/* of source_get: the connector cannot be asked for one record */
	int64		retry_after_ms; /* -1: the upstream did not say */
	const char *body;			/* good until the answer after the next one */
	size_t		len;
	time_t		date;			/* the upstream's clock, 0 when unknown */
	TimestampTz started_at;
	double		ms;
} SourceAnswer;

typedef struct Source Source;

typedef struct SourceKind
{
	const char *name;
	void		(*open) (Source *source);
	void		(*ask) (Source *source, const char *cursor);
	void		(*answer) (Source *source, SourceAnswer *answer);
	void		(*get) (Source *source, const char *external_id, SourceAnswer *answer);
	void		(*close) (Source *source);
} SourceKind;

struct Source
{
	const SourceKind *kind;
	SourceSpec	spec;
	MemoryContext context;		/* lives as long as the source */
	void	   *state;			/* of the kind */
};

extern const SourceKind source_kind_command;
extern const SourceKind source_kind_sql;

extern Source *source_open(const SourceSpec *spec);
extern void source_ask(Source *source, const char *cursor);
extern void source_answer(Source *source, SourceAnswer *answer);
extern void source_get(Source *source, const char *external_id, SourceAnswer *answer);
extern void source_close(Source *source);

extern char *source_request(const SourceSpec *spec, const char *cursor);
extern char *source_get_request(const SourceSpec *spec, const char *external_id);
extern bool source_none_found(const char *body, size_t len);
extern void source_one_record(Source *source, SourceAnswer *answer);
extern const char *source_query_problem(const char *query);

#endif							/* FLOHSYNC_SOURCE_H */
