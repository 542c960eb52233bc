/*
 * jsonb.h
 *	  A parsed text as jsonb.  See json/jsonb.c.
 */
#ifndef FLOHSYNC_JSON_JSONB_H
#define FLOHSYNC_JSON_JSONB_H

#include "utils/jsonb.h"

#include "json/json.h"

/*
 * json_to_jsonb returns what jsonb_in would of the same text (without a byte order
 * mark), in the current memory context.  The root must have none of JSON_F_BAD, the parser be of
 * json_parser_create_limited, and the text UTF-8.
 */
extern Jsonb *json_to_jsonb(const JsonParser *parser);

/* The same of one value of the tree, which must have none of JSON_F_BAD. */
extern Jsonb *json_node_to_jsonb(const JsonParser *parser, uint32 index);

#endif /* FLOHSYNC_JSON_JSONB_H */
