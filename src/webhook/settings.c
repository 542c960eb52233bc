/*
 * settings.c
 *	  What a connector's config says of its webhooks: by which scheme they are
 *	  verified, and how the sender's body is read.
 *
 * _flohsync.check_webhook() (sql/75_webhook_scheme.sql) has checked it.  If it was stored in
 * another way, what makes no sense is a scheme that is none, which verifies nothing.
 */
#include "postgres.h"

#include "base/compat.h"

#include "base/flohsync.h"
#include "json/json.h"
#include "webhook/settings.h"
#include "webhook/webhook.h"

static Slice
settings_text(const JsonbValue *value)
{
	return value && value->type == jbvString ?
		(Slice){value->val.string.val, value->val.string.len} :
		(Slice){NULL};
}

/* webhook_settings reads the key "webhook" of a config; NULL: it has none. */
void
webhook_settings(Jsonb *webhook, WebhookSettings *settings)
{
	JsonbValue *header;
	JsonbValue *map;

	memset(settings, 0, sizeof(*settings));
	if (webhook == NULL)
		return;
	settings->scheme = webhook_scheme(settings_text(webhook_member(webhook, "scheme")));
	header = webhook_member(webhook, "header");
	settings->header = settings_text(header);
	map = webhook_member(webhook, "map");
	if (map && map->type == jbvBinary)
		settings->map = JsonbValueToJsonb(map);
	if ((header && settings->header.data == NULL) || (map && settings->map == NULL))
		settings->scheme = WEBHOOK_UNKNOWN_SCHEME;
}

/*
 * webhook_client_states is the secret that each notification of Microsoft
 * Graph carries, in the body, of which nothing is believed yet: an empty one where there is
 * none.  None at all: the body has no notifications, or too many.
 */
Slice *
webhook_client_states(Slice body, int *n)
{
	JsonParser	   *parser = json_parser_create_limited(WEBHOOK_MAX_BODY);
	const JsonNode *nodes;
	uint32			list;
	Slice		   *states;

	*n = 0;
	if (!json_parse(parser, body.data, body.len, FLOHSYNC_MAX_NESTING + 1))
		return NULL;
	nodes = parser->nodes;
	if (nodes[JSON_ROOT].type != JSON_OBJECT)
		return NULL;
	list = json_member(parser, JSON_ROOT, "value", 5);
	if (list == 0 || nodes[list].type != JSON_ARRAY || nodes[list].count > WEBHOOK_MAX_EVENTS)
		return NULL;
	states = palloc(sizeof(Slice) * Max(nodes[list].count, 1));
	for (uint32 i = nodes[list].child; i != 0; i = nodes[i].next)
	{
		uint32 state = nodes[i].type == JSON_OBJECT ? json_member(parser, i, "clientState", 11) : 0;
		char  *text = "";
		int	   len = 0;

		if (state != 0 && nodes[state].type == JSON_STRING)
		{
			text = palloc(nodes[state].end - nodes[state].start);
			len = json_string_decode(parser, &nodes[state], text);
		}
		states[(*n)++] = (Slice){text, len};
	}
	return states;
}
