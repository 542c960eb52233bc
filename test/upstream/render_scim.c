/*
 * render_scim.c
 *	  The same records as SCIM 2.0 resources (RFC 7643): a user is about 700
 *	  bytes, with names, e-mails and groups nested.
 *
 * The work e-mail is the primary one, and comes second for every fifth user.
 */
#include "render.h"

#define USER_SCHEMA	 "urn:ietf:params:scim:schemas:core:2.0:User"
#define GROUP_SCHEMA "urn:ietf:params:scim:schemas:core:2.0:Group"
#define ENTERPRISE	 "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

static void
put_work_email(buf *b, const data_type *t, size_t number)
{
	buf_lit(b, "{\"value\":\"");
	render_email(b, t, number);
	buf_lit(b, "\",\"type\":\"work\",\"primary\":true}");
}

static void
put_home_email(buf *b, const data_type *t, size_t number)
{
	buf_lit(b, "{\"value\":\"");
	buf_str(b, t->name);
	buf_int(b, (int64_t) number);
	buf_lit(b, "@home.example\",\"type\":\"home\"}");
}

static void
put_emails(buf *b, const data_type *t, size_t number, const patch *p)
{
	if (render_patched(b, p, FIELD_EMAIL, "\"emails\":"))
		return;
	buf_lit(b, ",\"emails\":[");
	if (number % 5 == 0)
	{
		put_home_email(b, t, number);
		buf_char(b, ',');
	}
	put_work_email(b, t, number);
	if (number % 5 != 0)
	{
		buf_char(b, ',');
		put_home_email(b, t, number);
	}
	buf_char(b, ']');
}

static void
put_memberships(buf *b, const data_type *t, size_t number)
{
	const data_type *groups = data_find("group");
	size_t			 of[2];
	int				 n = render_groups(t, number, of);

	buf_lit(b, ",\"groups\":[");
	for (int i = 0; i < n; i++)
	{
		buf_str(b, i ? ",{\"value\":\"" : "{\"value\":\"");
		render_id(b, groups, of[i]);
		buf_lit(b, "\",\"type\":\"direct\"}");
	}
	buf_char(b, ']');
}

static void
put_meta(buf *b, const data_type *t, size_t number, const char *type)
{
	const record *r = &t->records[number - 1];

	buf_lit(b, ",\"meta\":{\"resourceType\":\"");
	buf_str(b, type);
	buf_lit(b, "\",\"lastModified\":\"");
	put_time(b, r->modified_at);
	buf_lit(b, "\",\"version\":\"W/\\\"");
	buf_int(b, 1 + r->version + r->name_version + r->email_version + r->group_version);
	buf_lit(b, "\\\"\"}");
}

static void
put_user(buf *b, const data_type *t, size_t number, const patch *p)
{
	uint64_t h = render_hash(t, number);

	buf_lit(b, ",\"userName\":\"");
	render_email(b, t, number);
	buf_lit(b, "\",\"name\":{\"givenName\":\"");
	render_name(b, t, number, NAME_GIVEN);
	buf_lit(b, "\",\"familyName\":\"");
	render_name(b, t, number, NAME_FAMILY);
	buf_lit(b, "\"},\"title\":\"Specialist ");
	buf_int(b, (int64_t) (1 + (h >> 16) % 9));
	buf_lit(b, "\",\"locale\":\"");
	buf_str(b, render_locale(t, number));
	buf_lit(b, "\",\"active\":");
	buf_str(b, t->records[number - 1].deleted ? "false" : "true");
	put_emails(b, t, number, p);
	put_memberships(b, t, number);
	buf_lit(b, ",\"" ENTERPRISE "\":{\"employeeNumber\":\"E");
	buf_pad_int(b, number, 7);
	buf_lit(b, "\",\"department\":\"");
	buf_str(b, render_department(t, number));
	buf_lit(b, "\"}");
}

void
render_scim(buf *b, const data_type *t, size_t number, const patch *p)
{
	const record *r = &t->records[number - 1];
	bool		  user = strcmp(t->name, "user") == 0;

	buf_room(b, 1536);
	if (p != NULL && p->whole != NULL)
	{
		buf_put(b, p->whole, p->whole_len);
		return;
	}
	if (r->whole != NULL)
	{
		buf_str(b, r->whole);
		return;
	}
	if (user)
		buf_lit(b, "{\"schemas\":[\"" USER_SCHEMA "\",\"" ENTERPRISE "\"]");
	else
		buf_lit(b, "{\"schemas\":[\"" GROUP_SCHEMA "\"]");
	if (!render_patched(b, p, FIELD_ID, "\"id\":"))
	{
		buf_lit(b, ",\"id\":\"");
		if (p != NULL && p->id_prefix != NULL)
			buf_str(b, p->id_prefix);
		render_id(b, t, number);
		buf_char(b, '"');
	}
	if (!render_patched(b, p, FIELD_NAME, "\"displayName\":"))
	{
		buf_lit(b, ",\"displayName\":\"");
		render_name(b, t, number, NAME_WHOLE);
		if (p != NULL && p->name_suffix != NULL)
			buf_put(b, p->name_suffix, p->name_suffix_len);
		buf_char(b, '"');
	}
	if (user)
		put_user(b, t, number, p);
	put_meta(b, t, number, user ? "User" : "Group");
	if (p != NULL && p->more != NULL)
		buf_put(b, p->more, p->more_len);
	buf_char(b, '}');
}

/* A record of the command protocol with the resource as its attributes. */
void
render_scim_command(buf *b, const data_type *t, size_t number, const patch *p)
{
	bool user = strcmp(t->name, "user") == 0;

	buf_lit(b, "{\"externalId\":\"");
	render_id(b, t, number);
	buf_lit(b, "\",\"displayName\":\"");
	render_name(b, t, number, NAME_WHOLE);
	buf_lit(b, "\",\"email\":");
	if (user)
	{
		buf_char(b, '"');
		render_email(b, t, number);
		buf_char(b, '"');
	}
	else
		buf_lit(b, "null");
	buf_lit(b, ",\"attributes\":");
	render_scim(b, t, number, p);
	buf_char(b, '}');
}
