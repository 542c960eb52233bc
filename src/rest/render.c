/*
 * render.c
 *	  Texts of a request: templates of a definition with their values, each encoded
 *	  for where it stands.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/time_text.h"
#include "json/value.h"
#include "net/crypto_memory.h"
#include "rest/render.h"

#define REQUEST_MAX_CONFIG (2000 * 4)

bool
request_plain(StringInfo out, const char *value)
{
	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
		if (*p < ' ' || *p == 0x7f)
			return false;
	appendStringInfoString(out, value);
	return true;
}

static bool
request_as_it_is(StringInfo out, const char *value)
{
	appendStringInfoString(out, value);
	return true;
}

bool
request_encoded(StringInfo out, const char *value)
{
	http_url_encode(out, value);
	return true;
}

/* A path as the definition has it: only what is not ASCII is encoded. */
bool
request_path_literal(StringInfo out, const char *value)
{
	for (const char *p = value; *p; p++)
	{
		char one[2] = {*p, '\0'};

		if ((unsigned char) *p >= 0x80)
			http_url_encode(out, one);
		else
			appendStringInfoChar(out, *p);
	}
	return true;
}

/* Seconds since 1970 of a time as _flohsync.iso writes it. */
static char *
request_epoch(const char *iso)
{
	TimestampTz at;

	return time_iso(iso, strlen(iso), &at) ? psprintf(INT64_FORMAT, TIME_UNIX(at)) : NULL;
}

static const char *
request_parent_value(RestState *state, const RestParent *parent, const char *name)
{
	if (parent == NULL)
		return NULL;
	if (strcmp(name, "external_id") == 0)
		return parent->external_id;
	if (strcmp(name, "display_name") == 0)
		return parent->display_name;
	if (strcmp(name, "email") == 0)
		return parent->email;
	if (strncmp(name, "attributes.", 11) != 0 || parent->attributes == NULL)
		return NULL;
	if (state->parent_parsed != parent)
	{
		state->parent_parsed = NULL;
		if (!json_parse(state->parent_json, parent->attributes, strlen(parent->attributes),
						FLOHSYNC_MAX_NESTING + 1))
			return NULL;
		state->parent_parsed = parent;
	}
	return json_member_text(state->parent_json, JSON_ROOT, name + 11);
}

static const char *
request_lookup(void *arg, const TemplatePiece *piece)
{
	RestState		 *state = arg;
	const SourceSpec *spec = &state->source->spec;
	const char		 *refused;

	CHECK_FOR_INTERRUPTS();
	switch (piece->type)
	{
		case TEMPLATE_CONFIG:
		{
			char *text = json_member_text(state->source->spec.config, JSON_ROOT, piece->text);

			/* A longer one was not let into the table. */
			return text && strlen(text) <= REQUEST_MAX_CONFIG ? text : NULL;
		}
		case TEMPLATE_SECRET:
			return source_secret(state->source, piece->text, &refused);
		case TEMPLATE_SINCE:
			return spec->modified_since;
		case TEMPLATE_SINCE_EPOCH:
			return spec->modified_since ? request_epoch(spec->modified_since) : NULL;
		case TEMPLATE_PARENT:
			return request_parent_value(state, rest_parent(state), piece->text);
		case TEMPLATE_EXTERNAL_ID:
			return state->external_id;
		default:
			return NULL;
	}
}

/* At most so many bytes a template's text has, however it is encoded. */
static size_t
request_room(RestState *state, const Template *t)
{
	size_t room = 1;

	for (int i = 0; i < t->npieces; i++)
	{
		const TemplatePiece *piece = &t->pieces[i];
		const char			*value = piece->type == TEMPLATE_LITERAL ? piece->text :
																	   request_lookup(state, piece);

		room += value ? 3 * strlen(value) : 0;
	}
	return room;
}

/*
 * Appends a template's text, which is all that comes: where a secret is in it,
 * it is wiped with the current memory context, and neither grows nor goes
 * before.  False, with the problem noted, when that cannot be done.
 */
bool
request_render(RestState *state, const Template *t, StringInfo out, TemplateEncoder literals,
			   TemplateEncoder values)
{
	const TemplatePiece *missing;
	const char			*refused;
	bool				 done;

	if (t->secret)
		enlargeStringInfo(out, (int) request_room(state, t));
	done = template_render(t, out, literals, values, request_lookup, state, &missing);
	if (t->secret)
		crypto_wipe_with(CurrentMemoryContext, out->data, out->len + 1);
	if (done)
		return true;
	if (missing->type == TEMPLATE_SECRET &&
		source_secret(state->source, missing->text, &refused) == NULL)
	{
		if (refused)
			rest_problem(state, ERRCLASS_CONFIGURATION, "%s", refused);
		else
			rest_problem(state, ERRCLASS_CONFIGURATION, "secret \"%s\" of the connector is not set",
						 missing->text);
	}
	else if (missing->type == TEMPLATE_CONFIG && request_lookup(state, missing) == NULL)
		rest_problem(state, ERRCLASS_CONFIGURATION,
					 "the connector's config has no \"%s\" that can be used", missing->text);
	else if (missing->type == TEMPLATE_PARENT && request_lookup(state, missing) == NULL)
	{
		rest_problem(state, ERRCLASS_CONFIGURATION, "the parent record has no %s", missing->text);
		state->problem.of_parent = true;
	}
	else if (missing->type == TEMPLATE_LITERAL || request_lookup(state, missing) == NULL)
		rest_problem(state, ERRCLASS_CONFIGURATION, "a placeholder of the definition has no value");
	else
		rest_problem(state, ERRCLASS_CONFIGURATION, "the value of \"%s\" holds control characters",
					 missing->text ? missing->text : "since");
	return false;
}

/* rest_render is a template's text, palloc'd; NULL with the problem noted when it has none. */
char *
rest_render(RestState *state, const Template *t, TemplateEncoder literals, TemplateEncoder values)
{
	StringInfoData out;

	initStringInfo(&out);
	return request_render(state, t, &out, literals, values) ? out.data : NULL;
}

char *
rest_render_plain(RestState *state, const Template *t)
{
	return rest_render(state, t, request_as_it_is, request_as_it_is);
}

/* rest_fixed_url is the text of base_url or token_url, checked, and as it is written. */
char *
rest_fixed_url(RestState *state, const Template *t)
{
	char	   *url = rest_render_plain(state, t);
	const char *problem;

	if (url == NULL)
		return NULL;
	problem = strlen(url) > FLOHSYNC_MAX_LINK_BYTES ? "it is too long" :
		strpbrk(url, "?#\\") ? "it must not have a query, a fragment or a backslash" :
							   http_url_problem(url);
	if (problem)
	{
		rest_problem(state, ERRCLASS_CONFIGURATION, "a URL of the definition cannot be used: %s",
					 problem);
		return NULL;
	}
	return url;
}

/* rest_base_url is the text of base_url, which a path follows. */
char *
rest_base_url(RestState *state, const Template *t)
{
	char *url = rest_fixed_url(state, t);

	for (size_t len = url ? strlen(url) : 0; len > 0 && url[len - 1] == '/';)
		url[--len] = '\0';
	return url;
}
