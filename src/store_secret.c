/*
 * store_secret.c
 *	  Secrets of connectors: encrypted in their table, in clear in memory.
 *
 * What the table holds is nonce, AES-256-GCM ciphertext and tag.  The format's
 * number, the connector's id and the name are authenticated with it, so that a
 * row that was copied to another connector or name is none.  A clear text is
 * in no parameter and no column of a statement here.
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "crypto_key.h"
#include "db.h"
#include "store_secret.h"

#define SECRET_FORMAT		1

/* What is authenticated beside the text; palloc'ed. */
static unsigned char *
secret_context(int format, Datum connector, const char *name, size_t *len)
{
	size_t		n = strlen(name);
	unsigned char *bytes = palloc(1 + UUID_LEN + n);

	bytes[0] = format;
	memcpy(bytes + 1, DatumGetUUIDP(connector)->data, UUID_LEN);
	memcpy(bytes + 1 + UUID_LEN, name, n);
	*len = 1 + UUID_LEN + n;
	return bytes;
}

static Datum
secret_seal(const CryptoKey *key, Datum connector, const char *name, const char *value)
{
	size_t		aadlen;
	unsigned char *aad = secret_context(SECRET_FORMAT, connector, name, &aadlen);
	size_t		len = strlen(value);
	bytea	   *sealed = palloc(VARHDRSZ + len + CRYPTO_SEAL_BYTES);

	if (!crypto_seal(key->bytes, aad, aadlen, value, len, (unsigned char *) VARDATA(sealed)))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION), errmsg("OpenSSL could not encrypt the secret")));
	SET_VARSIZE(sealed, VARHDRSZ + len + CRYPTO_SEAL_BYTES);
	return PointerGetDatum(sealed);
}

/* Why there is no key of that id. */
static char *
secret_key_problem(const CryptoKeys *keys, const char *id)
{
	if (!keys->current.loaded)
		return pstrdup(keys->current.problem);
	return psprintf("its key is %s, that of flohsync.encryption_key_file is %s, and %s%s", id, keys->current.id,
					keys->previous.loaded ? "that of flohsync.encryption_key_file_previous is " : "",
					keys->previous.loaded ? keys->previous.id : keys->previous.problem);
}

/* Fills in value, or problem, of the secret that row of a result is. */
static void
secret_unseal(const CryptoKeys *keys, Datum connector, int format, const char *key_id, bytea *sealed,
			  SourceSecret *secret)
{
	const CryptoKey *key = keys->current.loaded && strcmp(keys->current.id, key_id) == 0 ? &keys->current :
		keys->previous.loaded && strcmp(keys->previous.id, key_id) == 0 ? &keys->previous : NULL;
	size_t		len = VARSIZE_ANY_EXHDR(sealed);
	size_t		aadlen;
	unsigned char *aad = secret_context(format, connector, secret->name, &aadlen);

	if (format != SECRET_FORMAT)
		secret->problem = psprintf("its format %d is of another version of flohsync", format);
	else if (key == NULL)
		secret->problem = secret_key_problem(keys, key_id);
	else
	{
		char	   *value = palloc0(Max(len, CRYPTO_SEAL_BYTES) - CRYPTO_SEAL_BYTES + 1);

		if (crypto_unseal(key->bytes, aad, aadlen, VARDATA_ANY(sealed), len, (unsigned char *) value))
			secret->value = value;
		else
			secret->problem = pstrdup("it was changed, or copied from another connector or name");
	}
	pfree(aad);
}

static void
secret_need_key(const CryptoKeys *keys)
{
	if (!keys->current.loaded)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("secrets cannot be encrypted: %s", keys->current.problem),
				 errhint("Write 64 hex digits to a file that only the server's user can read (openssl rand -hex 32), name it in flohsync.encryption_key_file and reload the configuration.")));
}

/* store_put_secret stores a secret; without a value it removes it. */
void
store_put_secret(Datum connector, const char *name, const char *value)
{
	static DbQuery remove = {
		"delete from _flohsync.connector_secret where connector_id = $1 and name = $2",
		2, {UUIDOID, TEXTOID}
	};
	static DbQuery put = {
		"insert into _flohsync.connector_secret (connector_id, name, format, key_id, ciphertext)"
		" values ($1, $2, $3, $4, $5)"
		" on conflict (connector_id, name) do update set format = excluded.format, key_id = excluded.key_id,"
		" ciphertext = excluded.ciphertext, updated_at = excluded.updated_at",
		5, {UUIDOID, TEXTOID, INT2OID, TEXTOID, BYTEAOID}
	};
	Datum		values[5] = {connector, CStringGetTextDatum(name)};
	CryptoKeys	keys;

	if (value == NULL)
	{
		db_execute(&remove, values, NULL);
		return;
	}
	crypto_keys_load(&keys);
	PG_TRY();
	{
		secret_need_key(&keys);
		values[2] = Int16GetDatum(SECRET_FORMAT);
		values[3] = CStringGetTextDatum(keys.current.id);
		values[4] = secret_seal(&keys.current, connector, name, value);
	}
	PG_FINALLY();
	{
		crypto_keys_wipe(&keys);
	}
	PG_END_TRY();
	db_execute(&put, values, NULL);
}

/* Secrets of a connector, from the n rows of a result, whose columns from first on are name, format, key_id and ciphertext. */
static SourceSecret *
secrets_of_rows(Datum connector, int n, int first, MemoryContext context)
{
	SourceSecret *secrets;
	MemoryContext old;
	CryptoKeys	keys;

	if (n == 0)
		return NULL;
	secrets = MemoryContextAllocZero(context, n * sizeof(SourceSecret));
	crypto_keys_load(&keys);
	PG_TRY();
	{
		old = MemoryContextSwitchTo(context);
		for (int i = 0; i < n; i++)
		{
			bool		isnull;

			secrets[i].name = db_text(i, first);
			secret_unseal(&keys, connector, (int) db_int64(i, first + 1, 0), db_text(i, first + 2),
						  DatumGetByteaPP(db_value(i, first + 3, &isnull)), &secrets[i]);
		}
		MemoryContextSwitchTo(old);
	}
	PG_FINALLY();
	{
		crypto_keys_wipe(&keys);
	}
	PG_END_TRY();
	return secrets;
}

/*
 * store_read_secrets gives a connector's secrets, or only one of them, in
 * memory of the context; the caller wipes them.  One that cannot be decrypted
 * has a problem instead of a value.
 */
SourceSecret *
store_read_secrets(Datum connector, const char *only, int *n, MemoryContext context)
{
	static DbQuery query = {
		"select name, format::int4, key_id, ciphertext from _flohsync.connector_secret"
		" where connector_id = $1 and name = coalesce($2, name) order by name",
		2, {UUIDOID, TEXTOID}
	};
	Datum		values[2] = {connector};

	if (only)
		values[1] = CStringGetTextDatum(only);
	*n = (int) db_execute(&query, values, only ? "  " : " n");
	return secrets_of_rows(connector, *n, 1, context);
}

/*
 * store_find_secrets does so for the connector of a name or an id: for who does
 * not know yet whether there is one.  Where there is none, another one's are
 * read and forgotten, for as much time as that takes.  id is what the name was
 * found to be, or NULL.
 */
SourceSecret *
store_find_secrets(Datum name, const pg_uuid_t *id, SecretOwner *owner, int *n)
{
	static DbQuery query = {
		"select d.id, d.enabled, d.name, d.name = $1 or d.id::pg_catalog.text = pg_catalog.lower($1),"
		" s.name, s.format::int4, s.key_id, s.ciphertext"
		" from flohsync.connector_definition d left join _flohsync.connector_secret s on s.connector_id = d.id"
		" where d.id = coalesce($2, (select n.id from flohsync.connector_definition n where n.id ="
		" case when $1 ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then $1::pg_catalog.uuid end),"
		" (select n.id from flohsync.connector_definition n order by n.id limit 1))",
		2, {TEXTOID, UUIDOID}, .by_index = true
	};
	Datum		values[2] = {name, id ? UUIDPGetDatum(id) : (Datum) 0};
	SourceSecret *secrets;
	bool		isnull;

	memset(owner, 0, sizeof(*owner));
	*n = (int) db_execute(&query, values, id ? NULL : " n");
	if (*n == 0)
		return NULL;
	owner->id = *DatumGetUUIDP(db_value(0, 1, &isnull));
	owner->enabled = db_bool(0, 2);
	owner->name = db_text(0, 3);
	owner->known = db_bool(0, 4);
	(void) db_value(0, 5, &isnull);
	if (isnull)
		*n = 0;
	secrets = secrets_of_rows(UUIDPGetDatum(&owner->id), *n, 5, CurrentMemoryContext);
	if (!owner->known)
	{
		source_wipe_secrets(secrets, *n);
		secrets = NULL;
		*n = 0;
	}
	return secrets;
}

/* store_rotate_secrets encrypts all secrets anew, with the current key; all or none. */
int64
store_rotate_secrets(void)
{
	static DbQuery query = {
		"select s.connector_id, s.name, s.format::int4, s.key_id, s.ciphertext, d.name"
		" from _flohsync.connector_secret s join flohsync.connector_definition d on d.id = s.connector_id"
		" order by s.connector_id, s.name for update of s", 0
	};
	static DbQuery put = {
		"update _flohsync.connector_secret set format = $3, key_id = $4, ciphertext = $5"
		" where connector_id = $1 and name = $2",
		5, {UUIDOID, TEXTOID, INT2OID, TEXTOID, BYTEAOID}
	};
	SourceSecret secret = {0};
	SPITupleTable *rows;
	int64		n;
	CryptoKeys	keys;

	n = (int64) db_execute(&query, NULL, NULL);
	rows = SPI_tuptable;
	crypto_keys_load(&keys);
	PG_TRY();
	{
		secret_need_key(&keys);
		for (int64 i = 0; i < n; i++)
		{
			bool		isnull;
			Datum		values[5];

			SPI_tuptable = rows;
			values[0] = db_value(i, 1, &isnull);
			secret.name = db_text(i, 2);
			secret.value = secret.problem = NULL;
			secret_unseal(&keys, values[0], (int) db_int64(i, 3, 0), db_text(i, 4),
						  DatumGetByteaPP(db_value(i, 5, &isnull)), &secret);
			if (secret.problem)
				ereport(ERROR,
						(errcode(ERRCODE_CONFIG_FILE_ERROR),
						 errmsg("secret \"%s\" of connector \"%s\" cannot be decrypted: %s",
								secret.name, db_text(i, 6), secret.problem),
						 errhint("Name the file of the key before in flohsync.encryption_key_file_previous, or store the secret again with flohsync.set_secret().")));
			values[1] = CStringGetTextDatum(secret.name);
			values[2] = Int16GetDatum(SECRET_FORMAT);
			values[3] = CStringGetTextDatum(keys.current.id);
			values[4] = secret_seal(&keys.current, values[0], secret.name, secret.value);
			source_wipe_secrets(&secret, 1);
			db_execute(&put, values, NULL);
		}
	}
	PG_FINALLY();
	{
		crypto_keys_wipe(&keys);
		source_wipe_secrets(&secret, 1);
	}
	PG_END_TRY();
	return n;
}
