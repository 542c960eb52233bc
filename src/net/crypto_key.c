/*
 * crypto_key.c
 *	  The keys that secrets are encrypted with, from their files.
 *
 * A file is read when a key is needed (guc_file.c), and holds 64 hex digits.
 * Nothing is raised: the reason why a key is not there is kept with it.
 *
 * The id of a key tells rows of different keys apart, and nothing of the key.
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/guc_file.h"
#include "net/crypto_key.h"

#define KEY_DIGITS	  (2 * CRYPTO_KEY_BYTES)
#define KEY_FILE_SIZE (KEY_DIGITS + 2) /* and the end of the line */

/* Why the text of a file is no key, or NULL. */
static const char *
key_parse(const char *text, size_t len, CryptoKey *key)
{
	static const char label[] = "flohsync key id";
	unsigned char	  mac[CRYPTO_HMAC_BYTES];

	if (len > KEY_FILE_SIZE)
		return "it does not contain 64 hex digits";
	while (len > KEY_DIGITS && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	if (len != KEY_DIGITS || !crypto_hex_decode(text, len, key->bytes))
		return "it does not contain 64 hex digits";
	if (!crypto_hmac_sha256(key->bytes, CRYPTO_KEY_BYTES, label, sizeof(label) - 1, mac))
		return "OpenSSL could not work with it";
	crypto_hex_encode(mac, CRYPTO_KEY_ID_LENGTH / 2, key->id);
	return NULL;
}

static void
key_load(const char *setting, const char *path, CryptoKey *key)
{
	char		text[KEY_FILE_SIZE + 1];
	const char *problem;
	ssize_t		n;

	memset(key, 0, sizeof(*key));
	if (path == NULL || path[0] == '\0')
	{
		snprintf(key->problem, sizeof(key->problem), "%s is not set", setting);
		return;
	}
	n = guc_file_read(path, text, sizeof(text), &problem);
	if (problem == NULL)
		problem = key_parse(text, n, key);
	crypto_wipe(text, sizeof(text));
	key->loaded = problem == NULL;
	if (problem != NULL)
	{
		crypto_wipe(key->bytes, sizeof(key->bytes));
		snprintf(key->problem, sizeof(key->problem), "the file of %s cannot be used: %s", setting,
				 problem);
	}
}

/* crypto_keys_load reads both files; wipe what it gives, also after an error. */
void
crypto_keys_load(CryptoKeys *keys)
{
	key_load("flohsync.encryption_key_file", flohsync_encryption_key_file, &keys->current);
	key_load("flohsync.encryption_key_file_previous", flohsync_encryption_key_file_previous,
			 &keys->previous);
}

void
crypto_keys_wipe(CryptoKeys *keys)
{
	crypto_wipe(keys, sizeof(*keys));
}
