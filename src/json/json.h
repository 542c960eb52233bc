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

#include "base/hex.h"

typedef enum JsonType
{
	JSON_NULL,
	JSON_TRUE,
	JSON_FALSE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT
} JsonType;

/* A node refers to bytes of the parsed text; the text must outlive the tree. */
typedef struct JsonNode
{
	uint32_t start; /* first byte of the value in the text (of the opening quote for strings) */
	uint32_t end;	/* one past its last byte */
	uint32_t next;	/* index of the next sibling, 0 at the end */
	uint32_t child; /* first child; members of an object alternate key node, value node */
	uint32_t count; /* array elements or object members */
	uint8_t	 type;	/* JsonType */
	uint8_t	 flags; /* JSON_F_* */
} JsonNode;

#define JSON_F_ESCAPED	  0x01 /* string holds backslash escapes */
#define JSON_F_NON_ASCII  0x02 /* string holds bytes >= 0x80 */
#define JSON_F_BAD_ESCAPE 0x04 /* string holds \u0000 or a lone surrogate */
/* JSON_F_BAD_* of a value are or-ed into every container around it. */
#define JSON_F_BAD_NUMBER 0x08 /* exponent or length of a number out of bounds */
#define JSON_F_BAD_DEPTH \
	0x10 /* nesting was over max_depth here; the inner value was skipped, has no children */
#define JSON_F_REWRITE 0x20 /* the bytes may differ from the canonical form; or-ed upwards too */

#define JSON_F_TAKEN 0x40 /* an object that json_parser_expect took: it has no children */

#define JSON_F_BAD (JSON_F_BAD_ESCAPE | JSON_F_BAD_NUMBER | JSON_F_BAD_DEPTH)

#define JSON_ROOT 1 /* index of the root node; nodes[0] stands for "none" */

/*
 * The limits may be set between creation and use.  Everything else is
 * written by json_parse; nodes may move with each call of it.
 */
typedef struct JsonParser
{
	const char				 *text;
	uint32_t				  len;
	uint32_t				  nnodes;
	JsonNode				 *nodes;
	uint32_t				  capacity;
	uint32_t				  max_nodes;		 /* more values than this are a fault of the text */
	uint32_t				  max_number_length; /* a longer literal is JSON_F_BAD_NUMBER */
	int32_t					  max_exponent; /* so is one with a greater adjusted decimal exponent */
	const char				 *error;		/* static text, NULL after success */
	size_t					  error_offset;
	uint8_t					 *brackets; /* bit stack of skipped containers */
	size_t					  brackets_size;
	struct MemoryContextData *context;
	struct PageMemory		 *memory; /* that the arena is counted in; NULL: in none */
	/* see json_parser_expect */
	uint32_t (*expect)(void *arg, const char *text, const char *end);
	void	*expect_arg;
	uint32_t expect_depth;
} JsonParser;

/* Made in the current memory context, where the arena will live, too. */
extern JsonParser *json_parser_create(void);

/* The same, for what jsonb will hold: numbers that would take it long are JSON_F_BAD_NUMBER. */
extern JsonParser *json_parser_create_limited(uint32_t max_nodes);

/*
 * json_parse reads one JSON text.  The root is at depth 1; containers deeper
 * than max_depth are checked, not stored.  Returns false with error and
 * error_offset set when the bytes are not JSON.
 */
extern bool json_parse(JsonParser *parser, const char *text, size_t len, uint32_t max_depth);

/*
 * json_parser_expect has the parser ask about each object in an array so deep (the root is
 * at depth 1) whether it is one that the caller knows: expect returns the length of its
 * text, of which it is sure that it is JSON without any fault, or 0.  NULL: ask no more.
 */
extern void json_parser_expect(JsonParser *parser, uint32_t depth,
							   uint32_t (*expect)(void *arg, const char *text, const char *end),
							   void *arg);

/* json_parser_trim gives memory back when the arena holds more than keep nodes. */
extern void json_parser_trim(JsonParser *parser, uint32_t keep);

/*
 * json_string_decode writes the characters of a string node, at most
 * end - start - 2 bytes, and returns their number.  What no UTF-8 text may
 * hold (\u0000, lone surrogates) becomes U+FFFD.
 */
extern uint32_t json_string_decode(const JsonParser *parser, const JsonNode *node, char *out);

extern bool json_string_equals(const JsonParser *parser, const JsonNode *node, const char *value,
							   uint32_t len);

/* json_member returns the value of a key, the last one if it comes twice; 0 when absent. */
extern uint32_t json_member(const JsonParser *parser, uint32_t object, const char *key,
							uint32_t len);

/*
 * json_weight is about how much memory jsonb_in, or json_to_jsonb, needs for a
 * value, and how deep it is nested (depth may be NULL).  A few bytes of JSON may
 * need hundreds; a text of n bytes weighs no more than n * JSON_MOST_WEIGHT.
 */
#define JSON_MOST_WEIGHT 256

extern size_t json_weight(const JsonParser *parser, uint32_t node, uint32_t *depth);

/* What says no and yes, see json/text.c. */
extern bool json_says_no(const JsonParser *parser, uint32_t node);
extern bool json_says_yes(const JsonParser *parser, uint32_t node);

/* json_is_integer: a number literal of digits alone, perhaps with a minus sign. */
extern bool json_is_integer(const JsonParser *parser, const JsonNode *node);

/* The code unit of the four hex digits at p, or -1. */
static inline int
json_hex4(const unsigned char *p)
{
	int unit = 0;

	for (int i = 0; i < 4; i++)
	{
		int digit = hex_digit(p[i]);

		if (digit < 0)
			return -1;
		unit = unit << 4 | digit;
	}
	return unit;
}

#endif /* FLOHSYNC_JSON_H */
