/*
 * json_text.h
 *	  Reading small pieces of JSON, with the parser of src/json.  See json_text.c.
 */
#ifndef GATEWAY_JSON_TEXT_H
#define GATEWAY_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "json/json.h"

#define JSON_DEPTH 64

/* The parser of the program; what it has parsed last is valid until the next time. */
extern JsonParser *json_read(const char *text, size_t n);

/* Calls for each member, of strings, of the objects of an array; false for anything else. */
typedef void (*JsonPair)(void *arg, const char *name, size_t name_n, const char *value,
						 size_t value_n);
extern bool json_pairs(const char *text, size_t n, JsonPair call, void *arg);

/* A member that is a string, decoded; NULL when there is none. The caller frees it. */
extern char *json_text_member(const JsonParser *p, uint32_t object, const char *name);
/* The characters of a string node; NULL if they are no text. */
extern char *json_text_of(const JsonParser *p, uint32_t node, size_t *n);
/* A member that is a whole number; false when there is none. */
extern bool json_number_member(const JsonParser *p, uint32_t object, const char *name,
							   long long *number);

#endif /* GATEWAY_JSON_TEXT_H */
