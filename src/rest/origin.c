/*
 * origin.c
 *	  Where a definition has requests go.  See source/origin.c.
 */
#include "postgres.h"

#include "json/value.h"
#include "rest/rest.h"

static const char *
origin_lookup(void *arg, const TemplatePiece *piece)
{
	return piece->type == TEMPLATE_CONFIG ? json_member_text(arg, JSON_ROOT, piece->text) : NULL;
}

static bool
origin_append(StringInfo out, const char *value)
{
	appendStringInfoString(out, value);
	return true;
}

/* Adds the origin of an address of a definition, filled in; NULL: it has none. */
static void
origin_add_template(OriginList *list, const char *text, const JsonParser *config)
{
	Template			*t = text ? template_parse(text) : NULL;
	const TemplatePiece *missing;
	StringInfoData		 url;

	if (t == NULL)
		return;
	initStringInfo(&url);
	if (template_render(t, &url, origin_append, origin_append, origin_lookup,
						unconstify(JsonParser *, config), &missing))
		source_add_url(list, url.data);
}

/* rest_origins adds where requests can go by a definition, also by one that was never checked. */
void
rest_origins(OriginList *list, const JsonParser *config, const char *definition)
{
	JsonParser	   *json = source_config(definition);
	const JsonNode *nodes;
	uint32			auth;
	uint32			http;
	uint32			hosts = 0;

	if (json == NULL)
		return;
	nodes = json->nodes;
	origin_add_template(list, json_member_text(json, JSON_ROOT, "base_url"), config);
	auth = json_member(json, JSON_ROOT, "auth", 4);
	origin_add_template(list, json_member_text(json, auth, "token_url"), config);
	/* Links may lead to these, and the credentials with them; see rest_follow(). */
	http = json_member(json, JSON_ROOT, "http", 4);
	if (http != 0 && nodes[http].type == JSON_OBJECT)
		hosts = json_member(json, http, "allow_hosts", 11);
	if (hosts == 0 || nodes[hosts].type != JSON_ARRAY)
		return;
	for (uint32 i = nodes[hosts].child; i != 0; i = nodes[i].next)
	{
		char *host = json_value_text(json, i);

		if (host)
			source_add_url(list, psprintf("https://%s", host));
	}
}
