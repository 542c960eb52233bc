/*
 * json.h
 *	  A JSON parser that keeps its tree in an arena which is reused from page
 *	  to page.  See json.c.
 */
#ifndef FLOHSYNC_JSON_H
#define FLOHSYNC_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

typedef enum JsonType
{
	JSON_NULL, JSON_TRUE, JSON_FALSE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT
} JsonType;

/* A node refers to bytes of the parsed text; the text must outlive the tree. */
typedef struct JsonNode
{
	uint32_t	start;			/* first byte of the value in the text (of the opening quote for strings) */
	uint32_t	end;			/* one past its last byte */
	uint32_t	next;			/* index of the next sibling, 0 at the end */
	uint32_t	child;			/* first child; members of an object alternate key node, value node */
	uint32_t	count;			/* array elements or object members */
	uint8_t		type;			/* JsonType */
	uint8_t		flags;			/* JSON_F_* */
} JsonNode;

#define JSON_F_ESCAPED		0x01	/* string holds backslash escapes */
#define JSON_F_NON_ASCII	0x02	/* string holds bytes >= 0x80 */
#define JSON_F_BAD_ESCAPE	0x04	/* string holds \u0000 or a lone surrogate */
/* JSON_F_BAD_* of a value are or-ed into every container around it. */
#define JSON_F_BAD_NUMBER	0x08	/* exponent or length of a number out of bounds */
#define JSON_F_BAD_DEPTH	0x10	/* nesting was over max_depth here; the inner value was skipped, has no children */

#endif							/* FLOHSYNC_JSON_H */
