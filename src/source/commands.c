/*
 * commands.c
 *	  The command protocol: what kind command sends, and a function of kind sql is
 *	  called with, and what comes back.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/json.h"

#include "base/flohsync.h"
#include "json/value.h"
#include "source/commands.h"

/* A verb and the type, with a capital; whatever the locale of the database is. */
static char *
command_name(const char *verb, const char *type, const char *ending)
{
	return psprintf("%s%c%s%s", verb, pg_ascii_toupper((unsigned char) type[0]),
					type[0] ? type + 1 : "", ending);
}

/* command_list_name is the command that lists a type: config.commandNames, else listX with an s. */
char *
command_list_name(const JsonParser *config, const char *type)
{
	uint32 names = json_member(config, JSON_ROOT, "commandNames", 12);
	char  *name = json_member_text(config, names, type);

	return name ? name : command_name("list", type, "s");
}

/*
 * command_get_name is the command for one record of a type, getX; NULL if config.commands
 * lacks it.
 */
char *
command_get_name(const JsonParser *config, const char *type)
{
	char		   *name = command_name("get", type, "");
	uint32			commands = json_member(config, JSON_ROOT, "commands", 8);
	const JsonNode *nodes = config->nodes;

	if (commands == 0)
		return name;
	if (nodes[commands].type != JSON_ARRAY)
		return NULL;
	for (uint32 i = nodes[commands].child; i != 0; i = nodes[i].next)
		if (nodes[i].type == JSON_STRING &&
			json_string_equals(config, &nodes[i], name, strlen(name)))
			return name;
	return NULL;
}

static void
command_member(StringInfo out, const char *key, const char *text)
{
	if (text == NULL)
		return;
	appendStringInfo(out, ",\"%s\":", key);
	escape_json(out, text);
}

/* command_list_request is the request of a page: absent keys are left out. */
char *
command_list_request(const SourceSpec *spec, const char *command, const char *cursor)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"command\":");
	escape_json(&out, command);
	command_member(&out, "cursor", cursor);
	appendStringInfo(&out, ",\"pageSize\":%d", spec->page_size);
	if (spec->filter)
		appendStringInfo(&out, ",\"filter\":%s", spec->filter);
	command_member(&out, "modifiedSince", spec->modified_since);
	appendStringInfoChar(&out, '}');
	return out.data;
}

/* command_get_request is the request for one record. */
char *
command_get_request(const char *command, const char *external_id)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"command\":");
	escape_json(&out, command);
	command_member(&out, "externalId", external_id);
	appendStringInfoChar(&out, '}');
	return out.data;
}

/*
 * command_none_found: is this the answer of somebody who knows the protocol and
 * not the record, rather than of a web server that does not know the address?
 */
bool
command_none_found(const Source *source, const SourceAnswer *answer)
{
	JsonParser *json;
	uint32		success;

	if (answer->len > FLOHSYNC_MAX_ERROR_BODY)
		return false;
	json = json_parser_create();
	json->memory = source->memory;
	if (!json_parse(json, answer->body, answer->len, FLOHSYNC_MAX_NESTING) ||
		json->nodes[JSON_ROOT].type != JSON_OBJECT)
		return false;
	success = json_member(json, JSON_ROOT, "success", 7);
	return success != 0 && json->nodes[success].type == JSON_FALSE;
}

/* command_read makes a page of an answer. */
bool
command_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	const char *problem = NULL;
	bool good = answer->one ? page_parse_one(parser, answer->body, answer->len, page, &problem) :
							  page_parse(parser, answer->body, answer->len, page, &problem);

	if (!good)
	{
		source_fail(source, answer, page->too_large ? ERRCLASS_TOO_LARGE : ERRCLASS_PROTOCOL,
					"upstream's answer cannot be read: %s", problem);
		if (page->too_large)
			return false;
		source_show(source, answer);
		/* A cut or garbled answer; maybe the next one is whole. */
		answer->retryable = true;
		return false;
	}
	if (page->success)
		return true;
	source_fail(source, answer, ERRCLASS_UPSTREAM, "upstream reported an error: %s",
				page->upstream_error);
	if (page->unexplained)
		source_show(source, answer);
	answer->cursor_refused = true;
	return false;
}
