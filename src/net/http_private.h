/*
 * http_private.h
 *	  A client of http.h and its group, shared by http.c, http_group.c and
 *	  http_answer.c only.
 */
#ifndef FLOHSYNC_HTTP_PRIVATE_H
#define FLOHSYNC_HTTP_PRIVATE_H

#include <curl/curl.h>

#include "base/wait.h"
#include "net/outbound.h"

#define HTTP_KEEP_BUFFER (4 * 1024 * 1024)

/* libcurl's buffer for what is received, which it takes for each request. */
#define HTTP_RECEIVE_BYTES (256 * 1024)

typedef struct HttpBuffer
{
	char  *data; /* malloc'ed */
	size_t len;
	size_t size;
	bool   ahead; /* counted by the group, not by memory_page.c */
} HttpBuffer;

/* Clients whose requests go on while any of them is waited for. */
typedef struct HttpGroup
{
	CURLM *multi;
	int	   nclients;
	struct
	{
		curl_socket_t fd;
		int			  what;
	} sockets[WAIT_MAX_SOCKETS];
	int nsockets;
	/* those that we opened: libcurl says when it closes them */
	curl_socket_t own[WAIT_MAX_SOCKETS];
	int			  nown;
	WaitChannel	 *line;		/* waits for line_fd; NULL: not made */
	curl_socket_t line_fd;	/* of own; CURL_SOCKET_BAD: it was closed */
	bool		  is_near;	/* the last answer was there within GROUP_NEAR_US */
	TimestampTz	  deadline; /* of libcurl's timer, 0: none */
	bool		  too_many_sockets;
	size_t		  ahead_bytes; /* of buffers whose turn has not come */
	size_t		  ahead_limit;
} HttpGroup;

struct HttpClient
{
	HttpGroup		  *group;
	CURL			  *easy;
	struct curl_slist *headers;
	bool			   underway;
	bool			   has_fd;
	bool			   ended; /* the request under way has, with this */
	CURLcode		   result;
	TimestampTz		   ended_at;
	/* of the request under way */
	HttpBuffer	buffers[2]; /* the other one is still read by the caller */
	int			current;
	size_t		max_bytes;
	PageMemory *memory;
	size_t		memory_left; /* so much more the buffer may take */
	bool		measured;	 /* that is so, for this request */
	bool		waited_for;	 /* its answer; the page before is done with */
	bool		memory_exceeded;
	size_t		header_bytes;
	bool plain;		/* no encoding is offered any more, as it was answered with one that is none */
	bool is_secret; /* this one or one before: see HttpRequest */
	int	 nheaders;	/* lines of headers */
	bool too_large;
	bool out_of_memory;
	OutboundPolicy *policy;
	char			blocked[160];
	char			retry_after[128];
	char			error[CURL_ERROR_SIZE];
	char			condition[HTTP_MAX_VALIDATOR]; /* of the request, "": none */
	TimestampTz		started_at;
	TimestampTz		ends_at;
	bool			reads_only; /* GET or HEAD: may be redirected with any status */
	int				redirects;
};

/* What of libcurl may do anything is called between the first two, which may be nested. */
extern void http_enter(void);
extern void http_leave(void);
extern void http_drop_request(HttpClient *client);
extern void http_trim_buffer(HttpClient *client, HttpBuffer *b);

/* http_group.c */
extern HttpGroup	*http_group_create(void);
extern void			 http_group_leave(HttpGroup *group);
extern curl_socket_t http_group_opened(HttpGroup *group, curl_socket_t fd);
extern int			 http_group_on_close(void *arg, curl_socket_t fd);
extern void			 http_group_act(HttpGroup *group, curl_socket_t fd, int what);
extern void			 http_group_wait(HttpGroup *group, long timeout_ms);
extern bool			 http_ahead_grow(HttpGroup *group, size_t extra);
extern void			 http_ahead_begin(HttpGroup *group, HttpBuffer *b);
extern void			 http_ahead_end(HttpGroup *group, HttpBuffer *b);

/* http_memory.c */
extern CURLcode http_memory_init(void);
extern void		http_memory_secret(void);

#endif /* FLOHSYNC_HTTP_PRIVATE_H */
