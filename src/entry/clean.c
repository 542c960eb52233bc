/*
 * clean.c
 *	  SQL-callable: clean.c, for messages that SQL functions put together.
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/clean.h"

PG_FUNCTION_INFO_V1(flohsync_clean);
PGDLLEXPORT Datum
flohsync_clean(PG_FUNCTION_ARGS)
{
	text *value = PG_GETARG_TEXT_PP(0);

	PG_RETURN_TEXT_P(
		cstring_to_text(clean_text(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), CLEAN_MAX)));
}
