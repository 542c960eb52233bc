/*
 * value.c
 *	  Texts of values.
 */
#include "postgres.h"

#include "base/compat.h"

#include "json/value.h"

/*
 * json_value_text is a string's characters, or the literal of a number or boolean; palloc'd,
 * NULL for anything else.
 */
char *
json_value_text(const JsonParser *json, uint32 node)
{
	const JsonNode *value = &json->nodes[node];
	uint32			len = value->end - value->start;
	char		   *text;

	if (node == 0 || value->type == JSON_NULL || value->type == JSON_OBJECT ||
		value->type == JSON_ARRAY || (value->flags & JSON_F_BAD_ESCAPE))
		return NULL;
	text = palloc(len + 1);
	if (value->type == JSON_STRING)
		len = json_string_decode(json, value, text);
	else
		memcpy(text, json->text + value->start, len);
	text[len] = '\0';
	return text;
}

/* json_member_text is the same of a member of an object; NULL where there is none. */
char *
json_member_text(const JsonParser *json, uint32 object, const char *key)
{
	if (object == 0 || json->nodes[object].type != JSON_OBJECT)
		return NULL;
	return json_value_text(json, json_member(json, object, key, strlen(key)));
}
