/*
 * crypto_key.c
 *	  The keys that secrets are encrypted with, from their files.
 *
 * A file is read when a key is needed, so that one that was changed is the
 * one that counts.  It must be a regular file and no link, of the server's own
 * user and for nobody else to read, or of root and for nobody but its group
 * (as PostgreSQL has it for TLS keys), and hold 64 hex digits.  Nothing is
 * raised: the reason why a key is not there is kept with it.
 *
 * The id of a key tells rows of different keys apart, and nothing of the key.
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guc.h"
#include "crypto_key.h"

#define KEY_DIGITS		(2 * CRYPTO_KEY_BYTES)
#define KEY_FILE_SIZE	(KEY_DIGITS + 2)	/* and the end of the line */

static const char *
key_file_problem(const struct stat *st)
{
	bool		is_root = st->st_uid == 0;

	if (!S_ISREG(st->st_mode))
		return "it is not a regular file";
	if (st->st_uid != geteuid() && !is_root)
		return "it belongs neither to the user of the server nor to root";
	if (st->st_mode & (is_root && geteuid() != 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO))
		return "others than its owner may use it; its mode must be 0600";
	if (st->st_size < KEY_DIGITS || st->st_size > KEY_FILE_SIZE)
		return "it does not hold 64 hex digits";
	return NULL;
}

/* Why the text of a file is no key, or NULL. */
static const char *
key_parse(const char *text, size_t len, CryptoKey *key)
{
	static const char label[] = "flohsync key id";
	unsigned char mac[CRYPTO_HMAC_BYTES];

	while (len > KEY_DIGITS && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	if (len != KEY_DIGITS || !crypto_hex_decode(text, len, key->bytes))
		return "it does not hold 64 hex digits";
	if (!crypto_hmac_sha256(key->bytes, CRYPTO_KEY_BYTES, label, sizeof(label) - 1, mac))
		return "OpenSSL could not work with it";
	crypto_hex_encode(mac, CRYPTO_KEY_ID_LENGTH / 2, key->id);
	return NULL;
}

static void
key_load(const char *setting, const char *path, CryptoKey *key)
{
	char		text[KEY_FILE_SIZE + 1];
	struct stat st;
	const char *problem;
	ssize_t		n = 0;
	int			fd;

	memset(key, 0, sizeof(*key));
	if (path == NULL || path[0] == '\0')
	{
		snprintf(key->problem, sizeof(key->problem), "%s is not set", setting);
		return;
	}
	/* Not blocking: it may be a pipe that nobody writes to. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		problem = errno == ELOOP ? "it is a symbolic link" : strerror(errno);
	else if (fstat(fd, &st) != 0)
		problem = strerror(errno);
	else
		problem = key_file_problem(&st);
	if (problem == NULL)
	{
		n = read(fd, text, sizeof(text));
		problem = n < 0 ? strerror(errno) : key_parse(text, n, key);
	}
	if (fd >= 0)
		close(fd);
	crypto_wipe(text, sizeof(text));
	key->loaded = problem == NULL;
	if (problem != NULL)
	{
		crypto_wipe(key->bytes, sizeof(key->bytes));
		snprintf(key->problem, sizeof(key->problem), "the file of %s cannot be used: %s", setting, problem);
	}
}

/* crypto_keys_load reads both files; wipe what it gives, also after an error. */
void
crypto_keys_load(CryptoKeys *keys)
{
	key_load("flohsync.encryption_key_file", flohsync_encryption_key_file, &keys->current);
	key_load("flohsync.encryption_key_file_previous", flohsync_encryption_key_file_previous, &keys->previous);
}

void
crypto_keys_wipe(CryptoKeys *keys)
{
	crypto_wipe(keys, sizeof(*keys));
}
