/*
 * render.h
 *	  Texts of a request, put together from templates.  See render.c.
 */
#ifndef FLOHSYNC_REST_RENDER_H
#define FLOHSYNC_REST_RENDER_H

#include "rest/rest.h"

/* rest/render.c */
extern bool request_plain(StringInfo out, const char *value);
extern bool request_encoded(StringInfo out, const char *value);
extern bool request_path_literal(StringInfo out, const char *value);
extern bool request_render(RestState *state, const Template *t, StringInfo out,
						   TemplateEncoder literals, TemplateEncoder values);

#endif /* FLOHSYNC_REST_RENDER_H */
