/*
 * link.h
 *	  Link headers.  See rest/link.c.
 */
#ifndef FLOHSYNC_REST_LINK_H
#define FLOHSYNC_REST_LINK_H

extern char *rest_link_find(const char *header, const char *rel, bool *malformed);

#endif /* FLOHSYNC_REST_LINK_H */
