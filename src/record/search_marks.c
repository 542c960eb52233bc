/*
 * search_marks.c
 *	  What trigrams say nothing of: one or two characters, in texts and in what is
 *	  searched for.
 *
 * Most places where two letters follow each other are found by the trigrams that
 * begin with them: there are not many (search_candidates.c asks for all of them).
 * It does not work where a letter beyond ASCII is next to them, as trigrams with it
 * are digests, nor for signs, of which there are no trigrams.  Just these places have
 * marks, which the second index of enable_search() holds: of one character, or of two
 * in a row.  Texts of ASCII mostly have none.
 *
 * What has neither are the signs that nearly all records have (SIGN_COMMON), where
 * they stand alone.
 *
 * Marks are stored: a change here requires new indexes.
 */
#include "postgres.h"

#include "base/compat.h"

#include "mb/pg_wchar.h"

#include "record/search.h"

typedef enum CharKind
{
	LETTER,		 /* or digit, of ASCII: trigrams have it as it is */
	SIGN_COMMON, /* neither, of ASCII: where it is, a word ends for trigrams */
	SIGN_RARE,
	FOREIGN /* beyond ASCII */
} CharKind;

typedef struct SearchChar
{
	uint32	 code; /* its bytes */
	CharKind kind;
} SearchChar;

/* Around a text: nothing that a letter belongs to a word with. */
#define BORDER_BEFORE 1
#define BORDER_BEHIND 2
static const SearchChar border = {0, SIGN_COMMON};

static CharKind
char_kind(unsigned char c)
{
	if (c >= 0x80)
		return FOREIGN;
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
		return LETTER;
	return c == ' ' || c == '-' || c == '.' || c == '@' || c == '_' ? SIGN_COMMON : SIGN_RARE;
}

/* The characters of a folded text; chars has room for len, and the borders. */
static int
chars_of(const char *text, size_t len, SearchChar *chars)
{
	const char *end = text + len;
	int			n = 0;

	chars[n++] = border;
	while (text < end)
	{
		int size = (unsigned char) *text < 0x80 ? 1 : Min(pg_mblen(text), end - text);

		chars[n].code = 0;
		for (int i = 0; i < size; i++)
			chars[n].code = chars[n].code << 8 | (unsigned char) text[i];
		chars[n++].kind = char_kind(*text);
		text += size;
	}
	chars[n] = chars[n + 1] = border;
	return n - BORDER_BEFORE;
}

/* Does it have a mark wherever it is? */
static bool
char_is_marked(const SearchChar *c)
{
	return c->kind >= SIGN_RARE || c->code == '_';
}

static bool
pair_is_marked(const SearchChar *c)
{
	return c[0].kind >= SIGN_RARE || c[1].kind >= SIGN_RARE ||
		(c[0].kind == SIGN_COMMON && c[1].kind == SIGN_COMMON);
}

/* Do trigrams not tell of a letter here? */
static bool
char_is_untold(const SearchChar *c)
{
	if (c->kind != LETTER)
		return false;
	if (c[1].kind == LETTER)
		return c[2].kind == FOREIGN;
	return c[1].kind == FOREIGN || c[-1].kind == FOREIGN;
}

/* Of a letter behind a sign, what tells is that a word begins with it. */
static bool
pair_is_untold(const SearchChar *c)
{
	if (c[0].kind != LETTER)
		return false;
	if (c[1].kind == LETTER)
		return c[2].kind == FOREIGN;
	return c[-1].kind == FOREIGN;
}

static int32
mark_of(uint32 first, uint32 second)
{
	uint32 mark = first * 0x9E3779B1U ^ second * 0x85EBCA77U;

	return (int32) (mark ^ mark >> 15);
}

/* Nothing but letters and signs that are common, none of these next to another. */
static bool
text_is_plain(const char *text, size_t len)
{
	CharKind before = LETTER;

	for (size_t i = 0; i < len; i++)
	{
		CharKind kind = char_kind(text[i]);

		if (kind > SIGN_COMMON || text[i] == '_' || (kind == SIGN_COMMON && before == SIGN_COMMON))
			return false;
		before = kind;
	}
	return true;
}

/* The marks of a folded text; there are up to SEARCH_MARKS(len) of them, some more than once. */
int
search_marks(const char *text, size_t len, int32 *marks)
{
	SearchChar *chars;
	int			n;
	int			count = 0;

	if (text_is_plain(text, len))
		return 0;
	chars = palloc(sizeof(SearchChar) * (len + BORDER_BEFORE + BORDER_BEHIND));
	n = chars_of(text, len, chars);
	for (int i = 0; i < n; i++)
	{
		const SearchChar *c = &chars[BORDER_BEFORE + i];

		if (char_is_marked(c) || char_is_untold(c))
			marks[count++] = mark_of(c->code, 0);
		if (i + 1 < n && (pair_is_marked(c) || pair_is_untold(c)))
			marks[count++] = mark_of(c[0].code, c[1].code);
	}
	pfree(chars);
	return count;
}

/*
 * search_needle reads what is searched for.  All rows that have it have the marks; if it is of
 * letters that trigrams tell of, those that have it but not the mark have one of the trigrams.
 */
void
search_needle(const text *folded, SearchNeedle *needle)
{
	int			len = VARSIZE_ANY_EXHDR(folded);
	SearchChar *chars = palloc(sizeof(SearchChar) * (len + BORDER_BEFORE + BORDER_BEHIND));
	SearchChar *first = chars + BORDER_BEFORE;
	int			n = chars_of(VARDATA_ANY(folded), len, chars);

	needle->length = n;
	needle->marks = palloc(sizeof(int32) * SEARCH_MARKS(len));
	needle->nmarks = 0;
	needle->kind = NEEDLE_NONE;
	/* That is between the texts of a record, and in none of them. */
	if (memchr(VARDATA_ANY(folded), SEARCH_SEPARATOR, len) != NULL)
		return;
	for (int i = 0; i < n; i++)
	{
		if (char_is_marked(&first[i]))
			needle->marks[needle->nmarks++] = mark_of(first[i].code, 0);
		if (i + 1 < n && pair_is_marked(&first[i]))
			needle->marks[needle->nmarks++] = mark_of(first[i].code, first[i + 1].code);
	}
	if (needle->nmarks > 0)
		needle->kind = NEEDLE_MARKS;
	else if (n > 2)
		needle->kind = NEEDLE_TRIGRAMS;
	else if (n == 2)
	{
		needle->kind = first[0].kind == SIGN_COMMON ? NEEDLE_SIGN_LETTER :
			first[1].kind == SIGN_COMMON			? NEEDLE_LETTER_SIGN :
													  NEEDLE_LETTERS;
		needle->marks[needle->nmarks++] = mark_of(first[0].code, first[1].code);
	}
	else if (n == 1 && first[0].kind == LETTER)
	{
		needle->kind = NEEDLE_LETTER;
		needle->marks[needle->nmarks++] = mark_of(first[0].code, 0);
	}
	for (int i = 0; i < 2; i++)
		needle->letter[i] = i < n ? (char) first[i].code : '\0';
	pfree(chars);
}
