/*
 * framing.c
 *	  Whether a request is framed so that everybody reads it alike (RFC 9112,
 *	  sections 2.2, 3, 5.1, 5.2, 6.1 and 6.3).
 *
 * A proxy and this server that disagree on where a request ends let one client send
 * requests in the name of another.  The library takes some of what it should not:
 * two Content-Length, or one beside Transfer-Encoding; before 0.9.77 also lines that
 * end with a line feed alone, that a zero byte cuts short, that go on in the next one,
 * and a space before a colon.
 *
 * The latter are not to be seen in what it has parsed, but in where that is: such a
 * version parses the head in place.  So it must lie there without a gap: the method, a
 * space, the target, a space, the version, two bytes that were the end of the line,
 * and so on to the end of the head.
 *
 * How chunks are framed is not to be seen at all.  So a request with chunks is the
 * last one of its connection: nothing can be hidden behind it.
 */
#include "framing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "request.h"

#define HEADER_FIELDS 100
#define HEADER_LINE	  8192
#define LINE_END	  2

typedef struct Head
{
	int			hosts;
	int			lengths;
	int			codings;
	int			fields;
	const char *coding;
	const char *problem;
	const char *at;	 /* where the next line must begin */
	bool		gap; /* it did not, once */
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

/* Neither spaces nor control characters, nor what a URI has no place for (RFC 3986, section 3.4). */
static bool
is_target(const char *uri)
{
	for (const unsigned char *p = (const unsigned char *) uri; *p != '\0'; p++)
	{
		if (*p <= 0x20 || *p == 0x7f || *p == '#' || *p == '\\')
			return false;
	}
	return *uri == '/';
}

static enum MHD_Result
look(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_n, const char *value,
	 size_t value_n)
{
	Head *h = arg;

	(void) kind;
	h->fields++;
	if (name != h->at)
		h->gap = true;
	else if (!h->gap)
	{
		const char *p = name + name_n;

		/* The colon was overwritten; spaces are skipped before a value, and left behind it. */
		h->gap = value <= p || *p++ != '\0' || strspn(p, " \t") != (size_t) (value - p);
		h->at = value + value_n + LINE_END;
	}
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

/* Whether the head has no byte that was not parsed; h has seen the headers. */
static bool
head_is_whole(const struct Request *r, const Head *h, const char *method, const char *version)
{
#if MHD_VERSION < 0x00097701
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	return info != NULL && !h->gap && method + strlen(method) + 1 == r->uri_at &&
		r->uri_at + strlen(r->uri) + 1 == version && h->at + LINE_END == method + info->header_size;
#else
	(void) r;
	(void) h;
	(void) method;
	(void) version;
	return true;
#endif
}

bool
framing_ok(struct Request *r, const char *method, const char *version, char *problem, size_t size)
{
	Head		h = {.at = version + strlen(version) + LINE_END};
	const char *what = NULL;

	MHD_get_connection_values_n(r->connection, MHD_HEADER_KIND, look, &h);
	if (h.problem != NULL)
		what = h.problem;
	else if (h.fields > HEADER_FIELDS)
		what = "there are too many headers";
	else if (h.hosts > 1 || (h.hosts == 0 && strcmp(version, "HTTP/1.0") != 0))
		what = h.hosts > 1 ? "there is more than one Host" : "there is no Host";
	else if (h.lengths > 1)
		what = "there is more than one Content-Length";
	else if (h.codings > 1)
		what = "there is more than one Transfer-Encoding";
	else if (h.lengths > 0 && h.codings > 0)
		what = "there are both Content-Length and Transfer-Encoding";
	else if (h.codings > 0 && strcmp(version, "HTTP/1.0") == 0)
		what = "HTTP/1.0 has no Transfer-Encoding";
	else if (h.codings > 0 && strcasecmp(h.coding, "chunked") != 0)
		what = "501 the Transfer-Encoding is not known";
	else if (!head_is_whole(r, &h, method, version))
		what = "the head is malformed";
	else if (!is_token(method, strlen(method)))
		what = "the method is malformed";
	else if (!is_target(r->uri))
		what = "the target is malformed";
	if (what != NULL)
		snprintf(problem, size, "%s", what);
	return what == NULL;
}
