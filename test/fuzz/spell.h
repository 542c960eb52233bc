/*
 * spell.h
 *	  How texts may be written down by others: what redact.c has to find, told
 *	  from the other side.  Here spellings are made; there they are read.
 */
#ifndef FLOHSYNC_SPELL_H
#define FLOHSYNC_SPELL_H

#include "base/standalone.h"

#include "lib/stringinfo.h"

#include "net/crypto.h"

typedef enum Spelling
{
	SPELL_PLAIN,
	SPELL_JSON,
	SPELL_JSON_SLASH,
	SPELL_UNITS,
	SPELL_UNITS_UPPER,
	SPELL_JSON_TWICE,
	SPELL_UNITS_TWICE,
	SPELL_PERCENT,
	SPELL_PERCENT_ALL,
	SPELL_PERCENT_LOWER,
	SPELL_PERCENT_TWICE,
	SPELL_FORM,
	SPELL_HTML,
	SPELL_HTML_NUMBER,
	SPELL_HTML_HEX
} Spelling;

#define SPELLINGS (SPELL_HTML_HEX + 1)

/* The character at p, of valid UTF-8, and its length. */
static inline uint32
spell_char(const char *p, int *len)
{
	const unsigned char *u = (const unsigned char *) p;

	*len = *u < 0x80 ? 1 : *u < 0xE0 ? 2 : *u < 0xF0 ? 3 : 4;
	switch (*len)
	{
		case 1:
			return *u;
		case 2:
			return (u[0] & 0x1F) << 6 | (u[1] & 0x3F);
		case 3:
			return (u[0] & 0x0F) << 12 | (u[1] & 0x3F) << 6 | (u[2] & 0x3F);
		default:
			return (u[0] & 0x07) << 18 | (u[1] & 0x3F) << 12 | (u[2] & 0x3F) << 6 | (u[3] & 0x3F);
	}
}

static inline void
spell_units(StringInfo out, uint32 c, const char *format)
{
	if (c >= 0x10000)
	{
		appendStringInfo(out, format, 0xD800 + ((c - 0x10000) >> 10));
		appendStringInfo(out, format, 0xDC00 + ((c - 0x10000) & 0x3FF));
	}
	else
		appendStringInfo(out, format, c);
}

static inline void
spell_json(StringInfo out, const char *p, int len, uint32 c, bool slash)
{
	static const char letters[] = "btnfr";
	static const char meanings[] = "\b\t\n\f\r";
	const char		 *meaning = c < 0x20 ? strchr(meanings, c) : NULL;

	if (meaning && *meaning)
		appendStringInfo(out, "\\%c", letters[meaning - meanings]);
	else if (c < 0x20)
		spell_units(out, c, "\\u%04x");
	else
	{
		if (c == '"' || c == '\\' || (c == '/' && slash))
			appendStringInfoChar(out, '\\');
		appendBinaryStringInfo(out, p, len);
	}
}

/* Writes down one character. */
static inline void
spell_one(StringInfo out, const char *p, int len, uint32 c, Spelling how)
{
	static const char kept[] = "-._~";
	bool			  plain = (c < 0x80 && isalnum((int) c)) ||
		(c > 0 && c < 0x80 && strchr(kept, (int) c) != NULL);
	StringInfoData once;

	switch (how)
	{
		case SPELL_PLAIN:
			appendBinaryStringInfo(out, p, len);
			break;
		case SPELL_JSON:
		case SPELL_JSON_SLASH:
			spell_json(out, p, len, c, how == SPELL_JSON_SLASH);
			break;
		case SPELL_UNITS:
			spell_units(out, c, "\\u%04x");
			break;
		case SPELL_UNITS_UPPER:
			spell_units(out, c, "\\u%04X");
			break;
		case SPELL_UNITS_TWICE:
			spell_units(out, c, "\\\\u%04x");
			break;
		case SPELL_JSON_TWICE:
			initStringInfo(&once);
			spell_json(&once, p, len, c, false);
			for (int i = 0, n; i < once.len; i += n)
			{
				uint32 inner = spell_char(once.data + i, &n);

				spell_json(out, once.data + i, n, inner, false);
			}
			pfree(once.data);
			break;
		case SPELL_FORM:
		case SPELL_PERCENT:
		case SPELL_PERCENT_ALL:
		case SPELL_PERCENT_LOWER:
		case SPELL_PERCENT_TWICE:
			if (how == SPELL_FORM && c == ' ')
				appendStringInfoChar(out, '+');
			else if (plain && how != SPELL_PERCENT_ALL)
				appendBinaryStringInfo(out, p, len);
			else
				for (int i = 0; i < len; i++)
					appendStringInfo(out,
									 how == SPELL_PERCENT_LOWER		? "%%%02x" :
										 how == SPELL_PERCENT_TWICE ? "%%25%02X" :
																	  "%%%02X",
									 (unsigned char) p[i]);
			break;
		case SPELL_HTML:
			if (c == '&' || c == '<' || c == '>' || c == '"' || c == '\'')
				appendStringInfoString(out,
									   c == '&'		? "&amp;" :
										   c == '<' ? "&lt;" :
										   c == '>' ? "&gt;" :
										   c == '"' ? "&quot;" :
													  "&apos;");
			else
				appendBinaryStringInfo(out, p, len);
			break;
		case SPELL_HTML_NUMBER:
			appendStringInfo(out, "&#%u;", c);
			break;
		case SPELL_HTML_HEX:
			appendStringInfo(out, "&#x%X;", c);
			break;
	}
}

/* Writes down a text, of valid UTF-8. */
static inline void
spell(StringInfo out, const char *text, Spelling how)
{
	for (int len; *text; text += len)
	{
		uint32 c = spell_char(text, &len);

		spell_one(out, text, len, c, how);
	}
}

/* The characters of a text, each in all spellings. */
typedef struct SpellTable
{
	int	  n;
	char *forms[256][SPELLINGS];
	int	  lengths[256][SPELLINGS];
} SpellTable;

static inline void
spell_table(SpellTable *table, const char *text)
{
	table->n = 0;
	for (int len; *text && table->n < lengthof(table->forms); text += len, table->n++)
	{
		uint32 c = spell_char(text, &len);

		for (int how = 0; how < SPELLINGS; how++)
		{
			StringInfoData form;

			initStringInfo(&form);
			spell_one(&form, text, len, c, how);
			table->forms[table->n][how] = form.data;
			table->lengths[table->n][how] = form.len;
		}
	}
}

/*
 * Are its characters here from one on, each in any spelling, with any letters
 * for capitals?  *failed remembers where they are not: n + 1 bytes for each position.
 */
static inline bool
spell_is_here(const char *text, const char *end, const SpellTable *table, int from, char *failed)
{
	if (from == table->n)
		return true;
	if (failed[from])
		return false;
	for (int how = 0; how < SPELLINGS; how++)
	{
		int len = table->lengths[from][how];

		if (end - text >= len && pg_strncasecmp(text, table->forms[from][how], len) == 0 &&
			spell_is_here(text + len, end, table, from + 1, failed + (table->n + 1) * len))
			return true;
	}
	failed[from] = 1;
	return false;
}

/* Is a text, of 256 characters at most, anywhere in another? */
static inline bool
spell_is_in(const char *text, const char *secret)
{
	static SpellTable table;
	size_t			  len = strlen(text);
	char			 *failed;
	bool			  found = false;

	spell_table(&table, secret);
	failed = calloc(len + 1, table.n + 1);
	for (size_t i = 0; i < len && !found; i++)
		found = spell_is_here(text + i, text + len, &table, 0, failed + (table.n + 1) * i);
	free(failed);
	for (int i = 0; i < table.n; i++)
		for (int how = 0; how < SPELLINGS; how++)
			pfree(table.forms[i][how]);
	return found;
}

/* What of the base64 of a text with so many bytes before it is certain, whatever they are. */
static inline char *
spell_base64(const char *text, int before, CryptoBase64 kind)
{
	size_t len = strlen(text);
	char  *all = calloc(1, before + len + 1);
	char  *encoded = malloc(CRYPTO_BASE64_SIZE(before + len));
	size_t from = (before * 8 + 5) / 6;

	strcpy(all + before, text);
	crypto_base64_encode(kind, all, before + len, encoded);
	encoded[(before + len) * 8 / 6] = '\0';
	memmove(encoded, encoded + from, strlen(encoded + from) + 1);
	free(all);
	return encoded;
}

#endif /* FLOHSYNC_SPELL_H */
