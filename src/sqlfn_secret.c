/*
 * sqlfn_secret.c
 *	  SQL-callable: storing, reading and rotating secrets.
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "crypto.h"
#include "db.h"
#include "hooks_log.h"
#include "store_secret.h"

#define SECRET_MAX_BYTES	65536
#define SECRET_MAX_NAME		64

/* Messages never say what they were given: the arguments may be in the wrong order. */
static void
secret_check_name(const char *name)
{
	size_t		n = strlen(name);

	if (n == 0 || n > SECRET_MAX_NAME || !((name[0] | 32) >= 'a' && (name[0] | 32) <= 'z') ||
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"name\": it is not the name of a secret"),
				 errhint("A name is a letter followed by at most 63 letters, digits, \"_\", \".\" or \"-\".")));
}

PG_FUNCTION_INFO_V1(flohsync_set_secret);
PGDLLEXPORT Datum
flohsync_set_secret(PG_FUNCTION_ARGS)
{
	static DbQuery find = {"select _flohsync.connector_id($1)", 1, {TEXTOID}};
	Datum		v;
	char	   *name;
	char	   *value = NULL;
	bool		isnull;

	hooks_hide_statement();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"%s\": it must not be null", PG_ARGISNULL(0) ? "connector" : "name")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	secret_check_name(name);
	if (!PG_ARGISNULL(2))
	{
		text	   *given = PG_GETARG_TEXT_PP(2);

		if (VARSIZE_ANY_EXHDR(given) == 0 || VARSIZE_ANY_EXHDR(given) > SECRET_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for \"value\": it must have 1 to %d bytes", SECRET_MAX_BYTES),
					 errhint("A null value removes a secret.")));
		value = text_to_cstring(given);
	}
	SPI_connect();
	v = PG_GETARG_DATUM(0);
	db_execute(&find, &v, NULL);
	v = db_value(0, 1, &isnull);
	store_put_secret(v, name, value);
	SPI_finish();
	if (value)
		crypto_wipe(value, strlen(value));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(flohsync_secret);
PGDLLEXPORT Datum
flohsync_secret(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	MemoryContext caller = CurrentMemoryContext;
	SourceSecret *secrets;
	text	   *value = NULL;
	int			n;

	SPI_connect();
	secrets = store_read_secrets(PG_GETARG_DATUM(0), name, &n, caller);
	SPI_finish();
	if (n == 0)
		PG_RETURN_NULL();
	if (secrets[0].value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("secret \"%s\" cannot be decrypted: %s", secrets[0].name, secrets[0].problem)));
	value = cstring_to_text(secrets[0].value);
	source_wipe_secrets(secrets, n);
	PG_RETURN_TEXT_P(value);
}

PG_FUNCTION_INFO_V1(flohsync_rotate_secrets);
PGDLLEXPORT Datum
flohsync_rotate_secrets(PG_FUNCTION_ARGS)
{
	int64		n;

	SPI_connect();
	n = store_rotate_secrets();
	SPI_finish();
	PG_RETURN_INT64(n);
}
