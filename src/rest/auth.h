/*
 * auth.h
 *	  Between auth.c and token_request.c.
 */
#ifndef FLOHSYNC_REST_AUTH_H
#define FLOHSYNC_REST_AUTH_H

#include "net/crypto.h"
#include "rest/rest.h"

/* rest/token_request.c */
extern char	 *auth_basic(RestState *state, const char *user, const char *password);
extern bool	  auth_optional(RestState *state, const Template *t, char **value);
extern size_t auth_room(const char *text);
extern bool	  auth_token_request(RestState *state, const char *url, StringInfo form, char **header,
								 StringInfo material);
extern bool	  auth_add_jwt(RestState *state, const char *url, StringInfo form, char **header);

/* rest/auth.c, for token_request.c */
extern char *auth_base64(CryptoBase64 kind, const void *data, size_t len);

#endif /* FLOHSYNC_REST_AUTH_H */
