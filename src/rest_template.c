/*
 * rest_template.c
 *	  Texts with placeholders: {{config.x}}, {{since|epoch}} and so on.
 *
 * A value that is put in is never looked at for placeholders again.
 */
#ifdef FLOHSYNC_STANDALONE
#include "shim.h"
#else
#include "postgres.h"
#endif

#include "rest_template.h"

static char *
template_copy(const char *data, size_t len)
{
	char	   *copy = palloc(len + 1);

	memcpy(copy, data, len);
	copy[len] = '\0';
	return copy;
}

static bool
template_piece(RestPiece *piece, const char *name, size_t len)
{
	static const struct
	{
		const char *word;
		RestPieceType type;
		bool		named;
	}			words[] = {
		{"config.", REST_CONFIG, true}, {"secret.", REST_SECRET, true}, {"parent.", REST_PARENT, true},
		{"since", REST_SINCE, false}, {"since|epoch", REST_SINCE_EPOCH, false},
		{"external_id", REST_EXTERNAL_ID, false},
	};

	for (size_t i = 0; i < lengthof(words); i++)
	{
		size_t		n = strlen(words[i].word);

		if (len < n || memcmp(name, words[i].word, n) != 0 || (words[i].named ? len == n : len != n))
			continue;
		piece->type = words[i].type;
		piece->text = template_copy(name + n, len - n);
		return true;
	}
	return false;
}

/* rest_template_parse returns NULL for a text whose placeholders are not what they should be. */
RestTemplate *
rest_template_parse(const char *text)
{
	RestTemplate *t = palloc0(sizeof(RestTemplate));
	int			room = 1;

	for (const char *p = text; (p = strstr(p, "{{")) != NULL; p += 2)
		room += 2;
	t->pieces = palloc0(sizeof(RestPiece) * room);
	while (*text)
	{
		const char *open = strstr(text, "{{");
		const char *close;

		if (open != text)
		{
			size_t		len = open ? open - text : strlen(text);

			t->pieces[t->npieces].type = REST_LITERAL;
			t->pieces[t->npieces++].text = template_copy(text, len);
			text += len;
			continue;
		}
		close = strstr(open, "}}");
		if (close == NULL || !template_piece(&t->pieces[t->npieces], open + 2, close - open - 2))
			return NULL;
		if (t->pieces[t->npieces].type == REST_SECRET)
			t->secret = true;
		t->npieces++;
		text = close + 2;
	}
	return t;
}

/* rest_template_render appends the text; false when a value is missing, or cannot stand there. */
bool
rest_template_render(const RestTemplate *t, StringInfo out, RestEncoder literals, RestEncoder values,
					 RestLookup lookup, void *arg, const RestPiece **missing)
{
	for (int i = 0; i < t->npieces; i++)
	{
		const RestPiece *piece = &t->pieces[i];
		const char *value = piece->type == REST_LITERAL ? piece->text : lookup(arg, piece);

		if (value == NULL || !(piece->type == REST_LITERAL ? literals : values) (out, value))
		{
			*missing = piece;
			return false;
		}
	}
	return true;
}
