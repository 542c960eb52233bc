/*
 * source.h
 *	  Where pages come from: the kinds of connectors.  See source.c.
 */
#ifndef FLOHSYNC_SOURCE_H
#define FLOHSYNC_SOURCE_H

#include "base/memory_page.h"
#include "net/http.h"
#include "page/page.h"

#define SOURCE_MAX_LANES 32 /* requests of a source that are open at the same time */

/* Secrets that verify webhooks: the one, and the one before it. */
#define SOURCE_WEBHOOK_SECRET	"webhook"
#define SOURCE_WEBHOOK_PREVIOUS "webhook_previous"

/*
 * A secret of the connector.  One that cannot be decrypted has a problem
 * instead of a value; one that must not be used has a value only so that it is
 * kept out of messages.
 */
typedef struct SourceSecret
{
	char  *name;
	char  *value;
	char  *problem;
	char  *refused; /* why it must not be used, or NULL */
	char **origins; /* for which it was set */
	int	   norigins;
	bool   used; /* a request has it, or what was got with it */
} SourceSecret;

typedef struct Source	  Source;
typedef struct SourceKind SourceKind;

/*
 * What is wanted, and of which connector.  What is in config and definition, the
 * connector's kind knows alone.
 */
typedef struct SourceSpec
{
	const SourceKind *kind;
	const char		 *connector_id;
	const char		 *resource_type;
	JsonParser		 *config;	  /* the tree of an object that the kind has checked */
	const char		 *definition; /* JSON text, or NULL */
	SourceSecret	 *secrets;	  /* for source_secret() */
	int				  nsecrets;
	const char		 *filter;		  /* filter rules as JSON text, or NULL */
	const char		 *modified_since; /* ISO 8601, or NULL */
	const char		 *kept_link;	  /* with which the last incremental pass ended, or NULL */
	int				  page_size;
	bool		incremental;	/* only changes are wanted, also if modified_since is not known */
	bool		probe;			/* one record is enough */
	bool		one_at_a_time;	/* nothing is asked for that may not be wanted */
	bool		in_transaction; /* the caller has a transaction open and wants it kept */
	PageMemory *memory;			/* that answers are counted in; NULL: the source's own */
} SourceSpec;

typedef struct SourceAnswer
{
	ErrorClass error_class;	   /* NULL: this is an answer, for source_read() */
	char	   message[2048];  /* sanitized: set by source_fail() and its like only */
	bool	   retryable;	   /* the same request may fare better a moment later */
	bool	   cursor_refused; /* the status says that it may be the cursor that is not liked */
	bool	   cursor_expired; /* the upstream says that it is */
	bool
		/* the position of the pass is not valid any more, even if that is its beginning */
		  start_again;
	bool  one;			  /* of source_get */
	bool  none;			  /* likewise, and the upstream says that there is no such record */
	bool  not_supported;  /* likewise: the connector cannot be asked for one record */
	int64 retry_after_ms; /* -1: the upstream did not say */
	/* good until the next answer to a request of its kind, for a page or for one record */
	const char *body;
	size_t		len;
	bool		by_http;
	int			status;			  /* of HTTP, 0: none */
	char		content_type[64]; /* as it came; "": none */
	time_t		date;			  /* the upstream's clock, 0 when unknown */
	/* of a list that may be asked for conditionally; "": none that is of use */
	char		etag[HTTP_MAX_VALIDATOR];
	char		last_modified[64];
	bool		not_modified; /* it is as it was when the condition was true: no page came */
	char		condition[HTTP_MAX_VALIDATOR]; /* the validator of that condition; "": none */
	TimestampTz started_at;
	double		ms;
} SourceAnswer;

/* Who answered by HTTP. */
typedef enum SourceAnswerer
{
	SOURCE_UPSTREAM,
	SOURCE_TOKEN_ENDPOINT
} SourceAnswerer;

/* So many statuses are worth another attempt, unless a definition names others. */
#define SOURCE_PASSING_STATUSES 7

/* Of what an upstream calls an estimate, so much may not come. */
#define SOURCE_TOTAL_TOLERANCE 0.1

/* Where requests of a connector can go; see source/origin.c. */
typedef struct OriginList OriginList;

/* A kind of connectors: a row of the table that kinds.h has. */
struct SourceKind
{
	const char *name;
	/* Adds where requests can go, also for what was never checked; NULL: nowhere. */
	void (*origins)(OriginList *list, const JsonParser *config, const char *definition);
	/* What of the config, an object, cannot be used, if anything; NULL: nothing is looked at. */
	const char *(*check)(const JsonParser *config);
	void (*open)(Source *source);
	void (*ask)(Source *source, const char *cursor);
	void (*answer)(Source *source, SourceAnswer *answer);
	/* Is what was asked for there within so many milliseconds?  NULL: it is not known. */
	bool (*ready)(Source *source, int ms);
	/* Makes a page of an answer to ask, or to get (answer->one); false with its class set. */
	bool (*read)(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page);
	/*
	 * What the reading of the next answer, or (answered) of the one at hand, goes by besides
	 * its bytes; NULL: what comes of a page does not follow from that.  A kind without it
	 * has no pages with fingerprints.
	 */
	char *(*reads_from)(Source *source, bool answered);
	/* An answer may be read when the next page was asked for already. */
	bool reads_alone;
	/* Where the reading of a page has come to; NULL as above. */
	char *(*read_to)(Source *source);
	/* Goes on behind a page that was read to there before; false: it has to be read. */
	bool (*read_as_before)(Source *source, const char *read_to);
	/* May the list go on without a page?  Then the next one read is empty; NULL: never. */
	bool (*give_up)(Source *source, const SourceAnswer *answer);
	/* Asks for one record and waits; NULL: that cannot be done. */
	void (*get)(Source *source, const char *external_id, SourceAnswer *answer);
	/* These records will be asked for, in this order, unless something fails; NULL: that is of no use. */
	void (*expect)(Source *source, char *const *external_ids, int n);
	void (*close)(Source *source);
};

#define SOURCE_KIND(name) extern const SourceKind source_kind_##name;
#include "source/kinds.h"
#undef SOURCE_KIND

/* By which validator a page is asked for before its turn, from its cursor; NULL: by none. */
typedef const char *(*SourceForesee)(void *arg, const char *cursor);

struct Source
{
	SourceSpec	  spec;
	MemoryContext context; /* lives as long as the source */
	PageMemory	 *memory;
	/* Set by open where the connector says so; 0: the settings' */
	int	   max_attempts;
	int	   retry_base_ms;
	int	   retry_max_ms;
	int	   max_pages;
	int	   concurrency;			/* requests that may be open at the same time; see ahead.c */
	int	   requests_per_minute; /* 0: no limit */
	double total_tolerance;		/* 0: what it says of its total is exact */
	bool   conditional;			/* pages may be asked for if they have changed */
	bool   links_apart;			/* where the list goes on is no part of its pages */
	int	   page_size;			/* records asked for at a time */
	/* Of the page whose turn it is, its validator; NULL: it is asked for in any case */
	const char *condition;
	/* That of a page before its turn, likewise; see source_foresee_conditions() */
	SourceForesee foresee;
	void		 *foresee_arg;
	bool		  own_query;	/* pages come from a query in this database, which ends */
	TimestampTz	  paced_until;	/* by that limit; see source/pace.c */
	TimestampTz	  not_before;	/* by what the upstream says, 0: at once */
	TimestampTz	  paused_until; /* by what it says to a request before its turn */
	char		**hidden;		/* see source_redact_also() */
	int			  nhidden;
	void		 *state; /* of the kind */
};

extern const SourceKind *source_kind(const char *name);
extern const SourceKind *source_find_kind(const char *name);
extern const char		*source_kind_name(int i);
extern JsonParser		*source_config(const char *text);
extern Source			*source_open(const SourceSpec *spec);
extern void				 source_ask(Source *source, const char *cursor);
extern bool				 source_ready(Source *source, int ms);
extern void				 source_answer(Source *source, SourceAnswer *answer);
extern bool				 source_give_up(Source *source, SourceAnswer *answer);
extern bool				 source_read(Source *source, PageParser *parser, SourceAnswer *answer,
									 UpstreamPage *page);
extern char				*source_reads_from(Source *source, bool answered);
extern char				*source_read_to(Source *source);
extern bool source_read_as_before(Source *source, const char *read_to, const char *next_cursor);
extern bool source_knows_pages(const SourceSpec *spec);
extern void source_get(Source *source, const char *external_id, SourceAnswer *answer);
extern void source_expect(Source *source, char *const *external_ids, int n);
extern void source_close(Source *source);
extern PageParser *source_parser(const Source *source);

/* source/upstream_answer.c */
extern const int source_passing_statuses[SOURCE_PASSING_STATUSES];
extern void		 source_fail(const Source *source, SourceAnswer *answer, ErrorClass error_class,
							 const char *format, ...) pg_attribute_printf(4, 5);
extern void		 source_vfail(const Source *source, SourceAnswer *answer, ErrorClass error_class,
							  const char *format, va_list args) pg_attribute_printf(4, 0);
extern void		 source_say(const Source *source, char *out, size_t size, const char *format,
							va_list args) pg_attribute_printf(4, 0);
extern void		 source_show(const Source *source, SourceAnswer *answer);
extern bool source_take(const Source *source, SourceAnswer *answer, const HttpResponse *response,
						SourceAnswerer who);
extern bool source_status_is_complete(const Source *source, SourceAnswer *answer,
									  const HttpResponse *response);
extern void source_fail_status(const Source *source, SourceAnswer *answer,
							   const HttpResponse *response, SourceAnswerer who,
							   const char *reason);

/* source/condition.c */
extern void		   source_set_condition(Source *source, const char *validator);
extern void		   source_foresee_conditions(Source *source, SourceForesee foresee, void *arg);
extern const char *source_foreseen_condition(const Source *source, const char *cursor);
extern void		   source_add_condition(HttpRequest *request, const char *validator);
extern void		   source_take_validators(const Source *source, SourceAnswer *answer,
										  const HttpResponse *response);
extern void		   source_pace_sent(Source *source);
extern bool		   source_pace_ready(const Source *source);
extern long		   source_pace_ms(const Source *source);
extern int64	   source_pace_wait(const Source *source);

extern const char *source_secret(Source *source, const char *name, const char **refused);
extern void		   source_redact_also(Source *source, const char *value);
extern char		  *source_redacted(const Source *source, const char *text, size_t len);
extern char		  *source_told(const Source *source, const char *text, size_t len, size_t max);
extern bool		   source_shows_secret(const Source *source, const char *text);
extern void		   source_wipe_secrets(SourceSecret *secrets, int n);

/* source/origin.c */
extern int	 source_origins(const char *kind, const char *config, const char *definition,
							char ***origins);
extern char *source_secret_refused(const char *name, const char *kind, char *const *origins,
								   int norigins, const char *now_kind, char *const *now, int nnow);
extern bool	 source_is_webhook_secret(const char *name);
extern char *source_may_send(const Source *source, const char *url);
extern char *source_may_send_to(const Source *source, const char *origin);
extern void	 source_add_origin(OriginList *list, char *origin);
extern void	 source_add_url(OriginList *list, const char *url);

#endif /* FLOHSYNC_SOURCE_H */
