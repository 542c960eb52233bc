/*
 * auth.h
 *	  Who may ask.  See auth.c (credentials) and oauth.c (tokens).
 */
#ifndef UPSTREAM_AUTH_H
#define UPSTREAM_AUTH_H

#include "settings.h"

/* auth.c */
extern settings	   auth;
extern buf		   auth_key;				/* a public key, as PEM */
extern const char *auth_complaint(call *c); /* NULL: come in */
extern const char *auth_basic_complaint(call *c, const char *user, const char *password, bool form);
extern void		   auth_set(call *c); /* NULL: anyone may ask */

/* oauth.c */
extern bool			   token_is_good(const char *token);
extern void			   tokens_revoke(void);
extern enum MHD_Result token_run(call *c);

#endif
