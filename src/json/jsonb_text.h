/*
 * jsonb_text.h
 *	  jsonb as text.  See jsonb_text.c.
 */
#ifndef FLOHSYNC_JSONB_TEXT_H
#define FLOHSYNC_JSONB_TEXT_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

extern void jsonb_put_string(StringInfo out, const char *text, int len);
extern void jsonb_put(StringInfo out, Jsonb *jsonb);

#endif /* FLOHSYNC_JSONB_TEXT_H */
