/*
 * rest_list.c
 *	  Listings in other styles: how a client asks for a page, and how it is
 *	  told where the next one is.
 *
 * Cursors are those of page.c with characters after them that have to be
 * escaped in a URL; one that comes back damaged is refused.
 */
#include "rest.h"
#include "journal.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_SIZE  100 /* when the client asks for none */
#define CURSOR_END "~a+b/c=&d%20"

static const char *
arg(rest_call *r, const char *const *names)
{
	for (; *names != NULL; names++)
	{
		const char *s = call_arg(r->call, *names);

		if (s != NULL)
			return s;
	}
	return NULL;
}

static bool
text_is_option(const rest_call *r, const char *name, const char *value)
{
	const char *s = rest_option(r, name);

	return s != NULL && strcmp(s, value) == 0;
}

static void
put_escaped(buf *b, const char *s)
{
	for (; *s; s++)
		if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
			*s == '-' || *s == '.' || *s == '_' || *s == '~')
			buf_char(b, *s);
		else
			buf_printf(b, "%%%02X", (unsigned char) *s);
}

/* A time within text: a filter, or a time alone; a number is seconds since 1970. */
static bool
find_time(const char *s, int64_t *at)
{
	char   text[64];
	char  *end;
	double seconds = strtod(s, &end);

	if (*s != '\0' && *end == '\0' && seconds > 100000)
	{
		*at = (int64_t) (seconds * 1e6);
		return true;
	}
	for (; *s; s++)
		if (s[0] >= '1' && s[0] <= '2' && strspn(s, "0123456789") == 4 && s[4] == '-')
		{
			size_t n = strcspn(s, "\"')");

			if (n >= sizeof(text))
				return false;
			memcpy(text, s, n);
			text[n] = '\0';
			return parse_time(text, at);
		}
	return false;
}

/* What all styles have in common: how many, and since when. */
static const char *
read_common(rest_call *r)
{
	static const char *const sizes[] = {"limit", "count",	   "$top",	 "pageSize", "per_page",
										"max",	 "maxResults", "_limit", NULL};
	static const char *const sinces[] = {"filter",		  "$filter",	   "since",
										 "modifiedSince", "updatedAt_gte", NULL};
	const char				*size = arg(r, sizes);
	const char				*since = arg(r, sinces);
	const char				*cap = rest_option(r, "cap");
	const char				*part;
	page					*p = &r->page;

	if (text_is_option(r, "in", "body"))
	{
		if (r->call->body.n > 0 && !request_parse(r->call->body.p, r->call->body.n, &r->q))
			return "the body is no JSON object";
		p->size = r->q.page_size;
		p->incremental = r->q.has_since;
		p->since = r->q.since;
	}
	if (size != NULL)
		p->size = strtol(size, NULL, 10);
	if (p->size <= 0)
		p->size = PAGE_SIZE;
	if (cap != NULL && p->size > strtol(cap, NULL, 10))
		p->size = strtol(cap, NULL, 10);
	if (since != NULL)
	{
		p->incremental = true;
		if (!find_time(since, &p->since))
			return "invalidFilter";
	}
	part = call_arg(r->call, "part");
	if (part != NULL &&
		(sscanf(part, "%ld-of-%ld", &p->part, &p->parts) != 2 || p->part < 1 || p->parts < p->part))
		return "there is no such part";
	r->q.page_size = p->size;
	p->type = r->type;
	p->at.epoch = cursor_epoch;
	p->by_position = r->style->by_position;
	p->with_deleted = rest_option(r, "gone") != NULL;
	return NULL;
}

static void
put_cursor(buf *b, const page *p)
{
	cursor_put(b, &p->next);
	buf_lit(b, CURSOR_END);
}

static const char *
read_cursor(rest_call *r, const char *s)
{
	if (s == NULL || *s == '\0')
		return NULL;
	r->q.has_cursor = true;
	if (strlen(s) < sizeof(CURSOR_END) ||
		strcmp(s + strlen(s) - strlen(CURSOR_END), CURSOR_END) != 0 ||
		!cursor_parse(s, r->page.size, &r->page.at))
		return "invalidCursor";
	return NULL;
}

static bool
is_cursor_arg(const rest_call *r, const char *name)
{
	for (int i = 0; i < 3 && r->style->cursor_args[i] != NULL; i++)
		if (strcmp(r->style->cursor_args[i], name) == 0)
			return true;
	return false;
}

typedef struct url
{
	rest_call *rest;
	buf		  *b;
	char	   separator;
} url;

static enum MHD_Result
add_arg(void *closure, enum MHD_ValueKind kind, const char *name, const char *value)
{
	url *u = closure;

	(void) kind;
	if (is_cursor_arg(u->rest, name))
		return MHD_YES;
	buf_char(u->b, u->separator);
	u->separator = '&';
	put_escaped(u->b, name);
	buf_char(u->b, '=');
	put_escaped(u->b, value ? value : "");
	return MHD_YES;
}

/*
 * The URL of a page of this listing: the parameters of this request, with
 * another cursor (NULL: none).
 */
static void
put_url(buf *b, rest_call *r, const char *name, const char *value)
{
	url			u = {.rest = r, .b = b, .separator = '?'};
	const char *relative = rest_option(r, "relative");

	if (relative == NULL || rest_option(r, "other"))
	{
		rest_put_origin(b, r->call, rest_option(r, "other") != NULL);
		relative = "path";
	}
	if (strcmp(relative, "sibling") == 0)
		buf_str(b, strrchr(r->call->url, '/') + 1);
	else if (strcmp(relative, "query") != 0)
		buf_str(b, r->call->url);
	MHD_get_connection_values(r->call->connection, MHD_GET_ARGUMENT_KIND, add_arg, &u);
	if (value == NULL)
		return;
	buf_char(b, u.separator);
	put_escaped(b, name);
	buf_char(b, '=');
	put_escaped(b, value);
}

static void
put_next_url(buf *b, rest_call *r, const page *p)
{
	buf text = {0};

	put_cursor(&text, p);
	buf_char(&text, '\0');
	put_url(b, r, r->style->cursor_args[0], text.p);
	buf_free(&text);
}

static void
put_records(buf *b, const page *p, rest_call *r)
{
	buf_char(b, '[');
	page_put_records(b, p, mangles(&r->struck) ? mangle_record : NULL, &r->struck);
	buf_char(b, ']');
}

static void
put_estimate(buf *b, const char *name, const page *p, rest_call *r)
{
	if (rest_option(r, "nototal") || (p->estimate_json != NULL && *p->estimate_json == '\0'))
		return;
	buf_printf(b, "\"%s\":", name);
	if (p->estimate_json != NULL)
		buf_str(b, p->estimate_json);
	else
		buf_int(b, (int64_t) p->estimate);
	buf_char(b, ',');
}

/*
 * scim: startIndex and count, or with ;cursor those of RFC 9865.  With ;over
 * a start beyond the end begins again, as SCIMMY does it.
 */
static const char *
read_scim(rest_call *r)
{
	page	 *p = &r->page;
	long long start = call_arg_int(r->call, "startIndex", 1);

	if (rest_option(r, "cursor"))
	{
		p->by_position = false;
		return read_cursor(r, call_arg(r->call, "cursor"));
	}
	if (start < 1)
		start = 1;
	if (rest_option(r, "over") && (size_t) start > p->type->count - p->type->deleted)
		start = 1;
	p->at.offset = (size_t) start - 1;
	p->at.page = (start - 1) / p->size + 1;
	r->q.has_cursor = start > 1;
	return NULL;
}

static void
write_scim(buf *b, const page *p, void *closure)
{
	rest_call *r = closure;
	bool	   by_cursor = rest_option(r, "cursor") != NULL;

	buf_lit(b, "{\"schemas\":[\"urn:ietf:params:scim:api:messages:2.0:ListResponse\"],");
	put_estimate(b, "totalResults", p, r);
	buf_printf(b, "\"itemsPerPage\":%zu", p->count);
	if (!by_cursor)
		buf_printf(b, ",\"startIndex\":%zu", p->at.offset + 1);
	if (p->estimate > 0)
	{
		buf_lit(b, ",\"Resources\":");
		put_records(b, p, r);
	}
	if (by_cursor && p->next_json != NULL && *p->next_json)
	{
		buf_lit(b, ",\"nextCursor\":");
		buf_str(b, p->next_json);
	}
	else if (by_cursor && p->more && p->next_json == NULL)
	{
		buf_lit(b, ",\"nextCursor\":\"");
		put_cursor(b, p);
		buf_char(b, '"');
	}
	buf_char(b, '}');
}

static void
head_scim(rest_call *r)
{
	free(r->call->answer.content_type);
	r->call->answer.content_type = must_strdup("application/scim+json; charset=utf-8");
}

static void
put_scim(buf *b, const page *p, size_t position, const patch *change)
{
	render_scim(b, p->type, p->numbers[position], change);
}

/* link: a Link header; the body is a list. */
static const char *
read_link(rest_call *r)
{
	return read_cursor(r, call_arg(r->call, "after"));
}

static void
write_list(buf *b, const page *p, void *closure)
{
	put_records(b, p, closure);
}

static void
head_link(rest_call *r)
{
	answer *a = &r->call->answer;
	page   *p = &r->page;
	buf		b = {0};
	bool	next = p->more;

	if (!p->more && rest_option(r, "self"))
	{
		/* the last page's next page is itself */
		next = true;
		p->next = p->at;
	}
	if (rest_option(r, "many") || rest_option(r, "two"))
	{
		buf_char(&b, '<');
		put_url(&b, r, NULL, NULL);
		buf_lit(&b, ">; rel=\"first\" , <");
		put_url(&b, r, "page", "a,b;c");
		buf_lit(&b, ">;rel=describedby; title=\"rel=\\\"next\\\", <x>; and so on\"");
	}
	if (b.n > 0 && rest_option(r, "two"))
	{
		buf_char(&b, '\0');
		answer_header(a, "Link", b.p);
		b.n = 0;
	}
	if (next)
	{
		buf_str(&b, b.n > 0 ? ", <" : "<");
		put_next_url(&b, r, p);
		buf_str(&b,
				rest_option(r, "many") ? ">; title=\"the next, page\"; rel=\"section next\"" :
										 ">; rel=\"next\"");
	}
	if (b.n > 0)
	{
		buf_char(&b, '\0');
		answer_header(a, "Link", b.p);
	}
	buf_free(&b);
}

/* next: the next page's URL is in the body, as Microsoft Graph has it. */
static const char *
read_next(rest_call *r)
{
	return read_cursor(r, call_arg(r->call, "$skiptoken"));
}

static void
write_next(buf *b, const page *p, void *closure)
{
	rest_call *r = closure;

	buf_char(b, '{');
	put_estimate(b, "@odata.count", p, r);
	buf_lit(b, "\"value\":");
	put_records(b, p, r);
	if (p->next_json != NULL && *p->next_json)
	{
		buf_lit(b, ",\"@odata.nextLink\":");
		buf_str(b, p->next_json);
	}
	else if ((p->more && p->next_json == NULL) || (!p->more && rest_option(r, "self")))
	{
		page last = *p;

		if (!p->more)
			last.next = p->at;
		buf_lit(b, ",\"@odata.nextLink\":\"");
		put_next_url(b, r, &last);
		buf_char(b, '"');
	}
	buf_char(b, '}');
}

/*
 * cursor: in the body, and sent back as a parameter, or with ;in=body or
 * ;in=header there.  With ;alone a cursor tolerates no other parameters, with
 * ;all it wants the page size again.
 */
static enum MHD_Result
count_args(void *closure, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void) kind;
	(void) name;
	(void) value;
	++*(int *) closure;
	return MHD_YES;
}

static const char *
read_cursor_style(rest_call *r)
{
	const char *s = call_arg(r->call, "cursor");
	int			args = 0;

	MHD_get_connection_values(r->call->connection, MHD_GET_ARGUMENT_KIND, count_args, &args);
	if (text_is_option(r, "in", "body"))
		s = r->q.has_cursor ? r->q.cursor : NULL;
	else if (text_is_option(r, "in", "header"))
		s = MHD_lookup_connection_value(r->call->connection, MHD_HEADER_KIND, "X-Cursor");
	if (rest_option(r, "first") && s == NULL)
		return "a cursor is needed, an empty one for the first page";
	if (s != NULL && *s && rest_option(r, "alone") && args > 1)
		return "a cursor goes with no other parameter";
	if (s != NULL && *s && rest_option(r, "all") && args < 2)
		return "all parameters are needed with a cursor";
	return read_cursor(r, s);
}

static void
write_cursor(buf *b, const page *p, void *closure)
{
	rest_call *r = closure;

	buf_char(b, '{');
	put_estimate(b, "totalEstimate", p, r);
	if (rest_option(r, "more"))
		buf_printf(b, "\"hasMore\":%s,", p->more ? "true" : "false");
	if (p->next_json != NULL)
		buf_printf(b, *p->next_json ? "\"nextCursor\":%s," : "%s", p->next_json);
	else if (p->more || rest_option(r, "more"))
	{
		buf_lit(b, "\"nextCursor\":\"");
		put_cursor(b, p);
		buf_lit(b, "\",");
	}
	else if (rest_option(r, "null"))
		buf_lit(b, "\"nextCursor\":null,");
	else if (rest_option(r, "blank"))
		buf_lit(b, "\"nextCursor\":\"\",");
	buf_lit(b, "\"resources\":");
	put_records(b, p, r);
	buf_char(b, '}');
}

/* offset: how many records come before the page; with ;base=1 the number of its first record. */
static const char *
read_offset(rest_call *r)
{
	static const char *const names[] = {"offset", "first", "start", "startIndex",
										"_start", "skip",  NULL};
	const char				*s = arg(r, names);
	long long				 base = text_is_option(r, "base", "1") ? 1 : 0;
	long long				 at = s ? strtoll(s, NULL, 10) - base : 0;

	if (at < 0)
		return "no such offset";
	r->page.at.offset = (size_t) at;
	r->page.at.page = at / r->page.size + 1;
	r->q.has_cursor = at > 0;
	return NULL;
}

static void
write_items(buf *b, const page *p, void *closure)
{
	rest_call *r = closure;

	if (rest_option(r, "array"))
	{
		put_records(b, p, r);
		return;
	}
	buf_char(b, '{');
	put_estimate(b, "total", p, r);
	buf_lit(b, "\"items\":");
	put_records(b, p, r);
	buf_char(b, '}');
}

/* page: a number, from 1, or with ;base=0 from 0. */
static const char *
read_page(rest_call *r)
{
	long long base = text_is_option(r, "base", "0") ? 0 : 1;
	long long at = call_arg_int(r->call, "page", base) - base;
	size_t	  size = (size_t) r->page.size;

	if (at < 0)
		return "no such page";
	if (rest_option(r, "over") && (size_t) at * size >= r->type->count - r->type->deleted)
		at = 0;
	r->page.at.offset = (size_t) at * size;
	r->page.at.page = (long) at + 1;
	r->q.has_cursor = at > 0;
	return NULL;
}

static void
write_page(buf *b, const page *p, void *closure)
{
	rest_call *r = closure;
	size_t	   size = (size_t) p->size;

	if (rest_option(r, "array"))
	{
		put_records(b, p, r);
		return;
	}
	buf_printf(b, "{\"page\":%ld,", p->at.page - (text_is_option(r, "base", "0") ? 1 : 0));
	if (!rest_option(r, "nototal"))
		buf_printf(b, "\"totalPages\":%zu,", (p->estimate + size - 1) / size);
	buf_lit(b, "\"data\":");
	put_records(b, p, r);
	buf_char(b, '}');
}

/*
 * delta: like next, and at /users/delta a listing that ends with a link which
 * lists, later, what has changed since this listing was begun: only what
 * changed of each record (;whole: all of it), and deletions as @removed.
 * Tokens are "<began>:<since>:<cursor>" and "<since>:<epoch>".
 */
static const char *
read_delta(rest_call *r)
{
	const char *skip = call_arg(r->call, "$skiptoken");
	const char *token = call_arg(r->call, "$deltatoken");
	page	   *p = &r->page;
	long long	began, since, epoch = cursor_epoch;
	int			used = 0;

	if (!r->delta)
		return read_next(r);
	r->began = clock_now();
	if (token != NULL && strcmp(token, "latest") == 0)
		r->latest = true;
	else if (token != NULL && *token)
	{
		if (sscanf(token, "%lld:%lld%n", &since, &epoch, &used) != 2 || token[used] != '\0')
			return "invalidDeltaToken";
		p->incremental = true;
		p->since = since;
		p->at.epoch = epoch;
		r->q.has_cursor = true;
	}
	else if (skip != NULL)
	{
		if (sscanf(skip, "%lld:%lld:%n", &began, &since, &used) != 2 || used == 0)
			return "invalidSkipToken";
		r->began = began;
		p->incremental = since > 0;
		p->since = since;
		r->q.has_cursor = true;
		if (!cursor_parse(skip + used, p->size, &p->at))
			return "invalidSkipToken";
	}
	p->with_deleted = p->incremental;
	return NULL;
}

static void
put_delta_record(buf *b, const page *p, size_t position, const patch *change)
{
	size_t		  number = p->numbers[position];
	const record *r = &p->type->records[number - 1];

	if (!p->incremental)
		rest_put_record(b, p, position, change);
	else if (r->deleted)
	{
		buf_lit(b, "{\"externalId\":\"");
		render_id(b, p->type, number);
		buf_lit(b, "\",\"@removed\":{\"reason\":\"deleted\"}}");
	}
	else if (change != NULL || p->whole || r->whole != NULL || r->added ||
			 (r->version | r->name_version | r->email_version | r->group_version) == 0)
		rest_put_record(b, p, position, change);
	else
		render_changed(b, p->type, number, "");
}

static void
write_delta(buf *b, const page *p, void *closure)
{
	rest_call *r = closure;
	buf		   token = {0};

	if (!r->delta)
	{
		write_next(b, p, closure);
		return;
	}
	buf_lit(b, "{\"value\":");
	if (r->latest)
		buf_lit(b, "[]");
	else
		put_records(b, p, r);
	if (p->more && !r->latest)
	{
		buf_printf(&token, "%lld:%lld:", (long long) r->began,
				   (long long) (p->incremental ? p->since : 0));
		cursor_put(&token, &p->next);
		buf_char(&token, '\0');
		buf_lit(b, ",\"@odata.nextLink\":\"");
		put_url(b, r, "$skiptoken", token.p);
	}
	else
	{
		buf_printf(&token, "%lld:%lld", (long long) r->began, (long long) cursor_epoch);
		buf_char(&token, '\0');
		buf_lit(b, ",\"@odata.deltaLink\":\"");
		put_url(b, r, "$deltatoken", token.p);
	}
	buf_lit(b, "\"}");
	buf_free(&token);
}

const rest_style rest_styles[] = {
	{"scim", put_scim, true, {"cursor", "startIndex"}, read_scim, write_scim, head_scim},
	{"link", rest_put_record, false, {"after"}, read_link, write_list, head_link},
	{"next", rest_put_record, false, {"$skiptoken"}, read_next, write_next, NULL},
	{"cursor", rest_put_record, false, {"cursor"}, read_cursor_style, write_cursor, NULL},
	{"offset", rest_put_record, true, {"offset"}, read_offset, write_items, NULL},
	{"page", rest_put_record, true, {"page"}, read_page, write_page, NULL},
	{"delta",
	 put_delta_record,
	 false,
	 {"$skiptoken", "$deltatoken"},
	 read_delta,
	 write_delta,
	 NULL},
	{NULL, NULL, false, {NULL}, NULL, NULL, NULL}};

/* A number for what a cached page depends on besides what struct page says. */
static uint64_t
variant(rest_call *r)
{
	buf		 b = {0};
	uint64_t h = 1;

	put_next_url(&b, r, &r->page);
	for (size_t i = 0; i < b.n; i++)
		h = mix(h ^ (unsigned char) b.p[i]);
	buf_free(&b);
	return h;
}

enum MHD_Result
rest_list(rest_call *r)
{
	call	   *c = r->call;
	page	   *p = &r->page;
	struck	   *s = &r->struck;
	const char *wrong = read_common(r);
	size_t		records;

	if (wrong == NULL)
		wrong = r->style->read(r);
	r->q.has_since = p->incremental;
	journal_request(c, "list", r->type->name, wrong == NULL ? p->at.page : 0);
	if (wrong != NULL)
	{
		rest_complain(r, MHD_HTTP_BAD_REQUEST, strchr(wrong, ' ') ? "badRequest" : wrong, wrong);
		return command_finish(c, s, 0);
	}
	faults_match(s, r->type->name, p->at.page, false);
	c->answer.status = MHD_HTTP_OK;
	if (s->n > 0 && spoil_answer(s, c, &r->q))
		return command_finish(c, s, 0);
	if (p->at.epoch < cursor_oldest && !p->by_position)
	{
		if (strcmp(r->style->name, "scim") == 0)
			rest_complain(r, MHD_HTTP_BAD_REQUEST, "expiredCursor", "the cursor is too old");
		else
			rest_complain(r, (unsigned) cursor_expired_status,
						  r->delta ? "syncStateNotFound" : "expiredCursor", "begin again");
		return command_finish(c, s, 0);
	}
	shape_request(s, &r->q);
	p->size = r->q.page_size;
	p->incremental = p->incremental && r->q.has_since;
	p->whole = rest_option(r, "whole") != NULL;
	if (s->n == 0 && !r->delta)
		records = cache_page(p, variant(r), r->style->write, r, &c->answer);
	else
	{
		page_select(p);
		shape_page(s, p, &r->q);
		r->style->write(&c->answer.body, p, r);
		records = p->count;
	}
	if (r->style->head != NULL)
		r->style->head(r);
	page_free(p);
	return command_finish(c, s, records);
}
