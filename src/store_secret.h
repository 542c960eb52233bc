/*
 * store_secret.h
 *	  Secrets of connectors, in their table and in clear.  See store_secret.c.
 */
#ifndef FLOHSYNC_STORE_SECRET_H
#define FLOHSYNC_STORE_SECRET_H

#include "utils/uuid.h"

#include "source.h"

/* Whose secrets were found. */
typedef struct SecretOwner
{
	bool		known;			/* there is a connector of that name or id */
	pg_uuid_t	id;
	bool		enabled;
	char	   *name;
} SecretOwner;

extern void store_put_secret(Datum connector, const char *name, const char *value);
extern void store_read_secrets(Datum connector, SourceSpec *spec, MemoryContext context);
extern SourceSecret *store_webhook_secrets(Datum name, const pg_uuid_t *id, SecretOwner *owner, int *n);
extern int64 store_rotate_secrets(void);

#endif							/* FLOHSYNC_STORE_SECRET_H */
