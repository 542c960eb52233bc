/*
 * json_room.h
 *	  The JSON parser of the extension, with all its memory taken beforehand.
 *	  See json_room.c.
 */
#ifndef FLOHSYNC_JSON_ROOM_H
#define FLOHSYNC_JSON_ROOM_H

#include "json/json.h"

/* For texts of at most max_len bytes and max_nodes values; NULL: no memory. */
extern JsonParser *json_room_create(size_t max_len, uint32_t max_nodes);
extern void		   json_room_free(JsonParser *parser);

/*
 * json_room_parse accepts what can be passed on to PostgreSQL as jsonb: valid UTF-8
 * without U+0000, without a byte order mark, with numbers and a depth in bounds.
 */
extern bool json_room_parse(JsonParser *parser, const char *text, size_t len, uint32_t max_depth);

/*
 * Does no object of the text name a member twice, or have more than max_members?  Each
 * name is compared with each other of its object.
 */
extern bool json_room_unique(const JsonParser *parser, uint32_t max_members);

/* The value of a member given by a C string; 0: it is absent, or object is none. */
extern uint32_t json_room_member(const JsonParser *parser, uint32_t object, const char *name);

/* The characters of a string, with a NUL behind them, in memory of malloc; NULL: no memory. */
extern char *json_room_string(const JsonParser *parser, uint32_t node, size_t *len);

/* Is a value a string with exactly these characters? */
extern bool json_room_is(const JsonParser *parser, uint32_t node, const char *value);

#endif /* FLOHSYNC_JSON_ROOM_H */
