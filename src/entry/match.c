/*
 * match.c
 *	  SQL: what e-mail addresses and issuers are compared by.
 *
 * White space around is left out and ASCII letters are folded.  Nothing else
 * is: folding Unicode makes different mailboxes equal (a dotless i is no i).
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "utils/builtins.h"

static bool
match_is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

PG_FUNCTION_INFO_V1(flohsync_match_key);
PGDLLEXPORT Datum
flohsync_match_key(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);
	const char *p = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);
	text	   *key;
	char	   *out;

	while (len > 0 && match_is_space(p[len - 1]))
		len--;
	while (len > 0 && match_is_space(*p))
		p++, len--;
	if (len == 0)
		PG_RETURN_NULL();
	key = cstring_to_text_with_len(p, len);
	out = VARDATA(key);
	for (int i = 0; i < len; i++)
		if (out[i] >= 'A' && out[i] <= 'Z')
			out[i] += 'a' - 'A';
	PG_RETURN_TEXT_P(key);
}
