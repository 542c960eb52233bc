/*
 * spoil.c
 *	  Faults in the answer as a whole: another status or body instead of the
 *	  page, and damage to the finished bytes and headers.
 */
#include "faults.h"
#include "limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zlib.h>

#define BLOCK (1024 * 1024)

static const char login_page[] =
	"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>"
	"<body><h1>Something went wrong</h1><p>Please sign in again.</p></body></html>\n";

static bool
is(const fault *f, const char *kind)
{
	return strcmp(f->kind->name, kind) == 0;
}

static void
set_type(answer *a, const char *type)
{
	free(a->content_type);
	a->content_type = type ? must_strdup(type) : NULL;
}

static void
uploaded(answer *a, const fault *f)
{
	a->body.n = 0;
	if (f->body.n > 0)
		buf_put(&a->body, f->body.p, f->body.n);
	set_type(a, fault_text(f, "content_type", NULL));
}

/* A large body made of little: head, a unit many times, tail. */
static void
repeated(answer *a, const fault *f)
{
	const char *unit = fault_text(f, "unit", "");
	const char *number = strstr(unit, "%d");
	long long	count = fault_int(f, "count", 1);

	a->body.n = 0;
	buf_str(&a->body, fault_text(f, "head", ""));
	for (long long i = 0; i < count; i++)
	{
		if (number == NULL)
			buf_str(&a->body, unit);
		else
		{
			buf_put(&a->body, unit, (size_t) (number - unit));
			buf_int(&a->body, i);
			buf_str(&a->body, number + 2);
		}
	}
	buf_str(&a->body, fault_text(f, "tail", ""));
	set_type(a, fault_text(f, "content_type", NULL));
}

static void
html(answer *a)
{
	a->body.n = 0;
	buf_str(&a->body, login_page);
	set_type(a, "text/html; charset=utf-8");
}

static void
status(answer *a, const fault *f)
{
	const char *retry = fault_text(f, "retry_after", NULL);
	char		message[40];

	a->status = (unsigned) fault_int(f, "code", 503);
	snprintf(message, sizeof(message), "status %u", a->status);
	if (retry != NULL)
		answer_header(a, "Retry-After", retry);
	if (fault_int(f, "html", 0))
		html(a);
	else if (f->body.n > 0)
		uploaded(a, f);
	else if (a->status == MHD_HTTP_NO_CONTENT)
		a->body.n = 0;
	else
		answer_error(a, a->status, message);
}

/* A part of the request, in an error message. */
static void
echo(call *c, const fault *f)
{
	answer	   *a = &c->answer;
	const char *of = fault_text(f, "of", "authorization");
	const char *text = strcmp(of, "uri") == 0 ?
		c->uri :
		MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, of);
	size_t		n = text ? strlen(text) : 0;

	if (strcmp(of, "body") == 0)
	{
		text = c->body.p;
		n = c->body.n;
	}
	a->body.n = 0;
	if (fault_int(f, "json", 1))
	{
		buf_lit(&a->body, "{\"success\":false,\"error\":");
		buf_json(&a->body, text ? text : "", n);
		buf_char(&a->body, '}');
		return;
	}
	if (n > 0)
		buf_put(&a->body, text, n);
	set_type(a, fault_text(f, "content_type", "text/plain"));
}

/* Make the whole answer, if one of the faults does; the first one wins. */
bool
spoil_answer(const struck *s, call *c, const request *q)
{
	answer *a = &c->answer;

	for (int i = 0; i < s->n; i++)
	{
		const fault *f = s->fault[i];

		if (f->kind->stage != STRIKE_ANSWER)
			continue;
		a->status = (unsigned) fault_int(f, "code", MHD_HTTP_OK);
		if (is(f, "status"))
			status(a, f);
		else if (is(f, "html"))
			html(a);
		else if (is(f, "body"))
			uploaded(a, f);
		else if (is(f, "repeated"))
			repeated(a, f);
		else if (is(f, "echo"))
			echo(c, f);
		else if (is(f, "success_false"))
			answer_error(a, a->status, fault_text(f, "message", "the directory is not available"));
		else if (is(f, "redirect"))
		{
			answer_header(a, "Location", fault_text(f, "location", "/elsewhere"));
			answer_error(a, (unsigned) fault_int(f, "code", MHD_HTTP_FOUND), "moved");
		}
		else if (is(f, "throttle"))
			limit_refuse(a, fault_text(f, "style", "okta"), fault_int(f, "seconds", 1));
		else if (is(f, "expired_cursor"))
		{
			if (!q->has_cursor)
				continue;
			answer_error(a, (unsigned) fault_int(f, "code", MHD_HTTP_GONE),
						 fault_text(f, "message", "expiredCursor"));
		}
		else
			a->body.n = 0; /* empty_answer */
		return true;
	}
	return false;
}

/* The bytes that one call of deflate() makes of the input, after what is in b. */
static void
pack(z_stream *z, buf *b, const void *data, size_t n, int flush)
{
	z->next_in = (Bytef *) (uintptr_t) data;
	z->avail_in = (uInt) n;
	do
	{
		buf_room(b, 65536);
		z->next_out = (Bytef *) b->p + b->n;
		z->avail_out = (uInt) (b->cap - b->n);
		deflate(z, flush);
		b->n = b->cap - z->avail_out;
	} while (z->avail_out == 0);
}

static void
put_little(buf *b, uint64_t v)
{
	for (int i = 0; i < 4; i++, v >>= 8)
		buf_char(b, (char) (v & 255));
}

/*
 * Replace the body with its gzip.  With padding, that many blanks follow the
 * body's first byte, which is still good JSON if that is a brace: one packed
 * block of them is made and repeated, so a bomb costs nothing to make.
 */
static void
pack_body(answer *a, size_t padding)
{
	z_stream	 z = {0};
	buf			 b = {0};
	size_t		 head = a->body.n > 0 ? 1 : 0;
	size_t		 blocks = padding / BLOCK;
	const Bytef *bytes = (const Bytef *) (a->body.p ? a->body.p : "");
	uLong		 crc = crc32(0, bytes, (uInt) head);

	deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
	buf_put(&b, "\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
	pack(&z, &b, bytes, head, Z_FULL_FLUSH);
	if (blocks > 0)
	{
		void *blanks = memset(must_alloc(BLOCK), ' ', BLOCK);
		uLong block_crc = crc32(0, blanks, BLOCK);
		buf	  block = {0};

		pack(&z, &block, blanks, BLOCK, Z_FULL_FLUSH);
		for (size_t i = 0; i < blocks; i++)
		{
			buf_put(&b, block.p, block.n);
			crc = crc32_combine(crc, block_crc, BLOCK);
		}
		buf_free(&block);
		free(blanks);
	}
	pack(&z, &b, bytes + head, a->body.n - head, Z_FINISH);
	crc = crc32_combine(crc, crc32(0, bytes + head, (uInt) (a->body.n - head)),
						(z_off_t) (a->body.n - head));
	put_little(&b, crc);
	put_little(&b, a->body.n + blocks * BLOCK);
	deflateEnd(&z);
	buf_free(&a->body);
	a->body = b;
	answer_header(a, "Content-Encoding", "gzip");
}

static void
keep(answer *a, long long bytes)
{
	if (bytes < 0)
		bytes = 0;
	if ((size_t) bytes < a->body.n)
		a->body.n = (size_t) bytes;
}

static void
skew_date(answer *a, const fault *f)
{
	const char *text = fault_text(f, "text", NULL);
	time_t		at = (time_t) (clock_now() / 1000000 + fault_int(f, "skew", 0));
	struct tm	tm;
	char		date[64];

	free(a->date);
	if (text == NULL)
	{
		gmtime_r(&at, &tm);
		strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		text = date;
	}
	a->date = must_strdup(text);
}

/* Damage the finished answer. */
void
spoil_body(const struck *s, answer *a)
{
	for (int i = 0; i < s->n; i++)
	{
		const fault *f = s->fault[i];
		long long	 half = (long long) a->body.n / 2;

		if (is(f, "truncate"))
			keep(a,
				 fault_text(f, "cut", NULL) != NULL ?
					 (long long) a->body.n - fault_int(f, "cut", 0) :
					 fault_int(f, "bytes", half));
		else if (is(f, "trailing"))
		{
			if (f->body.n > 0)
				buf_put(&a->body, f->body.p, f->body.n);
			else
				buf_str(&a->body, fault_text(f, "text", "garbage"));
		}
		else if (is(f, "bom"))
		{
			buf b = {0};

			buf_lit(&b, "\xef\xbb\xbf");
			buf_put(&b, a->body.p ? a->body.p : "", a->body.n);
			buf_free(&a->body);
			a->body = b;
		}
		else if (is(f, "gzip"))
			pack_body(a, 0);
		else if (is(f, "gzip_bomb"))
			pack_body(a, (size_t) fault_int(f, "bytes", INT64_C(1) << 30));
		else if (is(f, "gzip_cut"))
		{
			pack_body(a, 0);
			keep(a, fault_int(f, "bytes", (long long) a->body.n / 2));
		}
		else if (is(f, "gzip_bad"))
		{
			pack_body(a, 0);
			for (size_t j = a->body.n / 2; j < a->body.n && j < a->body.n / 2 + 16; j++)
				a->body.p[j] ^= 0x55;
		}
		else if (is(f, "header"))
			answer_header(a, fault_text(f, "name", "X-Fault"), fault_text(f, "value", ""));
		else if (is(f, "content_type"))
			set_type(a, fault_text(f, "text", ""));
		else if (is(f, "date"))
			skew_date(a, f);
		else if (is(f, "close"))
			answer_header(a, "Connection", "close");
	}
}
