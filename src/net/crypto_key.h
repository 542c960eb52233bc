/*
 * crypto_key.h
 *	  The keys that secrets are encrypted with.  See crypto_key.c.
 */
#ifndef FLOHSYNC_CRYPTO_KEY_H
#define FLOHSYNC_CRYPTO_KEY_H

#include "net/crypto.h"

#define CRYPTO_KEY_ID_LENGTH 16

typedef struct CryptoKey
{
	bool		  loaded;
	char		  id[CRYPTO_KEY_ID_LENGTH + 1];
	unsigned char bytes[CRYPTO_KEY_BYTES];
	char		  problem[160]; /* why it is not loaded */
} CryptoKey;

typedef struct CryptoKeys
{
	CryptoKey current;	/* flohsync.encryption_key_file */
	CryptoKey previous; /* flohsync.encryption_key_file_previous */
} CryptoKeys;

extern void crypto_keys_load(CryptoKeys *keys);
extern void crypto_keys_wipe(CryptoKeys *keys);

#endif /* FLOHSYNC_CRYPTO_KEY_H */
