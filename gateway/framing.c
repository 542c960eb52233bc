/*
 * framing.c
 *	  Whether a request is framed so that everybody reads it alike (RFC 9112,
 *	  sections 3.2, 5.1, 6.1 and 6.3).
 *
 * A proxy and this server that disagree on where a request ends let one client send
 * requests in the name of another.  The library takes some of what it should not:
 * two Content-Length, or one beside Transfer-Encoding; before 1.0 also a space before a
 * colon, and a line that a zero byte cuts short.  The latter is not to be seen in what
 * it has parsed, but the head is then longer than its parts.
 */
#include "framing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "request.h"

#define HEADER_FIELDS 100
#define HEADER_LINE	  8192

typedef struct Head
{
	int			hosts;
	int			lengths;
	int			codings;
	int			fields;
	size_t		bytes;
	const char *coding;
	const char *problem;
} Head;

static bool
is_token(const char *name, size_t n)
{
	static const char extra[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < n; i++)
	{
		unsigned char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			  (c != '\0' && strchr(extra, c) != NULL)))
			return false;
	}
	return n > 0;
}

static enum MHD_Result
look(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_n, const char *value,
	 size_t value_n)
{
	Head *h = arg;

	(void) kind;
	h->fields++;
	/* "name: value" and the end of the line */
	h->bytes += name_n + value_n + 4;
	if (!is_token(name, name_n))
		h->problem = "the name of a header is malformed";
	else if (name_n + value_n > HEADER_LINE)
		h->problem = "a header is too long";
	for (size_t i = 0; i < value_n; i++)
	{
		unsigned char c = value[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			h->problem = "the value of a header has a control character";
	}
	if (strcasecmp(name, "Host") == 0)
		h->hosts++;
	else if (strcasecmp(name, "Content-Length") == 0)
	{
		h->lengths++;
		if (value_n == 0 || value_n > 18 || strspn(value, "0123456789") != value_n)
			h->problem = "the Content-Length is no number";
	}
	else if (strcasecmp(name, "Transfer-Encoding") == 0)
	{
		h->codings++;
		h->coding = value;
	}
	return MHD_YES;
}

bool
framing_ok(struct Request *r, const char *version, char *problem, size_t size)
{
	Head							h = {0};
	const char					   *what = NULL;
	const union MHD_ConnectionInfo *info;

	MHD_get_connection_values_n(r->connection, MHD_HEADER_KIND, look, &h);
	info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	/* Method, target and version with two spaces and the end of the line, and that of the head. */
	h.bytes += strlen(r->method) + strlen(r->uri) + strlen(version) + 4 + 2;
	if (h.problem != NULL)
		what = h.problem;
	else if (h.fields > HEADER_FIELDS)
		what = "there are too many headers";
	else if (h.hosts > 1 || (h.hosts == 0 && strcmp(version, "HTTP/1.1") == 0))
		what = h.hosts > 1 ? "there is more than one Host" : "there is no Host";
	else if (h.lengths > 1)
		what = "there is more than one Content-Length";
	else if (h.codings > 1)
		what = "there is more than one Transfer-Encoding";
	else if (h.lengths > 0 && h.codings > 0)
		what = "there are both Content-Length and Transfer-Encoding";
	else if (h.codings > 0 && strcmp(version, "HTTP/1.1") != 0)
		what = "HTTP/1.0 has no Transfer-Encoding";
	else if (h.codings > 0 && strcasecmp(h.coding, "chunked") != 0)
		what = "501 the Transfer-Encoding is not known";
	else if (info != NULL && info->header_size > h.bytes)
		what = "the head is malformed";
	if (what != NULL)
		snprintf(problem, size, "%s", what);
	return what == NULL;
}
