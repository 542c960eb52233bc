/*
 * webhook.c
 *	  Webhooks of upstreams: the bytes of the body, as they came, go to the database,
 *	  which knows the secret and verifies them.
 *
 * What costs something before that is limited: the size, packed and unpacked, and
 * how many come for one connector and from one address.
 */
#include "webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "config.h"
#include "json_text.h"
#include "log.h"
#include "metrics.h"
#include "rate.h"
#include "request.h"

static bool
limited(Request *r, int seconds, const char *what)
{
	char after[16];

	if (seconds == 0)
		return false;
	metrics_count(METRIC_RATE_LIMITED);
	snprintf(after, sizeof(after), "%d", seconds);
	answer_errorf(&r->answer, 429, FLS_TOO_MANY, "too many webhooks %s", what);
	answer_header(&r->answer, "Retry-After", after);
	return true;
}

bool
webhook_allowed(Request *r)
{
	static Rates *by_connector;
	static Rates *by_address;
	int			  rate = config->webhooks_per_second;
	int			  rate_address = config->webhooks_per_second_address;

	if (by_connector == NULL)
	{
		by_connector = rates_make();
		by_address = rates_make();
	}
	return !limited(r, rate_take(by_address, r->network, rate_address, 5 * rate_address),
					"from this address") &&
		!limited(r, rate_take(by_connector, r->segment[2], rate, 5 * rate), "for this connector");
}

/* Unpacks the body; false when it has answered. */
static bool
unpack(Request *r)
{
	z_stream z = {0};
	Buf		 out = {0};
	char	 piece[16384];
	int		 result = Z_OK;

	if (inflateInit2(&z, 15 + 16) != Z_OK)
	{
		answer_error(&r->answer, 500, FLS_INTERNAL, "the body cannot be unpacked", NULL, NULL);
		return false;
	}
	z.next_in = (unsigned char *) r->body.p;
	z.avail_in = (unsigned) r->body.n;
	while (result == Z_OK && out.n <= (size_t) config->body_limit)
	{
		z.next_out = (unsigned char *) piece;
		z.avail_out = sizeof(piece);
		result = inflate(&z, Z_NO_FLUSH);
		buf_add(&out, piece, sizeof(piece) - z.avail_out);
		if (result == Z_BUF_ERROR || (result == Z_OK && z.avail_in == 0 && z.avail_out > 0))
			break;
	}
	inflateEnd(&z);
	if (out.n > (size_t) config->body_limit)
		answer_errorf(&r->answer, 413, FLS_TOO_LARGE,
					  "the body is larger than %d bytes when it is unpacked", config->body_limit);
	else if (result != Z_STREAM_END || z.avail_in > 0)
		answer_error(&r->answer, 400, FLS_BAD_REQUEST, "the body is not in the format gzip", NULL,
					 NULL);
	else
	{
		buf_free(&r->body);
		r->body = out;
		return true;
	}
	buf_free(&out);
	return false;
}

static char *
query_of(const Request *r)
{
	Buf b = {0};

	buf_char(&b, '{');
	for (int i = 0; i < r->npairs; i++)
	{
		if (i > 0)
			buf_char(&b, ',');
		buf_json_text(&b, r->name[i]);
		buf_char(&b, ':');
		buf_json_text(&b, r->value[i]);
	}
	buf_char(&b, '}');
	return buf_take(&b);
}

/* {"status", "contentType", "body"}, see _flohsync.answer_webhook. */
static void
webhook_done(void *arg, const DbResult *result)
{
	Request			 *r = arg;
	const JsonParser *json;
	uint32_t		  body;
	long long		  status = 200;
	char			 *type;

	if (result->verdict != DB_OK)
	{
		answer_db_error(&r->answer, result);
		if (r->answer.status == 405)
			answer_header(&r->answer, "Allow", "POST");
		/* Whoever sends webhooks has no token to get. */
		request_answered(r);
		return;
	}
	json = json_read(PQgetvalue(result->row, 0, 0), PQgetlength(result->row, 0, 0));
	body = json != NULL && json->nodes[JSON_ROOT].type == JSON_OBJECT ?
		json_member(json, JSON_ROOT, "body", 4) :
		0;
	if (body == 0)
	{
		answer_error(&r->answer, 500, FLS_INTERNAL, "the webhook was answered in no known form",
					 NULL, NULL);
		request_answered(r);
		return;
	}
	json_number_member(json, JSON_ROOT, "status", &status);
	type = json_text_member(json, JSON_ROOT, "contentType");
	r->answer.status = status >= 200 && status < 600 ? (unsigned) status : 200;
	if (type != NULL && strncmp(type, "text/plain", 10) == 0)
	{
		size_t n;
		char  *text = json_text_of(json, body, &n);

		r->answer.type = "text/plain; charset=utf-8";
		if (text != NULL)
			buf_add(&r->answer.body, text, n);
		free(text);
	}
	else
		buf_add(&r->answer.body, json->text + json->nodes[body].start,
				json->nodes[body].end - json->nodes[body].start);
	free(type);
	request_answered(r);
}

void
webhook_run(Request *r)
{
	const char *coding = request_header(r, "Content-Encoding");

	if (coding != NULL && strcasecmp(coding, "identity") != 0)
	{
		if (strcasecmp(coding, "gzip") != 0 && strcasecmp(coding, "x-gzip") != 0)
		{
			answer_error(&r->answer, 415, FLS_MEDIA_TYPE, "the body can be encoded with gzip only",
						 NULL, NULL);
			request_answered(r);
			return;
		}
		if (!unpack(r))
		{
			request_answered(r);
			return;
		}
	}
	request_call(r, webhook_done);
}

void
webhook_params(Request *r)
{
	r->owned[1] = query_of(r);
	r->values[0] = r->owned[0];
	r->values[1] = r->method;
	r->values[2] = r->owned[1];
	r->values[3] = r->headers;
	r->values[4] = r->body.p != NULL ? r->body.p : "";
	r->lengths[4] = (int) r->body.n;
	r->formats[4] = 1;
}
