/*
 * settings.c
 *	  The parameters of a control request, kept.
 */
#include "settings.h"

#include <stdlib.h>

static enum MHD_Result
take(void *closure, enum MHD_ValueKind kind, const char *name, const char *value)
{
	settings *s = closure;

	(void) kind;
	if (s->n == MAX_SETTINGS)
		return MHD_NO;
	s->name[s->n] = must_strdup(name);
	s->value[s->n++] = must_strdup(value ? value : "");
	return MHD_YES;
}

void
settings_clear(settings *s)
{
	for (int i = 0; i < s->n; i++)
	{
		free(s->name[i]);
		free(s->value[i]);
	}
	s->n = 0;
}

void
settings_take(settings *s, call *c)
{
	settings_clear(s);
	MHD_get_connection_values(c->connection, MHD_GET_ARGUMENT_KIND, take, s);
}

const char *
settings_text(const settings *s, const char *name, const char *otherwise)
{
	for (int i = 0; i < s->n; i++)
		if (strcmp(s->name[i], name) == 0)
			return s->value[i];
	return otherwise;
}

long long
settings_int(const settings *s, const char *name, long long otherwise)
{
	const char *text = settings_text(s, name, "");

	return *text ? strtoll(text, NULL, 10) : otherwise;
}
