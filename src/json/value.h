/*
 * value.h
 *	  Texts of values.  See json/value.c.
 */
#ifndef FLOHSYNC_JSON_VALUE_H
#define FLOHSYNC_JSON_VALUE_H

#include "json/json.h"

extern char *json_value_text(const JsonParser *json, uint32 node);
extern char *json_member_text(const JsonParser *json, uint32 object, const char *key);

#endif /* FLOHSYNC_JSON_VALUE_H */
