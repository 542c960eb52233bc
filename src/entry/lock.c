/*
 * lock.c
 *	  SQL-callable: locks of our own (db_lock.h), for functions of the extension.
 */
#include "postgres.h"

#include "base/compat.h"

#include "base/clean.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "base/db_lock.h"

static DbLock
lock_named(text *name)
{
	char  *text = text_to_cstring(name);
	DbLock lock;

	if (!db_lock_by_name(text, &lock))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lock \"%s\" does not exist", clean(text))));
	return lock;
}

PG_FUNCTION_INFO_V1(flohsync_lock);
PGDLLEXPORT Datum
flohsync_lock(PG_FUNCTION_ARGS)
{
	db_lock_wait(lock_named(PG_GETARG_TEXT_PP(0)),
				 db_lock_key(text_to_cstring(PG_GETARG_TEXT_PP(1))), PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(flohsync_try_lock);
PGDLLEXPORT Datum
flohsync_try_lock(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(db_lock_try(lock_named(PG_GETARG_TEXT_PP(0)),
							   db_lock_key(text_to_cstring(PG_GETARG_TEXT_PP(1))),
							   PG_GETARG_BOOL(2)));
}
