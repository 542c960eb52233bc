/*
 * search_text.c
 *	  What texts are searched as: without case.
 *
 * Texts are folded by ICU's root locale where the server has ICU, else by the
 * locale of the database: so letters of all languages are folded, also in a
 * database of locale C, and I and i match in Turkish, too.  A final sigma
 * matches a sigma.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "utils/formatting.h"

#include "record/search.h"

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

void
search_fold(const char *text, size_t len, SearchText *folded)
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

void
search_free(SearchText *folded)
{
	if (folded->allocated)
		pfree(folded->allocated);
}

/* Is a folded text part of this one, when it is folded? */
bool
search_in(const text *value, const char *needle, size_t len)
{
	SearchText folded;
	bool	   found;

	search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
	found = memmem(folded.data, folded.len, needle, len) != NULL;
	search_free(&folded);
	return found;
}
