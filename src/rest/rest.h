/*
 * rest.h
 *	  What the files of kind rest share.
 *
 *	  rest/definition.c   a definition, compiled
 *	  rest/request.c      addresses, headers and bodies of requests
 *	  rest/follow.c       addresses that an answer gives
 *	  rest/origin.c       where requests may go
 *	  rest/auth.c         credentials and tokens
 *	  rest/parent.c       the records that a list is made for each of
 *	  rest/split.c        lists that are asked for in parts
 *	  rest/jsonpath.c     paths that PostgreSQL evaluates
 *	  rest/page.c         an answer becomes a page
 *	  rest/next.c         where the list goes on behind it
 *	  rest/as_before.c    pages that come as before
 *	  rest/give_up.c      pages that the list goes on without
 *	  rest/limits.c       statuses, throttling, waiting
 *	  rest/foretell.c     requests before their turn
 *	  rest/kind.c         the way of a request
 */
#ifndef FLOHSYNC_REST_H
#define FLOHSYNC_REST_H

#include "net/http.h"
#include "page/page.h"
#include "rest/path.h"
#include "source/ahead.h"
#include "source/foretell.h"
#include "source/source.h"
#include "source/template.h"

/* Levels around a record; deeper ones are set aside like too deep ones inside. */
#define REST_LEVELS_ABOVE_RECORD 4

/*
 * Of parents whose list could not be had so many are named, and so many may be, if they are
 * not the greater part.
 */
#define REST_FAILED_NAMES 3
#define REST_FAILED_MOST  10

#define REST_MAX_PARTS 32 /* of a list that is split */

#define REST_CUT_PARENTS \
	3 /* number of parents with a possibly truncated list that makes the pass incomplete */
#define REST_CUT_TEXT \
	"the first page is as long as was asked for, and nothing in it tells of another, or that there is none: " \
	"perhaps the definition looks for the next page in the wrong place"

typedef enum RestPlace
{
	REST_IN_QUERY,
	REST_IN_BODY,
	REST_IN_HEADER
} RestPlace;

/* Alternatives: the first that finds something counts. */
typedef struct RestPaths
{
	int		   n;
	RestPath **paths;
} RestPaths;

typedef struct RestParam
{
	char	 *name;
	Template *value;
	char	 *fixed; /* a number or boolean, instead */
} RestParam;

typedef struct RestParams
{
	int		   n;
	RestParam *params;
} RestParams;

typedef enum RestAuthType
{
	REST_AUTH_NONE,
	REST_AUTH_BASIC,
	REST_AUTH_BEARER,
	REST_AUTH_API_KEY,
	REST_AUTH_CLIENT_CREDENTIALS,
	REST_AUTH_JWT
} RestAuthType;

typedef enum RestClientAuth
{
	REST_CLIENT_BASIC,
	REST_CLIENT_BODY,
	REST_CLIENT_JWT
} RestClientAuth;

typedef struct RestAuth
{
	RestAuthType   type;
	Template	  *username;
	Template	  *password;
	Template	  *token;
	Template	  *value;
	Template	  *prefix;
	char		  *header;
	char		  *query;
	Template	  *token_url;
	Template	  *client_id;
	Template	  *client_secret;
	Template	  *scope;
	RestParams	   extra;
	RestClientAuth client_auth;
	Template	  *key;
	Template	  *kid;
	Template	  *aud;
	Template	  *iss;
	Template	  *sub;
	char		  *alg;
	bool		   bearer; /* the JWT goes in a header, not in a form */
	RestPath	  *token_path;
	RestPath	  *expires_path;
} RestAuth;

typedef enum RestPaginationType
{
	REST_PAGES_NONE,
	REST_PAGES_LINK_HEADER,
	REST_PAGES_NEXT_URL,
	REST_PAGES_CURSOR,
	REST_PAGES_OFFSET,
	REST_PAGES_PAGE
} RestPaginationType;

typedef enum RestStop
{
	REST_STOP_EMPTY,
	REST_STOP_TOTAL,
	REST_STOP_TOTAL_PAGES
} RestStop;

typedef struct RestPagination
{
	RestPaginationType type;
	char			  *rel;
	RestPath		  *path;
	char			  *param;
	RestPlace		   in;
	char			  *first;
	bool			   keep_params;
	RestPath		  *has_more;
	int				   base;
	bool			   step_page_size;
	RestPath		  *total;
	RestPath		  *total_pages;
	RestStop		   stop;
	int				  *end_status; /* of the page behind the last one */
	int				   nend_status;
	bool			   own_origin; /* of a link, only path and query count */
} RestPagination;

typedef struct RestDefinition
{
	Template  *base_url;
	RestParams headers;
	RestAuth   auth;
	int		   timeout_ms;
	int64	   max_response_bytes;
	char	 **allow_hosts;
	int		   nallow_hosts;
	int		   max_pages;
	int		   requests_per_minute;
	int		   concurrency;
	char	  *remaining_header;
	char	  *reset_header;
	bool	   reset_seconds;
	int		  *throttle_status;
	int		   nthrottle_status;
	RestPath  *throttle_body;
	int		   max_attempts; /* 0: flohsync.http_max_attempts */
	int		   base_ms;		 /* 0: flohsync.http_retry_delay */
	int		   max_ms;
	int		  *retry_status;
	int		   nretry_status;
	/* list */
	bool		   post;
	Template	  *path;
	RestParams	   params;
	char		  *body; /* JSON text with placeholders, or NULL */
	char		  *size_param;
	RestPlace	   size_in;
	int			   size_default; /* 0: flohsync.page_size */
	int			   size_max;
	RestPath	  *records; /* without the last [*] if elements */
	bool		   elements;
	bool		   missing_is_empty;
	RestPath	  *error; /* what tells that an answer is none, or NULL */
	RestPath	  *total;
	bool		   total_is_estimate;
	bool		   conditional; /* pages may be asked for if they have changed */
	RestPagination pages;
	RestPath	  *gone;
	/* incremental */
	char	 *since_param; /* NULL: not by a parameter */
	Template *since;
	RestPlace since_in;
	RestPath *delta; /* NULL: not by links */
	Template *start_path;
	int		 *reset_status;
	int		  nreset_status;
	bool	  delta_partial;
	/* get */
	Template  *get_path; /* NULL: there is none */
	RestParams get_params;
	RestPath  *get_record;
	int		  *not_found;
	int		   nnot_found;
	/* for_each */
	char  *parent_type; /* NULL: one list */
	bool   own_ids;
	char **parent_attributes; /* those that placeholders name */
	int	   nparent_attributes;
	/* split */
	char  *split_param; /* NULL: one list, or one for each parent */
	char **split_values;
	int	   nsplit;
	/* map */
	RestPaths	   external_id;
	RestPaths	   display_name;
	RestPaths	   email;
	RestPaths	   attributes;
	CanonicalPath *exclude;
	int			   nexclude;
} RestDefinition;

/* A list on its way, as far as this run has read it; -1: not known. */
typedef struct RestList
{
	/* of the page before */
	uint64 last_body;
	size_t last_len; /* 0: none, or without records */
	bool   repeated; /* it was as the one before that */
	uint64 last_ids; /* 0: none */
	char  *last_at;

	bool  reading; /* this list is read from its beginning */
	int64 total;   /* the largest */
	int64 total_pages;
	bool  counting;		/* a page has been counted */
	int64 received;		/* records of the list; -1: not all of them are known to this run */
	int64 list_total;	/* the largest, with whatever pages; -1: not known */
	bool  behind_short; /* though the page before was shorter than was asked for */
	/* the position at which the upstream should have no more, and is asked to be sure; or NULL */
	char	*behind;
	Foretell pages_ahead; /* its next pages */
} RestList;

/* Where a part of a split list goes on: of the values the one, and there. */
typedef struct RestTurn
{
	int	  part;
	char *inner;
} RestTurn;

/* Where a page stands: what is behind the cursor of the engine. */
typedef struct RestPosition
{
	int		  nturns; /* of a split list, in the order in which they come; the first is at hand */
	RestTurn *turns;
	char	 *parent;					 /* id of the parent */
	char	 *inner;					 /* a URL, cursor, offset or page; NULL: the first page */
	bool	  left_out;					 /* a parent was left out so far */
	bool	  only_missing;				 /* of no parent so far the upstream had a list */
	int		  nfailed;					 /* parents whose list could not be had */
	char	 *failed[REST_FAILED_NAMES]; /* the first of them, with the reason */
} RestPosition;

typedef struct RestParent
{
	char *external_id;
	char *display_name;
	char *email;
	char *attributes; /* JSON text: those that placeholders name, if they are of use there */
} RestParent;

/* What went wrong before there was an answer. */
typedef struct RestProblem
{
	ErrorClass error_class; /* NONE: nothing */
	bool	   of_parent;	/* only with this parent is there no request */
	bool	   retryable;
	bool	   stored; /* the position from which the pass continues is unusable */
	int64	   retry_after_ms;
	char	   message[1024]; /* sanitized */
} RestProblem;

typedef struct RestState
{
	Source		   *source;
	RestDefinition *def;
	Ahead		   *ahead;	  /* clients for pages */
	Ahead		   *ones;	  /* for single records: a page must stay where it is meanwhile */
	char		  **expected; /* single records that will be asked for */
	int				nexpected;
	HttpClient	   *early; /* that of a page before its turn, while that is asked for */
	HttpClient	   *token_client;
	HttpOrigin		origin;	   /* of base_url */
	char		   *kept_link; /* an incremental pass begins here, or NULL */
	/* the current or last request; strings in request_context */
	MemoryContext request_context;
	RestPosition  at;
	char		 *external_id; /* a single record is requested */
	char		 *url;		   /* without a key in it */
	int			  page_size;   /* asked for */
	bool		  sent;
	bool		  nothing;		 /* there is nothing to ask for: an empty page */
	bool		  missing;		 /* because the upstream has no list for the parent */
	bool		  ended;		 /* because the page is behind the end of its list */
	char		 *unsure;		 /* why that is not sure, or NULL */
	int			  refreshed;	 /* how often the token was renewed for this request */
	unsigned char refused[32];	 /* digest of the one before */
	unsigned char token_key[32]; /* under which the token is stored */
	bool		  token_held;	 /* by us, too, where it is shared */
	RestProblem	  problem;
	/* tokens */
	char	   *token; /* in the source's context */
	TimestampTz token_until;
	char	   *authorization; /* the header of basic auth */
	/* parents read ahead */
	MemoryContext	  parent_context;
	RestParent		 *parents;
	int				  nparents;
	int				  parent; /* the one at */
	bool			  more_parents;
	bool			  parents_checked;
	JsonParser		 *parent_json; /* the tree of parent_parsed's attributes */
	const RestParent *parent_parsed;
	RestList		 *lists;   /* of a split list one a part */
	RestList		 *list;	   /* the one at hand */
	int				  longest; /* records of the longest page of the pass so far */
	bool			  went_on; /* a page had a sign of a next one */
	int ncut; /* lists that may have been cut: their first page was full, and had no such sign */
	/* of the answer at hand */
	int status;
	/* values of PostgreSQL's paths */
	JsonParser *scratch[4];
} RestState;

extern RestDefinition *rest_definition_compile(const char *definition, const char *resource_type);

extern JsonParser *rest_parser(const RestState *state);
extern void		   rest_problem(RestState *state, ErrorClass error_class, const char *format, ...)
	pg_attribute_printf(3, 4);

extern char		  *rest_render(RestState *state, const Template *t, TemplateEncoder literals,
							   TemplateEncoder values);
extern char		  *rest_render_plain(RestState *state, const Template *t);
extern char		  *rest_fixed_url(RestState *state, const Template *t);
extern char		  *rest_base_url(RestState *state, const Template *t);
extern Ahead	  *rest_lanes(const RestState *state);
extern HttpClient *rest_client(RestState *state);
extern bool		   rest_send(RestState *state);
extern bool		   rest_send_now(RestState *state);
extern void		   rest_origins(OriginList *list, const JsonParser *config, const char *definition);
extern char		  *rest_follow(RestState *state, const char *reference, ErrorClass *error_class);

extern bool rest_authorize(RestState *state, StringInfo url, char **header);
extern bool rest_drop_token(RestState *state);
extern void rest_wipe_token(RestState *state);
extern void rest_leave_token(RestState *state);

/* rest/split.c */
extern bool		   rest_split_begin(RestState *state, const char *cursor);
extern char		  *rest_split_text(const RestState *state, const char *inner);
extern const char *rest_split_value(const RestState *state);

extern bool				 rest_parents_ready(RestState *state);
extern bool				 rest_parent_seek(RestState *state, const char *from);
extern bool				 rest_parent_next(RestState *state);
extern int64			 rest_parent_count(RestState *state);
extern const RestParent *rest_parent(const RestState *state);

extern const char *rest_jsonpath_compile(RestPath *path);
extern void		   rest_jsonpath_keep(const char *json, int len);
extern bool		 rest_jsonpath_query(RestState *state, const RestPath *path, const JsonParser *json,
									 uint32 node, JsonParser *side);
extern PageValue rest_find(RestState *state, const RestPath *path, JsonParser *json, uint32 node,
						   JsonParser *side);
extern PageValue rest_find_full(RestState *state, const RestPath *path, JsonParser *json,
								uint32 node, JsonParser *side);
extern bool rest_says_yes(RestState *state, const RestPath *path, JsonParser *json, uint32 node,
						  JsonParser *side);

/* rest/as_before.c */
extern char *rest_reads_from(Source *source, bool answered);
extern char *rest_read_to(Source *source);
extern bool	 rest_read_as_before(Source *source, const char *read_to);

extern bool rest_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page);

extern void	 rest_note_limit(RestState *state);
extern void	 rest_classify(RestState *state, const HttpResponse *response, SourceAnswer *answer);
extern bool	 rest_status_in(int status, const int *list, int n);
extern bool	 rest_leave_parent(RestState *state, int status, ErrorClass error_class);
extern bool	 rest_give_up(Source *source, const SourceAnswer *answer);
extern char *rest_failed_text(const RestState *state);

extern char *rest_position_text(const RestState *state, const char *parent, const char *inner);

#endif /* FLOHSYNC_REST_H */
