/*
 * foretell.h
 *	  Requests that are sent before their turn.  See foretell.c.
 */
#ifndef FLOHSYNC_REST_FORETELL_H
#define FLOHSYNC_REST_FORETELL_H

#include "rest/rest.h"

extern const char *rest_list_name(const RestState *state);
extern char		  *rest_key(const RestState *state, const char *list, const char *inner);
extern void		   rest_foretell_seen(RestState *state);
extern void		   rest_ask_ahead(RestState *state);
extern void		   rest_arrived(Source *source, HttpClient *client);

#endif /* FLOHSYNC_REST_FORETELL_H */
