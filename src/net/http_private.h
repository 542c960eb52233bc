/*
 * http_private.h
 *	  A client of http.h, shared by http.c and http_answer.c only.
 */
#ifndef FLOHSYNC_HTTP_PRIVATE_H
#define FLOHSYNC_HTTP_PRIVATE_H

#include <curl/curl.h>

#include "base/wait.h"
#include "net/outbound.h"

#define HTTP_KEEP_BUFFER (4 * 1024 * 1024)

typedef struct HttpBuffer
{
	char  *data; /* malloc'ed */
	size_t len;
	size_t size;
} HttpBuffer;

struct HttpClient
{
	CURLM			  *multi;
	CURL			  *easy;
	struct curl_slist *headers;
	struct
	{
		curl_socket_t fd;
		int			  what;
	} sockets[WAIT_MAX_SOCKETS];
	int			nsockets;
	TimestampTz deadline; /* of libcurl's timer, 0: none */
	bool		underway;
	bool		ended; /* with this result, which http_finish has not looked at yet */
	CURLcode	result;
	bool		has_fd;
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
	bool too_many_sockets;
	OutboundPolicy *policy;
	char			blocked[160];
	char			retry_after[128];
	char			error[CURL_ERROR_SIZE];
	TimestampTz		started_at;
	TimestampTz		ends_at;
	bool			reads_only; /* GET or HEAD: may be redirected with any status */
	int				redirects;
};

/* All of libcurl is called between the first two. */
extern void http_enter(void);
extern void http_leave(void);
extern void http_act(HttpClient *client, curl_socket_t fd, int what);
extern void http_drop_request(HttpClient *client);
extern void http_trim_buffer(HttpBuffer *b);

/* http_memory.c */
extern CURLcode http_memory_init(void);

#endif /* FLOHSYNC_HTTP_PRIVATE_H */
