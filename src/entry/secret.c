/*
 * secret.c
 *	  SQL-callable: storing and rotating secrets.  None gives one out.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "base/db.h"
#include "base/table_check.h"
#include "net/crypto.h"
#include "record/changes.h"
#include "server/hooks_log.h"
#include "source/secret_store.h"

#define SECRET_MAX_BYTES 65536
#define SECRET_MAX_NAME	 64

/* Messages never say what they were given: the arguments may be in the wrong order. */
static void
secret_check_name(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > SECRET_MAX_NAME || !((name[0] | 32) >= 'a' && (name[0] | 32) <= 'z') ||
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != n)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for \"name\": it is not a valid name of a secret"),
			 errhint(
				 "A name is a letter followed by at most 63 letters, digits, \"_\", \".\" or \"-\".")));
}

static void
secret_store(Datum connector, const char *name, const char *value)
{
	static DbQuery find = {
		"select d.id from flohsync.connector_definition d where d.name = $1 or d.id = case"
		" when $1 ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then $1::pg_catalog.uuid end"
		" order by d.name <> $1 limit 1",
		1,
		{TEXTOID}};
	static DbQuery remark = {"select _flohsync.remark_secret($1, $2)", 2, {UUIDOID, TEXTOID}};
	bool		   isnull;
	Datum		   id;

	SPI_connect();
	if (db_execute(&find, &connector, NULL) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("connector does not exist"),
			 errdetail("The given value is not shown, since it may be the secret."),
			 errhint(
				 "flohsync.set_secret() takes the connector, the name of the secret, and its value, in this order.")));
	id = SPI_datumTransfer(db_value(0, 1, &isnull), false, UUID_LEN);
	changes_hold_connector(id);
	secrets_put(id, name, value);
	if (value)
	{
		Datum v[2] = {id, CStringGetTextDatum(name)};

		db_execute(&remark, v, NULL);
	}
	SPI_finish();
}

/*
 * Stores a value; what is made of it here is wiped on every way out.  What the
 * caller has of it (the statement, a constant of a plan, a parameter) is theirs.
 */
static void
secret_store_text(Datum connector, const char *name, Datum value)
{
	text  *given = DatumGetTextPP(value);
	size_t len = VARSIZE_ANY_EXHDR(given);
	char *volatile clear = NULL;

	PG_TRY();
	{
		if (len == 0 || len > SECRET_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for \"value\": it must have 1 to %d bytes",
							SECRET_MAX_BYTES),
					 errhint("A null value removes a secret.")));
		clear = text_to_cstring(given);
		secret_store(connector, name, clear);
	}
	PG_FINALLY();
	{
		if (clear)
			crypto_wipe(clear, len);
		/* A copy, where it was compressed or kept elsewhere. */
		if ((Pointer) given != DatumGetPointer(value))
			crypto_wipe(VARDATA_ANY(given), len);
	}
	PG_END_TRY();
}

PG_FUNCTION_INFO_V1(flohsync_set_secret);
PGDLLEXPORT Datum
flohsync_set_secret(PG_FUNCTION_ARGS)
{
	char *name;

	hooks_hide_statement();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"%s\": it must not be null",
						PG_ARGISNULL(0) ? "connector" : "name")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	secret_check_name(name);
	if (PG_ARGISNULL(2))
		secret_store(PG_GETARG_DATUM(0), name, NULL);
	else
		secret_store_text(PG_GETARG_DATUM(0), name, PG_GETARG_DATUM(2));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(flohsync_rotate_secrets);
PGDLLEXPORT Datum
flohsync_rotate_secrets(PG_FUNCTION_ARGS)
{
	int64 n;

	/* A secret that is hidden would be lost with the old key. */
	table_check(InvalidOid);
	SPI_connect();
	n = secrets_rotate();
	SPI_finish();
	PG_RETURN_INT64(n);
}
