/*
 * settings.h
 *	  Named texts that a control request has given.  See settings.c.
 */
#ifndef UPSTREAM_SETTINGS_H
#define UPSTREAM_SETTINGS_H

#include "call.h"

#define MAX_SETTINGS 24

typedef struct settings
{
	int	  n;
	char *name[MAX_SETTINGS];
	char *value[MAX_SETTINGS];
} settings;

extern void		   settings_take(settings *s, call *c);
extern void		   settings_clear(settings *s);
extern const char *settings_text(const settings *s, const char *name, const char *otherwise);
extern long long   settings_int(const settings *s, const char *name, long long otherwise);

#endif
