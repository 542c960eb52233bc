/*
 * secret_store.c
 *	  Secrets of connectors: encrypted in their table, in clear in memory.
 *
 * What the table holds is nonce, AES-256-GCM ciphertext and tag.  With it are
 * authenticated the format's number, the connector's id and the name, and the
 * kind and the origins that the connector had when the secret was set: a row
 * that was copied to another connector or name, or whose origins were changed,
 * is none.  Kind and origins are null for what verifies webhooks.
 *
 * A clear text is in no parameter and no column of a statement here, and is
 * wiped with the memory context that it is in, if not before.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "net/crypto_key.h"
#include "net/crypto_memory.h"
#include "source/secret_store.h"

#define SECRET_UNBOUND_FORMAT 1 /* of old: bound to no origin */
#define SECRET_FORMAT		  2

/* What a secret belongs to, beside its connector. */
typedef struct SecretPlace
{
	const char *name;
	const char *kind; /* NULL, and no origins: it verifies webhooks */
	char	  **origins;
	int			norigins;
} SecretPlace;

static void
context_add(StringInfo out, const char *text)
{
	size_t len = text ? strlen(text) : 0;

	appendBinaryStringInfo(out, (char *) &(uint32){pg_hton32((uint32) len)}, sizeof(uint32));
	appendBinaryStringInfo(out, text ? text : "", len);
}

/* What is authenticated beside the text: each part with its length before it. */
static void
secret_context(StringInfo out, Datum connector, const SecretPlace *place)
{
	initStringInfo(out);
	appendStringInfoChar(out, SECRET_FORMAT);
	appendBinaryStringInfo(out, (char *) DatumGetUUIDP(connector)->data, UUID_LEN);
	context_add(out, place->name);
	context_add(out, place->kind);
	for (int i = 0; i < place->norigins; i++)
		context_add(out, place->origins[i]);
}

static Datum
secret_seal(const CryptoKey *key, Datum connector, const SecretPlace *place, const char *value)
{
	size_t		   len = strlen(value);
	bytea		  *sealed = palloc(VARHDRSZ + len + CRYPTO_SEAL_BYTES);
	StringInfoData context;

	secret_context(&context, connector, place);
	if (!crypto_seal(key->bytes, context.data, context.len, value, len,
					 (unsigned char *) VARDATA(sealed)))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("OpenSSL could not encrypt the secret")));
	SET_VARSIZE(sealed, VARHDRSZ + len + CRYPTO_SEAL_BYTES);
	pfree(context.data);
	return PointerGetDatum(sealed);
}

/* Why there is no key of that id. */
static char *
secret_key_problem(const CryptoKeys *keys, const char *id)
{
	if (!keys->current.loaded)
		return pstrdup(keys->current.problem);
	return psprintf("its key is %s, that of flohsync.encryption_key_file is %s, and %s%s", id,
					keys->current.id,
					keys->previous.loaded ? "that of flohsync.encryption_key_file_previous is " :
											"",
					keys->previous.loaded ? keys->previous.id : keys->previous.problem);
}

/* The columns that all statements here read, of an alias; SECRET_COLUMN_COUNT of them. */
#define SECRET_COLUMNS(s) \
	s ".name, " s ".format::int4, " s ".key_id, " s ".ciphertext, " s ".kind, " s ".origins"
#define SECRET_COLUMN_COUNT 6

/* Reads the origins of a row; false when they are not what is stored here. */
static bool
secret_origins(uint64 row, int column, SecretPlace *place)
{
	bool	   isnull;
	Datum	   value = db_value(row, column, &isnull);
	ArrayType *array;
	Datum	  *elements;
	bool	  *nulls;
	bool	   good = true;

	if (isnull)
		return true;
	array = DatumGetArrayTypeP(value);
	if (ARR_NDIM(array) > 1)
		return false;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &place->norigins);
	place->origins = palloc(sizeof(char *) * Max(place->norigins, 1));
	for (int i = 0; i < place->norigins; i++)
	{
		place->origins[i] = nulls[i] ? "" : TextDatumGetCString(elements[i]);
		good = good && !nulls[i];
	}
	return good;
}

/*
 * Decrypts the secret whose columns begin at first in a row of a result: place
 * is what it belongs to, secret gets its name, and a value or a problem.  All of
 * it is in the current memory context.
 */
static void
secret_read(const CryptoKeys *keys, Datum connector, uint64 row, int first, SecretPlace *place,
			SourceSecret *secret)
{
	int				 format = (int) db_int64(row, first + 1, 0);
	char			*key_id = db_text(row, first + 2);
	const CryptoKey *key = keys->current.loaded && strcmp(keys->current.id, key_id) == 0 ?
		&keys->current :
		keys->previous.loaded && strcmp(keys->previous.id, key_id) == 0 ? &keys->previous :
																		  NULL;
	bool			 isnull;
	bytea			*sealed = DatumGetByteaPP(db_value(row, first + 3, &isnull));
	size_t			 len = VARSIZE_ANY_EXHDR(sealed);
	StringInfoData	 context;

	memset(place, 0, sizeof(*place));
	place->name = secret->name = db_text(row, first);
	place->kind = db_text(row, first + 4);
	if (format == SECRET_UNBOUND_FORMAT)
		secret->problem =
			"it was stored by an earlier version of flohsync, without an origin: set it again with flohsync.set_secret()";
	else if (format != SECRET_FORMAT)
		secret->problem = psprintf("its format %d is of another version of flohsync", format);
	else if (key == NULL)
		secret->problem = secret_key_problem(keys, key_id);
	else
	{
		size_t room = Max(len, CRYPTO_SEAL_BYTES) - CRYPTO_SEAL_BYTES + 1;
		char  *value = palloc0(room);
		bool   good = secret_origins(row, first + 5, place);

		secret_context(&context, connector, place);
		crypto_wipe_with(CurrentMemoryContext, value, room);
		if (good &&
			crypto_unseal(key->bytes, context.data, context.len, VARDATA_ANY(sealed), len,
						  (unsigned char *) value))
			secret->value = value;
		else
			secret->problem = "it was changed, or copied from another connector, name or address";
		pfree(context.data);
	}
	secret->origins = place->origins;
	secret->norigins = place->norigins;
}

static void
secret_need_key(const CryptoKeys *keys)
{
	if (!keys->current.loaded)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("secrets cannot be encrypted: %s", keys->current.problem),
				 errhint(
					 "Write 64 hex digits to a file that only the server's user can read (openssl"
					 " rand -hex 32), name it in flohsync.encryption_key_file and reload the"
					 " configuration.")));
}

/* What a secret of that name of a connector, as it is now, belongs to. */
static void
secret_place(Datum connector, const char *name, SecretPlace *place)
{
	static DbQuery query = {
		"select d.kind, d.config::pg_catalog.text, d.definition::pg_catalog.text from"
		" flohsync.connector_definition d where d.id = $1",
		1,
		{UUIDOID}};

	memset(place, 0, sizeof(*place));
	place->name = name;
	if (source_is_webhook_secret(name) || db_execute(&query, &connector, NULL) == 0)
		return;
	place->kind = db_text(0, 1);
	place->norigins = source_origins(place->kind, db_text(0, 2), db_text(0, 3), &place->origins);
}

static Datum
secret_origin_array(const SecretPlace *place)
{
	Datum *elements = palloc(sizeof(Datum) * Max(place->norigins, 1));

	for (int i = 0; i < place->norigins; i++)
		elements[i] = CStringGetTextDatum(place->origins[i]);
	return PointerGetDatum(
		construct_array(elements, place->norigins, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * secrets_put stores a secret, for the address that the connector has now; without a value
 * it removes it.
 */
void
secrets_put(Datum connector, const char *name, const char *value)
{
	static DbQuery remove = {
		"delete from _flohsync.connector_secret where connector_id = $1 and name = $2",
		2,
		{UUIDOID, TEXTOID}};
	static DbQuery put = {
		"insert into _flohsync.connector_secret (connector_id, name, format, key_id,"
		" ciphertext, kind, origins)"
		" values ($1, $2, $3, $4, $5, $6, $7)"
		" on conflict (connector_id, name) do update set format = excluded.format, key_id ="
		" excluded.key_id,"
		" ciphertext = excluded.ciphertext, kind = excluded.kind, origins = excluded.origins,"
		" updated_at = excluded.updated_at",
		7,
		{UUIDOID, TEXTOID, INT2OID, TEXTOID, BYTEAOID, TEXTOID, TEXTARRAYOID}};
	Datum		values[7] = {connector, CStringGetTextDatum(name)};
	SecretPlace place;
	CryptoKeys	keys;

	if (value == NULL)
	{
		db_execute(&remove, values, NULL);
		return;
	}
	secret_place(connector, name, &place);
	crypto_keys_load(&keys);
	PG_TRY();
	{
		secret_need_key(&keys);
		values[2] = Int16GetDatum(SECRET_FORMAT);
		values[3] = CStringGetTextDatum(keys.current.id);
		values[4] = secret_seal(&keys.current, connector, &place, value);
	}
	PG_FINALLY();
	{
		crypto_keys_wipe(&keys);
	}
	PG_END_TRY();
	values[5] = place.kind ? CStringGetTextDatum(place.kind) : (Datum) 0;
	values[6] = secret_origin_array(&place);
	db_execute(&put, values, place.kind ? NULL : "     nn");
}

/*
 * Secrets of a connector, from the n rows of a result, whose columns from first on are
 * SECRET_COLUMNS.
 */
static SourceSecret *
secrets_of_rows(Datum connector, int n, int first, const SourceSpec *spec, MemoryContext context)
{
	SourceSecret *secrets;
	MemoryContext old;
	SecretPlace	  now = {0};
	CryptoKeys	  keys;

	if (n == 0)
		return NULL;
	secrets = MemoryContextAllocZero(context, n * sizeof(SourceSecret));
	if (spec)
		now.norigins = source_origins(spec->kind->name, spec->config->text, spec->definition,
									  &now.origins);
	crypto_keys_load(&keys);
	PG_TRY();
	{
		old = MemoryContextSwitchTo(context);
		for (int i = 0; i < n; i++)
		{
			SecretPlace place;

			secret_read(&keys, connector, i, first, &place, &secrets[i]);
			if (spec && secrets[i].problem == NULL)
				secrets[i].refused = source_secret_refused(place.name, place.kind, place.origins,
														   place.norigins, spec->kind->name,
														   now.origins, now.norigins);
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
 * secrets_read puts a connector's secrets into the spec of a source, in
 * memory of the context; who closes the source wipes them.  One that cannot be
 * decrypted has a problem instead of a value, and one that was set for another
 * kind or address is refused.
 */
void
secrets_read(Datum connector, SourceSpec *spec, MemoryContext context)
{
	static DbQuery query = {
		"select " SECRET_COLUMNS(
			"s") " from _flohsync.connector_secret s where s.connector_id = $1 order by s.name",
		1,
		{UUIDOID}};

	spec->nsecrets = (int) db_execute(&query, &connector, NULL);
	spec->secrets = secrets_of_rows(connector, spec->nsecrets, 1, spec, context);
}

/*
 * secrets_of_webhook gives those that verify webhooks, and no others, of the
 * connector of a name or an id: for who does not know yet whether there is one.
 * Where there is none, another one's are read and forgotten, for as much time as
 * that takes.  id is what the name was found to be, or NULL.  Wipe them.
 */
SourceSecret *
secrets_of_webhook(Datum name, const pg_uuid_t *id, SecretOwner *owner, int *n)
{
	static DbQuery query = {
		"select d.id, d.enabled, d.name, d.name = $1 or d.id::pg_catalog.text ="
		" pg_catalog.lower($1),"
		" case pg_catalog.jsonb_typeof(d.config -> 'webhook') when 'object' then"
		" d.config -> 'webhook' end,"
		" " SECRET_COLUMNS(
			"s") " from flohsync.connector_definition d left join _flohsync.connector_secret s"
				 " on s.connector_id = d.id"
				 " and s.name in ('" SOURCE_WEBHOOK_SECRET "', '" SOURCE_WEBHOOK_PREVIOUS "')"
				 " where d.id = coalesce($2, (select n.id from flohsync.connector_definition n"
				 " where n.id ="
				 " case when $1 ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then"
				 " $1::pg_catalog.uuid end),"
				 " (select n.id from flohsync.connector_definition n order by n.id limit 1))",
		2,
		{TEXTOID, UUIDOID},
		.plan_as = PLAN_BY_INDEX};
	Datum		  values[2] = {name, id ? UUIDPGetDatum(id) : (Datum) 0};
	SourceSecret *secrets;
	Datum		  webhook;
	bool		  isnull;

	memset(owner, 0, sizeof(*owner));
	*n = (int) db_execute(&query, values, id ? NULL : " n");
	if (*n == 0)
		return NULL;
	owner->id = *DatumGetUUIDP(db_value(0, 1, &isnull));
	owner->enabled = db_bool(0, 2);
	owner->name = db_text(0, 3);
	owner->known = db_bool(0, 4);
	webhook = db_value(0, 5, &isnull);
	owner->webhook = isnull ? NULL : DatumGetJsonbPCopy(webhook);
	(void) db_value(0, 6, &isnull);
	if (isnull)
		*n = 0;
	secrets = secrets_of_rows(UUIDPGetDatum(&owner->id), *n, 6, NULL, CurrentMemoryContext);
	if (!owner->known)
	{
		owner->webhook = NULL;
		source_wipe_secrets(secrets, *n);
		secrets = NULL;
		*n = 0;
	}
	return secrets;
}

/*
 * secrets_rotate re-encrypts all secrets with the current key; all or
 * none.  Each stays bound to what it was set for.
 */
int64
secrets_rotate(void)
{
	static DbQuery query = {
		"select " SECRET_COLUMNS(
			"s") ", s.connector_id, d.name"
				 " from _flohsync.connector_secret s join flohsync.connector_definition d on"
				 " d.id = s.connector_id"
				 " order by s.connector_id, s.name for update of s",
		0};
	static DbQuery put = {
		"update _flohsync.connector_secret set format = $3, key_id = $4, ciphertext = $5"
		" where connector_id = $1 and name = $2",
		5,
		{UUIDOID, TEXTOID, INT2OID, TEXTOID, BYTEAOID}};
	SPITupleTable *rows;
	int64		   n;
	CryptoKeys	   keys;

	n = (int64) db_execute(&query, NULL, NULL);
	rows = SPI_tuptable;
	crypto_keys_load(&keys);
	PG_TRY();
	{
		secret_need_key(&keys);
		for (int64 i = 0; i < n; i++)
		{
			SourceSecret secret = {0};
			SecretPlace	 place;
			bool		 isnull;
			Datum		 values[5];

			SPI_tuptable = rows;
			values[0] = db_value(i, SECRET_COLUMN_COUNT + 1, &isnull);
			secret_read(&keys, values[0], i, 1, &place, &secret);
			if (secret.problem)
				ereport(ERROR,
						(errcode(ERRCODE_CONFIG_FILE_ERROR),
						 errmsg("secret \"%s\" of connector \"%s\" cannot be decrypted: %s",
								secret.name, clean(db_text(i, SECRET_COLUMN_COUNT + 2)),
								secret.problem),
						 errhint("Set flohsync.encryption_key_file_previous to the file of the"
								 " previous key, or store the secret again with"
								 " flohsync.set_secret().")));
			values[1] = CStringGetTextDatum(secret.name);
			values[2] = Int16GetDatum(SECRET_FORMAT);
			values[3] = CStringGetTextDatum(keys.current.id);
			values[4] = secret_seal(&keys.current, values[0], &place, secret.value);
			source_wipe_secrets(&secret, 1);
			db_execute(&put, values, NULL);
		}
	}
	PG_FINALLY();
	{
		crypto_keys_wipe(&keys);
	}
	PG_END_TRY();
	return n;
}
