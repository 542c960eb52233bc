/*
 * source.h
 *	  Where pages come from: the kinds of connectors.  See source.c.
 */
#ifndef FLOHSYNC_SOURCE_H
#define FLOHSYNC_SOURCE_H

#include "base/memory_page.h"
#include "net/http.h"
#include "page/page.h"

/* Secrets that verify webhooks: the one, and the one before it. */
#define SOURCE_WEBHOOK_SECRET		"webhook"
#define SOURCE_WEBHOOK_PREVIOUS		"webhook_previous"

/*
 * A secret of the connector.  One that cannot be decrypted has a problem
 * instead of a value; one that must not be used has a value only so that it is
 * kept out of messages.
 */
typedef struct SourceSecret
{
	char	   *name;
	char	   *value;
	char	   *problem;
	char	   *refused;		/* why it must not be used, or NULL */
	char	  **origins;		/* for which it was set */
	int			norigins;
	bool		used;			/* a request has it, or what was got with it */
} SourceSecret;

typedef struct SourceSpec
{
	const char *kind;			/* "command", "sql" or "rest" */
	const char *list_command;
	const char *get_command;	/* for one record; NULL: the connector offers none */
	const char *resource_type;
	const char *filter;			/* filter rules as JSON text, or NULL */
	const char *modified_since; /* ISO 8601, or NULL */
	int			page_size;
	SourceSecret *secrets;		/* for source_secret() */
	int			nsecrets;
	bool		incremental;	/* only changes are wanted, also if modified_since is not known */
	bool		probe;			/* one record is enough */
	/* kind rest */
	const char *connector_id;
	const char *definition;		/* JSON text */
	const char *config;			/* JSON text */
	const char *kept_link;		/* with which the last incremental pass ended, or NULL */
	/* kind command */
	const char *url;
	char	  **headers;
	int			nheaders;
	int			requests_per_minute;	/* 0: as many as it takes */
	double		total_tolerance;	/* how much of what the upstream says there is may not come; negative: not said */
	/* kind sql: one of the two */
	const char *function;
	const char *query;
	Oid			owner;			/* role with whose rights it runs; InvalidOid: there is none any more */
	const char *owner_name;
	Oid			code_owner;		/* owner of the function when it was set; of another one it is not run */
	bool		in_transaction; /* the caller has a transaction open and wants it kept */
	PageMemory *memory;			/* that answers are counted in; NULL: the source's own */
} SourceSpec;

typedef struct SourceAnswer
{
	const char *error_class;	/* NULL: body is an answer of the command protocol */
	char		message[2048];	/* sanitized: set by source_fail() and its like only */
	bool		retryable;
	bool		cursor_refused; /* the status says that it may be the cursor that is not liked */
	bool		cursor_expired; /* the upstream says that it is */
	bool		start_again;	/* the position of the pass is not valid any more, even if that is its beginning */
	bool		not_supported;	/* of source_get: the connector does not support requests for one record */
	int64		retry_after_ms; /* -1: the upstream did not say */
	const char *body;			/* good until the next answer to a request of its kind, for a page or for one record */
	size_t		len;
	bool		by_http;
	int			status;			/* of HTTP, 0: none */
	char		content_type[64];	/* as it came; "": none */
	time_t		date;			/* the upstream's clock, 0 when unknown */
	TimestampTz started_at;
	double		ms;
} SourceAnswer;

typedef struct Source Source;

/* Of what an upstream calls an estimate, so much may not come. */
#define SOURCE_TOTAL_TOLERANCE	0.1

typedef struct SourceKind
{
	const char *name;
	void		(*open) (Source *source);
	void		(*ask) (Source *source, const char *cursor);
	void		(*answer) (Source *source, SourceAnswer *answer);
	/* Reads an answer's page; NULL: it is one of the command protocol.  False with the answer's class set. */
	bool		(*read) (Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page);
	/* A page failed: may the list continue without it?  Then the next read gives an empty page; NULL: never. */
	bool		(*give_up) (Source *source, const SourceAnswer *answer);
	void		(*get) (Source *source, const char *external_id, SourceAnswer *answer);
	void		(*close) (Source *source);
} SourceKind;

struct Source
{
	const SourceKind *kind;
	SourceSpec	spec;
	MemoryContext context;		/* lives as long as the source */
	PageMemory *memory;
	/* Set by open where the connector says so; 0: the settings' */
	int			max_attempts;
	int			retry_base_ms;
	int			retry_max_ms;
	int			max_pages;
	int			requests_per_minute;	/* 0: no limit */
	double		total_tolerance;	/* 0: what it says of its total is exact */
	TimestampTz paced_until;	/* by that limit; see source/pace.c */
	TimestampTz not_before;		/* by what the upstream says, 0: at once */
	char	  **hidden;			/* see source_redact_also() */
	int			nhidden;
	void	   *state;			/* of the kind */
};

extern const SourceKind source_kind_command;
extern const SourceKind source_kind_sql;
extern const SourceKind source_kind_rest;

extern Source *source_open(const SourceSpec *spec);
extern void source_ask(Source *source, const char *cursor);
extern void source_answer(Source *source, SourceAnswer *answer);
extern bool source_give_up(Source *source, SourceAnswer *answer);
extern bool source_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page);
extern void source_get(Source *source, const char *external_id, SourceAnswer *answer);
extern bool source_read_one(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page);
extern void source_close(Source *source);
extern PageParser *source_parser(const Source *source);
extern bool source_read_commands(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page);

extern void source_fail(const Source *source, SourceAnswer *answer, const char *error_class, const char *format,...) pg_attribute_printf(4, 5);
extern void source_say(const Source *source, char *out, size_t size, const char *format, va_list args) pg_attribute_printf(4, 0);
extern void source_show(const Source *source, SourceAnswer *answer);
extern bool source_take(const Source *source, SourceAnswer *answer, const HttpResponse *response, const char *who);
extern bool source_status_is_complete(const Source *source, SourceAnswer *answer);
extern void source_fail_status(const Source *source, SourceAnswer *answer, const char *who, const char *error_class);

extern void source_pace_sent(Source *source);
extern bool source_pace_ready(const Source *source);
extern int64 source_pace_wait(const Source *source);

extern const char *source_secret(Source *source, const char *name, const char **refused);
extern void source_redact_also(Source *source, const char *value);
extern char *source_redacted(const Source *source, const char *text, size_t len);
extern char *source_told(const Source *source, const char *text, size_t len, size_t max);
extern bool source_shows_secret(const Source *source, const char *text);
extern void source_wipe_secrets(SourceSecret *secrets, int n);

/* source/origin.c */
extern int	source_origins(const char *kind, const char *config, const char *definition, char ***origins);
extern char *source_secret_refused(const char *name, const char *kind, char *const *origins, int norigins,
								   const char *now_kind, char *const *now, int nnow);
extern bool source_is_webhook_secret(const char *name);
extern char *source_may_send(const Source *source, const char *url);

extern char *source_request(const SourceSpec *spec, const char *cursor);
extern char *source_get_request(const SourceSpec *spec, const char *external_id);
extern void source_cursor_refused(SourceAnswer *answer, int status, const char *body, size_t len);
extern bool source_none_found(const Source *source, const char *body, size_t len);
extern void source_one_record(Source *source, SourceAnswer *answer);
extern const char *source_query_problem(const char *query);

#endif							/* FLOHSYNC_SOURCE_H */
