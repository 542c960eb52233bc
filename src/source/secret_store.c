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

#include <ctype.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/clean.h"
#include "base/db.h"
#include "base/flohsync.h"
#include "base/look.h"
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

/* A row of the table. */
typedef struct SealedSecret
{
	char  *name;
	int	   format;
	char  *key_id;
	bytea *sealed;
	char  *kind;	/* NULL: none */
	Datum  origins; /* text[]; 0: none */
} SealedSecret;

/* The secret whose columns begin at first in a row of a result. */
static void
secret_of_row(uint64 row, int first, SealedSecret *s)
{
	bool  isnull;
	Datum origins;

	s->name = db_text(row, first);
	s->format = (int) db_int64(row, first + 1, 0);
	s->key_id = db_text(row, first + 2);
	s->sealed = DatumGetByteaPP(db_value(row, first + 3, &isnull));
	s->kind = db_text(row, first + 4);
	origins = db_value(row, first + 5, &isnull);
	s->origins = isnull ? (Datum) 0 : origins;
}

/* Takes the origins apart; false when they are not what is stored here. */
static bool
secret_origins(Datum value, SecretPlace *place)
{
	ArrayType *array;
	Datum	  *elements;
	bool	  *nulls;
	bool	   good = true;

	if (DatumGetPointer(value) == NULL)
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
 * Decrypts a secret: place is what it belongs to, secret gets its name, and a value or a
 * problem.  All of it is in the current memory context.
 */
static void
secret_read(const CryptoKeys *keys, Datum connector, const SealedSecret *s, SecretPlace *place,
			SourceSecret *secret)
{
	const CryptoKey *key = keys->current.loaded && strcmp(keys->current.id, s->key_id) == 0 ?
		&keys->current :
		keys->previous.loaded && strcmp(keys->previous.id, s->key_id) == 0 ? &keys->previous :
																			 NULL;
	size_t			 len = VARSIZE_ANY_EXHDR(s->sealed);
	StringInfoData	 context;

	memset(place, 0, sizeof(*place));
	place->name = secret->name = pstrdup(s->name);
	place->kind = s->kind ? pstrdup(s->kind) : NULL;
	if (s->format == SECRET_UNBOUND_FORMAT)
		secret->problem =
			"it was stored by an earlier version of flohsync, without an origin: set it again with flohsync.set_secret()";
	else if (s->format != SECRET_FORMAT)
		secret->problem = psprintf("its format %d is of another version of flohsync", s->format);
	else if (key == NULL)
		secret->problem = secret_key_problem(keys, s->key_id);
	else
	{
		size_t room = Max(len, CRYPTO_SEAL_BYTES) - CRYPTO_SEAL_BYTES + 1;
		char  *value = palloc0(room);
		bool   good = secret_origins(s->origins, place);

		secret_context(&context, connector, place);
		crypto_wipe_with(CurrentMemoryContext, value, room);
		if (good &&
			crypto_unseal(key->bytes, context.data, context.len, VARDATA_ANY(s->sealed), len,
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

/* Some secrets of a connector, decrypted in memory of a context. */
static SourceSecret *
secrets_unseal(Datum connector, const SealedSecret *sealed, int n, const SourceSpec *spec,
			   MemoryContext context)
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

			secret_read(&keys, connector, &sealed[i], &place, &secrets[i]);
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

	SealedSecret *sealed;

	spec->nsecrets = (int) db_execute(&query, &connector, NULL);
	sealed = palloc(sizeof(SealedSecret) * Max(spec->nsecrets, 1));
	for (int i = 0; i < spec->nsecrets; i++)
		secret_of_row(i, 1, &sealed[i]);
	spec->secrets = secrets_unseal(connector, sealed, spec->nsecrets, spec, context);
}

/* Is it the text of an id? */
static bool
secret_is_id(const char *text)
{
	static const char form[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";

	for (size_t i = 0; i < sizeof(form); i++)
		if (form[i] == 'h' ? !isxdigit((unsigned char) text[i]) : text[i] != form[i])
			return false;
	return true;
}

static Oid
secret_index(const char *name)
{
	return look_relation(FLOHSYNC_SCHEMA, name);
}

/*
 * Finds the row of the connector of a name or an id, and else that of another one; false: there
 * is none at all.  Close the look in any case.
 */
static bool
secret_find_owner(Look *look, Snapshot snapshot, Oid table, const text *name, bool *known)
{
	char	   *text = text_to_cstring(name);
	ScanKeyData key;
	pg_uuid_t  *id;

	*known = true;
	look_open(look, table, secret_index("connector_definition_name_key"), snapshot, 1);
	look_text_key(&key, look, 1, PointerGetDatum(name));
	index_rescan(look->scan, &key, 1, NULL, 0);
	if (look_next(look))
		return true;
	look_close(look);
	if (secret_is_id(text))
	{
		id = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text)));
		look_open(look, table, secret_index("connector_definition_pkey"), snapshot, 1);
		look_uuid_key(&key, 1, id);
		index_rescan(look->scan, &key, 1, NULL, 0);
		if (look_next(look))
			return true;
		look_close(look);
	}
	*known = false;
	look_open(look, table, secret_index("connector_definition_pkey"), snapshot, 0);
	index_rescan(look->scan, NULL, 0, NULL, 0);
	return look_next(look);
}

static Datum
secret_value(Look *look, const char *column, bool *isnull)
{
	return look_value(look, get_attnum(RelationGetRelid(look->table), column), isnull);
}

static char *
secret_text(Look *look, const char *column)
{
	bool  isnull;
	Datum value = secret_value(look, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static void
secret_read_owner(Look *look, SecretOwner *owner)
{
	bool		isnull;
	Jsonb	   *config = DatumGetJsonbP(secret_value(look, "config", &isnull));
	JsonbValue *webhook = getKeyJsonValueFromContainer(&config->root, "webhook", strlen("webhook"),
													   NULL);

	owner->id = *DatumGetUUIDP(secret_value(look, "id", &isnull));
	owner->enabled = DatumGetBool(secret_value(look, "enabled", &isnull));
	owner->name = secret_text(look, "name");
	if (webhook && webhook->type == jbvBinary && JsonContainerIsObject(webhook->val.binary.data))
		owner->webhook = JsonbValueToJsonb(webhook);
}

/* Finds those that verify webhooks; returns how many. */
static int
secrets_find(const pg_uuid_t *connector, Snapshot snapshot, SealedSecret *sealed)
{
	static const char *const names[] = {SOURCE_WEBHOOK_SECRET, SOURCE_WEBHOOK_PREVIOUS};
	Oid						 table = look_relation(FLOHSYNC_INTERNAL_SCHEMA, "connector_secret");
	Look					 look;
	int						 n = 0;

	look_may_read(table);
	look_open(&look, table, look_relation(FLOHSYNC_INTERNAL_SCHEMA, "connector_secret_pkey"),
			  snapshot, 2);
	for (size_t i = 0; i < lengthof(names); i++)
	{
		ScanKeyData	  keys[2];
		SealedSecret *s = &sealed[n];
		bool		  isnull;
		Datum		  origins;

		look_uuid_key(&keys[0], 1, connector);
		look_text_key(&keys[1], &look, 2, CStringGetTextDatum(names[i]));
		index_rescan(look.scan, keys, 2, NULL, 0);
		if (!look_next(&look))
			continue;
		s->name = secret_text(&look, "name");
		s->format = DatumGetInt16(secret_value(&look, "format", &isnull));
		s->key_id = secret_text(&look, "key_id");
		s->sealed = DatumGetByteaPCopy(secret_value(&look, "ciphertext", &isnull));
		s->kind = secret_text(&look, "kind");
		origins = secret_value(&look, "origins", &isnull);
		s->origins = isnull ? (Datum) 0 : PointerGetDatum(DatumGetArrayTypePCopy(origins));
		n++;
	}
	look_close(&look);
	return n;
}

/*
 * secrets_of_webhook gives those that verify webhooks, and no others, of the
 * connector of a name or an id: for who does not know yet whether there is one.
 * Where there is none, another one's are read and forgotten, for as much time as
 * that takes.  Wipe them.
 */
SourceSecret *
secrets_of_webhook(const text *name, SecretOwner *owner, int *n)
{
	Oid			  table = look_relation(FLOHSYNC_SCHEMA, "connector_definition");
	SealedSecret  sealed[2];
	SourceSecret *secrets = NULL;
	Snapshot	  snapshot;
	Look		  look;

	memset(owner, 0, sizeof(*owner));
	*n = 0;
	look_may_read(table);
	/* What the transaction itself wrote, and what others committed until now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	if (secret_find_owner(&look, snapshot, table, name, &owner->known))
	{
		secret_read_owner(&look, owner);
		*n = secrets_find(&owner->id, snapshot, sealed);
		secrets = secrets_unseal(UUIDPGetDatum(&owner->id), sealed, *n, NULL, CurrentMemoryContext);
	}
	look_close(&look);
	UnregisterSnapshot(snapshot);
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
			SealedSecret sealed;
			SecretPlace	 place;
			bool		 isnull;
			Datum		 values[5];

			SPI_tuptable = rows;
			values[0] = db_value(i, SECRET_COLUMN_COUNT + 1, &isnull);
			secret_of_row(i, 1, &sealed);
			secret_read(&keys, values[0], &sealed, &place, &secret);
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
