/*
 * jsonb_text.h
 *	  jsonb as text.  See jsonb_text.c.
 */
#ifndef FLOHSYNC_JSONB_TEXT_H
#define FLOHSYNC_JSONB_TEXT_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/*
 * jsonb_put_bytes appends bytes, mostly without a call; the text need not end in a zero byte then.
 */
static inline void
jsonb_put_bytes(StringInfo out, const char *bytes, int len)
{
	if (unlikely(out->maxlen - out->len <= len))
		enlargeStringInfo(out, len);
	memcpy(out->data + out->len, bytes, len);
	out->len += len;
}

extern void jsonb_put_string(StringInfo out, const char *text, int len);
extern void jsonb_put(StringInfo out, Jsonb *jsonb);

#endif /* FLOHSYNC_JSONB_TEXT_H */
