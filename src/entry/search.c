/*
 * search.c
 *	  SQL-callable: folding of the texts that list_resources and list_matches search.
 *
 * Searches ignore case.  Texts are folded by ICU's root locale where the server
 * has ICU, else by the locale of the database: so letters of all languages are
 * folded, also in a database of locale C, and I and i match in Turkish, too.
 * A final sigma matches a sigma.
 *
 * The result of folding is stored in indexes (enable_search), so it must be
 * immutable: a change of folding here requires new indexes.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_opclass.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/run_as.h"

/* Between the texts of one record. */
#define SEARCH_SEPARATOR '\n'

#define SEARCH_ON_STACK 1024

typedef struct Folded
{
	const char *data;
	size_t		len;
	char	   *allocated; /* to be freed, or NULL */
	char		buffer[SEARCH_ON_STACK];
} Folded;

static Oid
search_collation(void)
{
	static Oid collation = InvalidOid;

	if (!OidIsValid(collation))
	{
		collation = get_collation_oid(list_make2(makeString("pg_catalog"), makeString("und-x-icu")),
									  true);
		if (!OidIsValid(collation))
			collation = DEFAULT_COLLATION_OID;
	}
	return collation;
}

static void
search_fold(const char *text, size_t len, Folded *folded)
{
	char *p;

	folded->allocated = NULL;
	folded->len = len;
	if (len <= SEARCH_ON_STACK)
	{
		unsigned char seen = 0;

		for (size_t i = 0; i < len; i++)
		{
			unsigned char c = text[i];

			seen |= c;
			folded->buffer[i] = c + ((unsigned char) (c - 'A') < 26 ? 'a' - 'A' : 0);
		}
		folded->data = folded->buffer;
		if (seen < 0x80)
			return;
	}
	folded->allocated = str_tolower(text, len, search_collation());
	folded->len = strlen(folded->allocated);
	folded->data = folded->allocated;
	for (p = folded->allocated; (p = strstr(p, "\xCF\x82")) != NULL; p += 2)
		p[1] = '\x83';
}

static void
search_free(Folded *folded)
{
	if (folded->allocated)
		pfree(folded->allocated);
}

PG_FUNCTION_INFO_V1(flohsync_search_fold);
PGDLLEXPORT Datum
flohsync_search_fold(PG_FUNCTION_ARGS)
{
	text  *value = PG_GETARG_TEXT_PP(0);
	Folded folded;
	text  *result;

	search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
	result = cstring_to_text_with_len(folded.data, folded.len);
	search_free(&folded);
	PG_RETURN_TEXT_P(result);
}

/* The texts that are there, folded, one after the other. */
PG_FUNCTION_INFO_V1(flohsync_search_text);
PGDLLEXPORT Datum
flohsync_search_text(PG_FUNCTION_ARGS)
{
	Folded folded[3];
	size_t len = 0;
	text  *result;
	char  *out;

	for (int i = 0; i < lengthof(folded); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		else
		{
			text *value = PG_GETARG_TEXT_PP(i);

			search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded[i]);
			len += folded[i].len + 1;
		}
	}
	result = palloc(VARHDRSZ + len);
	out = VARDATA(result);
	for (int i = 0; i < lengthof(folded); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		memcpy(out, folded[i].data, folded[i].len);
		out += folded[i].len;
		*out++ = SEARCH_SEPARATOR;
		search_free(&folded[i]);
	}
	SET_VARSIZE(result, VARHDRSZ + len);
	PG_RETURN_TEXT_P(result);
}

/* Is a folded text part of one of the others? */
PG_FUNCTION_INFO_V1(flohsync_search_found);
PGDLLEXPORT Datum
flohsync_search_found(PG_FUNCTION_ARGS)
{
	text *needle;
	bool  found = false;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	needle = PG_GETARG_TEXT_PP(0);
	for (int i = 1; i < PG_NARGS() && !found; i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		else
		{
			text  *value = PG_GETARG_TEXT_PP(i);
			Folded folded;

			search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
			found = memmem(folded.data, folded.len, VARDATA_ANY(needle),
						   VARSIZE_ANY_EXHDR(needle)) != NULL;
			search_free(&folded);
		}
	}
	PG_RETURN_BOOL(found);
}

/*
 * flohsync_make_search_indexes makes the indexes of enable_search(), as the
 * superuser: to make an index takes CREATE on the schema of its table, and USAGE
 * on that of its operator class, and the owner of our tables is not given
 * either.  Nothing in the statements comes from anybody but the name of the
 * operator class; what they evaluate runs as the owner of the tables.
 */
PG_FUNCTION_INFO_V1(flohsync_make_search_indexes);
PGDLLEXPORT Datum
flohsync_make_search_indexes(PG_FUNCTION_ARGS)
{
	static const char *const tables[][2] = {
		{"resource_record", "external_id, email, display_name"},
		{"connector_sync_match", "external_id, external_email, external_display_name"},
	};
	Oid				opclass = PG_GETARG_OID(0);
	HeapTuple		tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(opclass));
	Form_pg_opclass form;
	char		   *name;
	RunAs			saved;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("operator class with OID %u does not exist", opclass)));
	form = (Form_pg_opclass) GETSTRUCT(tuple);
	if (form->opcmethod != GIN_AM_OID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("operator class with OID %u does not belong to access method gin",
						opclass)));
	name = quote_qualified_identifier(get_namespace_name(form->opcnamespace),
									  NameStr(form->opcname));
	ReleaseSysCache(tuple);

	SPI_connect();
	run_as_begin(&saved, BOOTSTRAP_SUPERUSERID);
	for (int i = 0; i < lengthof(tables); i++)
	{
		char *sql = psprintf("create index if not exists %s_search on flohsync.%s using gin"
							 " (_flohsync.search_text(%s) %s) with (gin_pending_list_limit = 1024)",
							 tables[i][0], tables[i][0], tables[i][1], name);
		int	  rc = SPI_execute(sql, false, 0);

		if (rc != SPI_OK_UTILITY)
			elog(ERROR, "could not create the index of table \"%s\": %s", tables[i][0],
				 SPI_result_code_string(rc));
	}
	run_as_end(&saved);
	SPI_finish();
	PG_RETURN_VOID();
}
