/*
 * template.c
 *	  Texts with placeholders: {{config.x}}, {{since|epoch}} and so on.
 *
 * A value that is put in is never looked at for placeholders again.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "source/template.h"

static char *
template_copy(const char *data, size_t len)
{
	char *copy = palloc(len + 1);

	memcpy(copy, data, len);
	copy[len] = '\0';
	return copy;
}

static bool
template_piece(TemplatePiece *piece, const char *name, size_t len)
{
	static const struct
	{
		const char		 *word;
		TemplatePieceType type;
		bool			  named;
	} words[] = {
		{"config.", TEMPLATE_CONFIG, true},			  {"secret.", TEMPLATE_SECRET, true},
		{"parent.", TEMPLATE_PARENT, true},			  {"since", TEMPLATE_SINCE, false},
		{"since|epoch", TEMPLATE_SINCE_EPOCH, false}, {"external_id", TEMPLATE_EXTERNAL_ID, false},
	};

	for (size_t i = 0; i < lengthof(words); i++)
	{
		size_t n = strlen(words[i].word);

		if (len < n || memcmp(name, words[i].word, n) != 0 ||
			(words[i].named ? len == n : len != n))
			continue;
		piece->type = words[i].type;
		piece->text = template_copy(name + n, len - n);
		return true;
	}
	return false;
}

/* template_parse returns NULL for a text whose placeholders are not what they should be. */
Template *
template_parse(const char *text)
{
	Template *t = palloc0(sizeof(Template));
	int		  room = 1;

	for (const char *p = text; (p = strstr(p, "{{")) != NULL; p += 2)
		room += 2;
	t->pieces = palloc0(sizeof(TemplatePiece) * room);
	while (*text)
	{
		const char *open = strstr(text, "{{");
		const char *close;

		if (open != text)
		{
			size_t len = open ? open - text : strlen(text);

			t->pieces[t->npieces].type = TEMPLATE_LITERAL;
			t->pieces[t->npieces++].text = template_copy(text, len);
			text += len;
			continue;
		}
		close = strstr(open, "}}");
		if (close == NULL || !template_piece(&t->pieces[t->npieces], open + 2, close - open - 2))
			return NULL;
		if (t->pieces[t->npieces].type == TEMPLATE_SECRET)
			t->secret = true;
		t->npieces++;
		text = close + 2;
	}
	return t;
}

/* template_render appends the text; false when a value is missing, or cannot stand there. */
bool
template_render(const Template *t, StringInfo out, TemplateEncoder literals, TemplateEncoder values,
				TemplateLookup lookup, void *arg, const TemplatePiece **missing)
{
	for (int i = 0; i < t->npieces; i++)
	{
		const TemplatePiece *piece = &t->pieces[i];
		const char *value = piece->type == TEMPLATE_LITERAL ? piece->text : lookup(arg, piece);

		if (value == NULL || !(piece->type == TEMPLATE_LITERAL ? literals : values)(out, value))
		{
			*missing = piece;
			return false;
		}
	}
	return true;
}
