/*
 * search_text.c
 *	  What texts are searched as: without case.
 *
 * Texts are folded by ICU's root locale where the server has ICU, else by the
 * locale of the database: so letters of all languages are folded, also in a
 * database of locale C, and I and i match in Turkish, too.  A final sigma
 * matches a sigma.
 *
 * Most texts are of ASCII, and a search looks at a hundred thousand of them: the texts of
 * a record are laid one behind the other, with a zero byte after each, which no text and no
 * needle has.  So one pass folds all of them, and one looks for the needle, in blocks of
 * SEARCH_BLOCK bytes for which compilers have instructions.  What is longer than the room
 * for it, or has a letter beyond ASCII, is folded and searched text by text.
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

/* Folds the bytes of ASCII, in whole blocks; returns the bits that any byte has. */
static unsigned char
search_fold_ascii(char *text, size_t len)
{
	unsigned char *block = (unsigned char *) text;
	unsigned char  seen[SEARCH_BLOCK] = {0};
	unsigned char  all = 0;

	for (unsigned char *end = block + len; block < end; block += SEARCH_BLOCK)
		for (int i = 0; i < SEARCH_BLOCK; i++)
		{
			seen[i] |= block[i];
			block[i] += (unsigned char) (block[i] - 'A') < 26 ? 'a' - 'A' : 0;
		}
	for (int i = 0; i < SEARCH_BLOCK; i++)
		all |= seen[i];
	return all;
}

void
search_fold(const char *text, size_t len, SearchText *folded)
{
	char *p;

	folded->allocated = NULL;
	folded->len = len;
	if (len <= SEARCH_ON_STACK)
	{
		memcpy(folded->buffer, text, len);
		memset(folded->buffer + len, 0, SEARCH_BLOCK);
		folded->data = folded->buffer;
		if (search_fold_ascii(folded->buffer, len) < 0x80)
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
static bool
search_in(const text *value, const char *needle, size_t len)
{
	SearchText folded;
	bool	   found;

	search_fold(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &folded);
	found = memmem(folded.data, folded.len, needle, len) != NULL;
	search_free(&folded);
	return found;
}

/*
 * Is a needle part of a text?  It is looked at more closely where its first and its last byte
 * are.  Behind the text are zero bytes for so long as the needle is, and a block.
 */
static bool
search_in_blocks(const char *text, size_t len, const char *needle, size_t needle_len)
{
	const char	first = needle[0];
	const char	last = needle[needle_len - 1];
	const char *end = text + len;

	for (; text < end; text += SEARCH_BLOCK)
	{
		const char	 *behind = text + needle_len - 1;
		unsigned char same[SEARCH_BLOCK];
		uint64		  any[SEARCH_BLOCK / sizeof(uint64)];

		for (int i = 0; i < SEARCH_BLOCK; i++)
			same[i] = (text[i] == first) & (behind[i] == last);
		memcpy(any, same, SEARCH_BLOCK);
		if ((any[0] | any[1]) == 0)
			continue;
		for (int i = 0; i < SEARCH_BLOCK; i++)
			if (same[i] && memcmp(text + i, needle, needle_len) == 0)
				return true;
	}
	return false;
}

/* Is a folded text part of one of these, when they are folded? */
bool
search_in_any(const text *const *values, int n, const text *needle)
{
	const char *wanted = VARDATA_ANY(needle);
	size_t		wanted_len = VARSIZE_ANY_EXHDR(needle);
	char		all[SEARCH_ON_STACK + SEARCH_BLOCK];
	size_t		len = 0;

	if (wanted_len == 0)
		return n > 0;
	for (int i = 0; i < n; i++)
	{
		size_t value_len = VARSIZE_ANY_EXHDR(values[i]);

		if (len + value_len + wanted_len >= SEARCH_ON_STACK)
			goto one_by_one;
		memcpy(all + len, VARDATA_ANY(values[i]), value_len);
		len += value_len;
		all[len++] = '\0';
	}
	if (len == 0)
		return false;
	memset(all + len, 0, wanted_len + SEARCH_BLOCK);
	if (search_fold_ascii(all, len) < 0x80)
		return search_in_blocks(all, len, wanted, wanted_len);

one_by_one:
	for (int i = 0; i < n; i++)
		if (search_in(values[i], wanted, wanted_len))
			return true;
	return false;
}
