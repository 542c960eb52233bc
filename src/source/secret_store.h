/*
 * secret_store.h
 *	  Secrets of connectors, in their table and in clear.  See source/secret_store.c.
 */
#ifndef FLOHSYNC_SOURCE_SECRET_STORE_H
#define FLOHSYNC_SOURCE_SECRET_STORE_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "source/source.h"

/* Whose secrets were found. */
typedef struct SecretOwner
{
	bool	  known; /* there is a connector of that name or id */
	pg_uuid_t id;
	bool	  enabled;
	char	 *name;
	Jsonb	 *webhook; /* what its config says of webhooks, an object; NULL: nothing */
} SecretOwner;

extern void			 secrets_put(Datum connector, const char *name, const char *value);
extern void			 secrets_read(Datum connector, SourceSpec *spec, MemoryContext context);
extern SourceSecret *secrets_of_webhook(const text *name, SecretOwner *owner, int *n);
extern int64		 secrets_rotate(void);

#endif /* FLOHSYNC_SOURCE_SECRET_STORE_H */
