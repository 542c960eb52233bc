/*
 * auth.h
 *	  Who sends a request.  See auth.c.
 */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include <stdbool.h>
#include <stdint.h>

struct Request;

/* What a token says.  It is shared: who keeps it counts in refs. */
typedef struct Identity
{
	int		 refs;
	char	*role;	  /* of the database; NULL: the token is known to be no good */
	char	*claims;  /* JSON, for request.jwt.claims */
	char	*subject; /* may be NULL */
	char	*user;	  /* for flohsync.acting_user, may be NULL */
	bool	 api_token;
	int64_t	 expires; /* how long it is remembered; seconds since 1970 */
	int64_t	 ends;	  /* how long the token is good, if nothing happens to it */
	unsigned changes; /* of keys and settings, before it was verified */
} Identity;

extern bool auth_start(void); /* false, with the reason in the log, when the keys cannot be read */
extern void auth_reload(void);
/* API tokens have changed, or may have. */
extern void auth_forget_tokens(void);

/*
 * auth_begin looks at the token of a request.  It returns true when r->who is
 * set, or r->answer is; false when the database has to be asked: then
 * auth_look_up does, and calls next with the same outcome.
 */
extern bool auth_begin(struct Request *r);
extern void auth_look_up(struct Request *r, void (*next)(struct Request *r));

extern void identity_keep(Identity *i);
extern void identity_drop(Identity *i);
/* False: the token has expired, or was verified with other keys or settings than there are now. */
extern bool identity_valid(const Identity *i);

#endif /* GATEWAY_AUTH_H */
