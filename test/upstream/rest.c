/*
 * rest.c
 *	  The paths /rest/STYLE;OPTION;OPTION=VALUE/TYPES, TYPES/ID, groups/ID/members
 *	  and users/delta.
 *
 * STYLE says how a listing goes on from page to page (rest_list.c), the
 * options say what is odd about it.  They stand in the path, so that many
 * connectors can use one server at a time and no link loses them.
 */
#include "rest.h"
#include "auth.h"
#include "limit.h"
#include "journal.h"
#include "render.h"

#include <stdio.h>
#include <stdlib.h>

char *rest_other_origin = NULL;

/* The option's value, "" if it has none; NULL if it isn't set. */
const char *
rest_option(const rest_call *r, const char *name)
{
	static char value[64];
	size_t		n = strlen(name);

	for (const char *at = r->options; *at == ';'; at += 1 + strcspn(at + 1, ";"))
		if (strncmp(at + 1, name, n) == 0 &&
			(at[n + 1] == '=' || at[n + 1] == ';' || at[n + 1] == '\0'))
		{
			size_t len;

			if (at[n + 1] != '=')
				return "";
			len = strcspn(at + n + 2, ";");
			if (len >= sizeof(value))
				len = sizeof(value) - 1;
			memcpy(value, at + n + 2, len);
			value[len] = '\0';
			return value;
		}
	return NULL;
}

/* "http://127.0.0.1:4711", as the client calls us; or the other origin that a test has given. */
void
rest_put_origin(buf *b, call *c, bool other)
{
	const char *host = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Host");

	if (other && rest_other_origin != NULL)
	{
		buf_str(b, rest_other_origin);
		return;
	}
	buf_lit(b, "http://");
	buf_str(b, host ? host : "127.0.0.1");
}

/* An error in the style's own form. */
void
rest_complain(rest_call *r, unsigned status, const char *code, const char *message)
{
	answer *a = &r->call->answer;

	a->status = status;
	a->body.n = 0;
	if (r->style != NULL && strcmp(r->style->name, "scim") == 0)
	{
		buf_printf(
			&a->body,
			"{\"schemas\":[\"urn:ietf:params:scim:api:messages:2.0:Error\"],\"status\":\"%u\",\"scimType\":",
			status);
		buf_json_str(&a->body, code);
		buf_lit(&a->body, ",\"detail\":");
		buf_json_str(&a->body, message);
		buf_char(&a->body, '}');
		free(a->content_type);
		a->content_type = must_strdup("application/scim+json");
		return;
	}
	buf_lit(&a->body, "{\"error\":{\"code\":");
	buf_json_str(&a->body, code);
	buf_lit(&a->body, ",\"message\":");
	buf_json_str(&a->body, message);
	buf_lit(&a->body, "}}");
}

/* A record with two more members, status and lastUpdated. */
void
rest_put_record(buf *b, const page *p, size_t position, const patch *change)
{
	static buf	  before;
	const record *r = &p->type->records[p->numbers[position] - 1];
	patch		  with = {0};

	if (change != NULL)
		with = *change;
	before.n = 0;
	buf_lit(&before, "\"status\":\"");
	buf_str(&before, r->deleted ? "DEPROVISIONED" : "ACTIVE");
	buf_lit(&before, "\",\"lastUpdated\":\"");
	put_time(&before, r->modified_at);
	buf_char(&before, '"');
	if (with.before != NULL)
	{
		buf_char(&before, ',');
		buf_str(&before, with.before);
	}
	buf_char(&before, '\0');
	with.before = before.p;
	render_record(b, p->type, p->numbers[position], &with);
}

static enum MHD_Result
single(rest_call *r, const char *id)
{
	call  *c = r->call;
	size_t number = data_lookup(r->type, id);
	page p = {.type = r->type, .numbers = &number, .count = 1, .put_record = r->style->put_record};

	journal_request(c, "get", r->type->name, 0);
	faults_match(&r->struck, r->type->name, 0, true);
	c->answer.status = MHD_HTTP_OK;
	if (r->struck.n > 0 && spoil_answer(&r->struck, c, &r->q))
		return command_finish(c, &r->struck, 0);
	if (number == 0 || (r->type->records[number - 1].deleted && !rest_option(r, "gone")))
	{
		rest_complain(r, commands_missing, "notFound", "there is no such record");
		return command_finish(c, &r->struck, 0);
	}
	if (mangles(&r->struck))
		mangle_record(&c->answer.body, &p, 0, &r->struck);
	else
		p.put_record(&c->answer.body, &p, 0, NULL);
	return command_finish(c, &r->struck, 1);
}

static enum MHD_Result
nothing_here(rest_call *r, unsigned status, const char *message)
{
	journal_request(r->call, r->style ? r->style->name : "rest", "", 0);
	rest_complain(r, status, status == MHD_HTTP_NOT_FOUND ? "notFound" : "badRequest", message);
	return command_finish(r->call, &r->struck, 0);
}

static enum MHD_Result
service_provider(rest_call *r)
{
	answer *a = &r->call->answer;

	journal_request(r->call, "ServiceProviderConfig", "", 0);
	a->content_type = must_strdup("application/scim+json");
	answer_json(a, MHD_HTTP_OK,
				"{\"schemas\":[\"urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig\"],"
				"\"filter\":{\"supported\":true,\"maxResults\":1000},"
				"\"pagination\":{\"cursor\":%s,\"index\":%s,\"defaultPaginationMethod\":\"%s\"}}",
				rest_option(r, "cursor") ? "true" : "false",
				rest_option(r, "cursor") ? "false" : "true",
				rest_option(r, "cursor") ? "cursor" : "index");
	return command_finish(r->call, &r->struck, 0);
}

/* "Users" and "users" are "user". */
static const data_type *
type_of(const char *plural, size_t n)
{
	char name[64];

	if (n < 2 || n >= sizeof(name))
		return NULL;
	memcpy(name, plural, n);
	name[n] = '\0';
	if (data_find(name) == NULL && name[n - 1] == 's')
		name[n - 1] = '\0';
	if (data_find(name) == NULL && name[0] >= 'A' && name[0] <= 'Z')
		name[0] = (char) (name[0] + 32);
	return data_find(name);
}

/* Cut the path up; false if it is none of ours. */
static bool
read_path(rest_call *r, const char *url, char *id, size_t id_size, char *below, size_t below_size)
{
	const char *at = url + strlen("/rest/");
	size_t		n = strcspn(at, ";/");
	size_t		options = strcspn(at + n, "/");

	for (const rest_style *s = rest_styles; s->name != NULL; s++)
		if (strlen(s->name) == n && strncmp(s->name, at, n) == 0)
			r->style = s;
	if (r->style == NULL || options >= sizeof(r->options))
		return false;
	memcpy(r->options, at + n, options);
	at += n + options;
	if (*at++ != '/')
		return false;
	n = strcspn(at, "/");
	if ((size_t) (at + n - url) >= sizeof(r->path))
		return false;
	memcpy(r->path, url, (size_t) (at + n - url));
	r->type = type_of(at, n);
	at += n;
	if (*at == '/')
	{
		n = strcspn(++at, "/");
		if (n >= id_size)
			return false;
		memcpy(id, at, n);
		id[n] = '\0';
		at += n;
	}
	if (*at == '/' && strlen(at + 1) < below_size)
		strcpy(below, at + 1);
	return true;
}

enum MHD_Result
rest_run(call *c)
{
	rest_call	made = {.call = c};
	rest_call  *r = &made;
	char		id[256] = "";
	char		below[64] = "";
	const char *why;

	if (!read_path(r, c->url, id, sizeof(id), below, sizeof(below)))
		return nothing_here(r, MHD_HTTP_NOT_FOUND, "no such path; see README.md");
	r->page.at.page = 1;
	r->page.put_record = r->style->put_record;
	if ((why = auth_complaint(c)) != NULL)
	{
		journal_request(c, "refused", r->type ? r->type->name : "", 0);
		rest_complain(r, MHD_HTTP_UNAUTHORIZED, "invalid_token", why);
		answer_header(&c->answer, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
		return command_finish(c, &r->struck, 0);
	}
	if (limit_strikes(&c->answer))
	{
		journal_request(c, "limited", r->type ? r->type->name : "", 0);
		return command_finish(c, &r->struck, 0);
	}
	if (strcmp(r->style->name, "scim") == 0 && strstr(r->path, "/ServiceProviderConfig") != NULL)
		return service_provider(r);
	if (r->type == NULL)
		return nothing_here(r, MHD_HTTP_NOT_FOUND, "no such type");
	if (strcmp(r->style->name, "delta") == 0 && strcmp(id, "delta") == 0)
	{
		r->delta = true;
		id[0] = '\0';
	}
	else if (strcmp(below, "members") == 0)
	{
		/* the users of a group */
		r->page.member_of = data_lookup(r->type, id);
		if (r->page.member_of == 0 || r->type->records[r->page.member_of - 1].deleted ||
			strcmp(r->type->name, "group") != 0 || data_find("user") == NULL)
			return nothing_here(r, MHD_HTTP_NOT_FOUND, "no such group");
		snprintf(r->path + strlen(r->path), sizeof(r->path) - strlen(r->path), "/%s/members", id);
		r->type = data_find("user");
		id[0] = '\0';
	}
	if (id[0] != '\0')
		return single(r, id);
	return rest_list(r);
}
