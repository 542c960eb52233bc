/*
 * http.h
 *	  Interruptible HTTP requests.  See http.c.
 */
#ifndef FLOHSYNC_HTTP_H
#define FLOHSYNC_HTTP_H

#include <time.h>

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "base/error_class.h"

#ifndef FLOHSYNC_STANDALONE
#include "base/memory_page.h"
#endif

#define HTTP_MAX_VALIDATOR 256 /* bytes of an ETag or a Last-Modified, with the zero behind it */

typedef struct HttpRequest
{
	const char *method; /* NULL: POST with a body, GET without one */
	const char *url;
	char	  **headers; /* "Name: value"; each in place of our own of that name */
	int			nheaders;
	const char *body; /* NULL: none.  JSON, unless a Content-Type says otherwise */
	size_t		body_len;
	int			timeout_ms; /* 0: flohsync.http_timeout; never more than that */
	size_t		max_bytes;	/* 0: flohsync.http_max_response_size; never more than that */
	bool		is_secret;	/* the answer holds a credential: the client wipes its memory */
	bool		ahead;		/* its turn is not yet: see http_turn() */
	PageMemory *memory;		/* that the answer is counted in; NULL: in none */
	const char *condition;	/* validator in one of the headers, if there is a condition; or NULL */
} HttpRequest;

typedef enum HttpFailure
{
	HTTP_OK,	   /* an answer came, with whatever status */
	HTTP_NETWORK,  /* worth another attempt */
	HTTP_TIMEOUT,  /* likewise */
	HTTP_PROTOCOL, /* likewise: what came is not of HTTP */
	HTTP_TLS,
	HTTP_BLOCKED, /* the address is not allowed */
	HTTP_TOO_LARGE,
	HTTP_REDIRECT, /* one that is not followed */
	HTTP_BAD_URL
} HttpFailure;

typedef struct HttpResponse
{
	HttpFailure failure;
	char		message[512]; /* of a failure; clean */
	int			status;		  /* of the final answer */
	char	   *body;		  /* until the next answer is waited for */
	size_t		len;
	char		retry_after[128];		  /* header, "" when absent */
	char		content_type[64];		  /* likewise */
	char		etag[HTTP_MAX_VALIDATOR]; /* likewise; "" as well when it is longer */
	char		last_modified[64];
	time_t		last_modified_at;			   /* 0: not known */
	time_t		date;						   /* of the upstream's Date header, 0 when absent */
	char		condition[HTTP_MAX_VALIDATOR]; /* of the request, "": none */
	TimestampTz started_at;
	double		ms;
} HttpResponse;

typedef struct HttpClient HttpClient;

extern HttpClient *http_client_create(void);
extern HttpClient *http_client_beside(HttpClient *first);
extern void		   http_client_close(HttpClient *client);
extern void		   http_start(HttpClient *client, const HttpRequest *request);
extern void		   http_finish(HttpClient *client, HttpResponse *response);
extern void		   http_drop(HttpClient *client);

/* http_group.c: requests that are on their way before their turn */
extern bool http_await(HttpClient *client, long timeout_ms);
extern bool http_has_ended(const HttpClient *client);
extern void http_turn(HttpClient *client);
extern void http_tidy(HttpClient *client);
/* http_answer.c */
#define HTTP_NO_ROOM -1
extern int	  http_early_status(HttpClient *client);
extern int64  http_early_retry_ms(HttpClient *client);
extern time_t http_early_date(HttpClient *client);
extern char	 *http_header(HttpClient *client, const char *name, int index);

extern ErrorClass http_failure_class(HttpFailure failure);
extern int64	  http_retry_after_ms(const char *header, time_t now);

/* http_url.c */
typedef struct HttpOrigin
{
	char *scheme;
	char *host;
	int	  port;
} HttpOrigin;

extern const char *http_url_problem(const char *url);
extern char		  *http_url_resolve(const char *base, const char *reference);
extern bool		   http_url_origin(const char *url, HttpOrigin *origin);
extern char		  *http_url_origin_text(const char *url);
extern bool		   http_same_origin(const HttpOrigin *a, const HttpOrigin *b);
extern void		   http_url_encode(StringInfo out, const char *value);
extern void		   http_url_add(StringInfo url, const char *name, const char *value);
extern char		  *http_url_drop(const char *url, const char *name);

#endif /* FLOHSYNC_HTTP_H */
