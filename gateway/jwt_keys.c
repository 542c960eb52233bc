/*
 * jwt_keys.c
 *	  The keys that tokens are verified with, from a file: a JSON Web Key Set
 *	  (RFC 7517), one public key in PEM, or nothing but a secret.
 *
 * Invariants:
 *	- Each key has exactly one algorithm, which comes from what kind of key it is.
 *	- What looks like something public is never taken for a secret: whoever knows it
 *	  could sign with it.
 *	- A file with a secret is accessible to its owner alone; one without is not
 *	  writable by others.
 *	- No two keys have the same "kid".
 *	- Secrets are wiped when they are not needed any more, in the text as well.
 */
#include "base/standalone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clean.h"
#include "jwt_private.h"
#include "net/crypto.h"

#define PEM_BEGIN "-----BEGIN "

/* A set of JWT_KEYS_MAX keys with chains of certificates has far less values. */
#define MAX_VALUES 65536
#define MAX_DEPTH  16

void
jwt_key_wipe(JwtKey *key)
{
	EVP_PKEY_free(key->public_key);
	if (key->secret != NULL)
		crypto_wipe(key->secret, key->secret_len);
	free(key->secret);
	free(key->kid);
	memset(key, 0, sizeof(*key));
}

void
jwt_keys_free(JwtKeys *keys)
{
	if (keys == NULL)
		return;
	for (int i = 0; i < keys->count; i++)
		jwt_key_wipe(&keys->keys[i]);
	free(keys);
}

int
jwt_keys_count(const JwtKeys *keys)
{
	return keys->count;
}

bool
jwt_keys_secret(const JwtKeys *keys)
{
	return keys->secret;
}

const char *
jwt_keys_warnings(const JwtKeys *keys)
{
	return keys->warnings;
}

/* What a key of a set is called in a message: its number, and its "kid" where it has one. */
static const char *
key_name(int number, const JwtKey *key, char *out, size_t size)
{
	char kid[80];

	clean_into(kid, sizeof(kid), key->kid ? key->kid : "", key->kid_len);
	if (key->kid != NULL)
		snprintf(out, size, "key %d (\"%s\")", number, kid);
	else
		snprintf(out, size, "key %d", number);
	return out;
}

static bool
keys_have_kid(const JwtKeys *keys, const JwtKey *key)
{
	for (int i = 0; key->kid != NULL && i < keys->count; i++)
	{
		const JwtKey *other = &keys->keys[i];

		if (other->kid != NULL && other->kid_len == key->kid_len &&
			memcmp(other->kid, key->kid, key->kid_len) == 0)
			return true;
	}
	return false;
}

static bool
keys_take_jwk(JwtKeys *keys, const JsonParser *json, uint32_t node, int number, char *error,
			  size_t size)
{
	const char *problem = NULL;
	char		name[128];
	size_t		used = strlen(keys->warnings);
	JwtKey		key;
	JwtJwk		outcome = jwt_jwk_read(json, node, &key, &problem);

	if (json_room_is(json, json_room_member(json, node, "kty"), "oct"))
		keys->secret = true;
	if (outcome == JWT_JWK_TAKEN && keys_have_kid(keys, &key))
	{
		problem = "it has the \"kid\" of a key before it";
		outcome = JWT_JWK_REFUSED;
	}
	if (outcome == JWT_JWK_TAKEN)
	{
		keys->keys[keys->count++] = key;
		return true;
	}
	key_name(number, &key, name, sizeof(name));
	if (outcome == JWT_JWK_REFUSED)
		snprintf(error, size, "%s: %s", name, problem);
	else
		snprintf(keys->warnings + used, sizeof(keys->warnings) - used, "%s%s is left out: %s",
				 used > 0 ? "\n" : "", name, problem);
	jwt_key_wipe(&key);
	return outcome == JWT_JWK_LEFT_OUT;
}

static bool
keys_of_set(JwtKeys *keys, const JsonParser *json, char *error, size_t size)
{
	uint32_t set = json_room_member(json, JSON_ROOT, "keys");
	int		 number = 0;

	/* A key by itself is a set of one. */
	if (set == 0 && json_room_member(json, JSON_ROOT, "kty") != 0)
		return keys_take_jwk(keys, json, JSON_ROOT, 1, error, size);
	if (set == 0 || json->nodes[set].type != JSON_ARRAY)
	{
		snprintf(error, size, "it is a JSON text, but not a JSON Web Key Set");
		return false;
	}
	if (json->nodes[set].count > JWT_KEYS_MAX)
	{
		snprintf(error, size, "it has more than %d keys", JWT_KEYS_MAX);
		return false;
	}
	for (uint32_t i = json->nodes[set].child; i != 0; i = json->nodes[i].next)
		if (!keys_take_jwk(keys, json, i, ++number, error, size))
			return false;
	return true;
}

static bool
keys_of_json(JwtKeys *keys, const char *text, size_t len, char *error, size_t size)
{
	JsonParser *json = json_room_create(len, MAX_VALUES);
	bool		good = false;

	if (json == NULL)
		snprintf(error, size, "out of memory");
	else if (!json_room_parse(json, text, len, MAX_DEPTH))
		snprintf(error, size,
				 "it begins like a JSON Web Key Set, but is not JSON: %s (at byte %zu)",
				 json->error, json->error_offset);
	else if (!json_room_unique(json, JWT_MAX_MEMBERS))
		snprintf(error, size, "an object in it has the same member twice, or more than %d members",
				 JWT_MAX_MEMBERS);
	else
		good = keys_of_set(keys, json, error, size);
	json_room_free(json);
	return good;
}

/* Without it OpenSSL would ask for a password at the terminal. */
static int
no_password(char *buffer, int size, int writing, void *arg)
{
	return -1;
}

static bool
keys_of_pem(JwtKeys *keys, const char *text, size_t len, char *error, size_t size)
{
	JwtKey		key = {0};
	const char *problem = NULL;
	const char *first = memmem(text, len, PEM_BEGIN, strlen(PEM_BEGIN));
	const char *behind = first + strlen(PEM_BEGIN);
	BIO		   *bio;

	if (memmem(text, len, "PRIVATE KEY-----", 16) != NULL)
		problem = "it holds a private key, which only whoever issues tokens may have";
	else if (memmem(behind, len - (behind - text), PEM_BEGIN, strlen(PEM_BEGIN)) != NULL)
		problem = "it holds more than one PEM block; several keys make a JSON Web Key Set";
	else
	{
		bio = BIO_new_mem_buf(text, (int) len);
		key.public_key = bio ? PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL) : NULL;
		BIO_free(bio);
		problem = key.public_key ? jwt_public_key_problem(key.public_key, &key.algorithm) :
								   "it is PEM, but not of a public key (\"BEGIN PUBLIC KEY\")";
	}
	ERR_clear_error();
	if (problem != NULL)
	{
		snprintf(error, size, "%s", problem);
		jwt_key_wipe(&key);
		return false;
	}
	keys->keys[keys->count++] = key;
	return true;
}

static bool
is_public_der(const unsigned char *der, size_t len)
{
	const unsigned char *p = der;
	EVP_PKEY			*key = d2i_PUBKEY(NULL, &p, (long) len);
	X509				*certificate;
	bool				 found = key != NULL;

	EVP_PKEY_free(key);
	p = der;
	certificate = d2i_X509(NULL, &p, (long) len);
	found |= certificate != NULL;
	X509_free(certificate);
	p = der;
	key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, (long) len); /* PKCS #1 */
	found |= key != NULL;
	EVP_PKEY_free(key);
	ERR_clear_error();
	return found;
}

/*
 * Is a text a public key or a certificate in a form that is not read here: DER, its
 * base64 without the lines around, or a line of OpenSSH?
 */
static bool
is_public(const char *text, size_t len)
{
	static const char *const openssh[] = {"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"};
	unsigned char			*der;
	size_t					 n = 0;
	ssize_t					 got;
	bool					 found;

	for (size_t i = 0; i < lengthof(openssh); i++)
		if (len > strlen(openssh[i]) && strncmp(text, openssh[i], strlen(openssh[i])) == 0)
			return true;
	if (is_public_der((const unsigned char *) text, len))
		return true;
	der = malloc(len + 3);
	if (der == NULL)
		return true;
	for (size_t i = 0; i < len; i++)
		if (text[i] != '\n' && text[i] != '\r' && text[i] != ' ' && text[i] != '\t')
			der[n++] = text[i];
	/* The bytes are never more than the characters that were read for them. */
	got = crypto_base64_decode(CRYPTO_BASE64, (char *) der, n, der);
	found = got > 0 && is_public_der(der, got);
	crypto_wipe(der, len + 3);
	free(der);
	return found;
}

static bool
keys_of_secret(JwtKeys *keys, const char *text, size_t len, char *error, size_t size)
{
	JwtKey *key = &keys->keys[0];

	keys->secret = true;
	while (len > 0 && (*text == '\n' || *text == '\r'))
	{
		text++;
		len--;
	}
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	if (is_public(text, len))
	{
		snprintf(error, size,
				 "it holds a public key or certificate in a form that is not read;"
				 " write the public key as PEM");
		return false;
	}
	if (len < JWT_MIN_SECRET || len > JWT_MAX_SECRET)
	{
		snprintf(error, size, "a secret must have %d to %d bytes", JWT_MIN_SECRET, JWT_MAX_SECRET);
		return false;
	}
	key->algorithm = JWT_HS256;
	key->secret = malloc(len);
	if (key->secret == NULL)
	{
		snprintf(error, size, "out of memory");
		return false;
	}
	memcpy(key->secret, text, len);
	key->secret_len = len;
	keys->count = 1;
	return true;
}

static size_t
space_before(const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && (text[n] == ' ' || text[n] == '\t' || text[n] == '\n' || text[n] == '\r'))
		n++;
	return n;
}

bool
jwt_keys_parse(const char *text, size_t len, JwtKeys **keys, char *error, size_t size)
{
	JwtKeys *made = calloc(1, sizeof(JwtKeys));
	size_t	 start;
	bool	 good;

	*keys = NULL;
	if (made == NULL || len > JWT_KEYS_MAX_FILE)
	{
		snprintf(error, size, made == NULL ? "out of memory" : "it has more than 1 MB");
		free(made);
		return false;
	}
	/* An editor may have put it there. */
	if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
	{
		text += 3;
		len -= 3;
	}
	start = space_before(text, len);
	if (start < len && text[start] == '{')
		good = keys_of_json(made, text, len, error, size);
	else if (memmem(text, len, PEM_BEGIN, strlen(PEM_BEGIN)) != NULL)
		good = keys_of_pem(made, text, len, error, size);
	else
		good = keys_of_secret(made, text, len, error, size);
	if (good && made->count == 0)
	{
		snprintf(error, size, "it has no key that can be used%s%s", made->warnings[0] ? ": " : "",
				 made->warnings);
		good = false;
	}
	if (good)
		*keys = made;
	else
		jwt_keys_free(made);
	return good;
}

/* Up to room bytes of a file; -1 with errno. */
static ssize_t
read_all(int fd, char *buffer, size_t room)
{
	size_t got = 0;

	while (got < room)
	{
		ssize_t n = read(fd, buffer + got, room - got);

		if (n > 0)
			got += n;
		else if (n == 0)
			break;
		else if (errno != EINTR)
			return -1;
	}
	return got;
}

/* What of a file may not be, whatever is in it; NULL: nothing. */
static const char *
file_problem(const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return "it is not a regular file";
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return "it is owned neither by the user who runs the program nor by root";
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return "users other than its owner may write to it";
	if (st->st_size > JWT_KEYS_MAX_FILE)
		return "it has more than 1 MB";
	return NULL;
}

bool
jwt_keys_load(const char *path, JwtKeys **keys, char *error, size_t size)
{
	struct stat st = {0};
	size_t		room = JWT_KEYS_MAX_FILE + 1;
	char	   *text = malloc(room);
	char		detail[512] = "out of memory";
	const char *problem = NULL;
	ssize_t		len = -1;
	/* Not blocking: it may be a pipe without a writer. */
	int fd = text ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;

	*keys = NULL;
	if (text != NULL && (fd < 0 || fstat(fd, &st) != 0))
		problem = strerror(errno);
	else if (text != NULL)
		problem = file_problem(&st);
	if (fd >= 0 && problem == NULL)
	{
		len = read_all(fd, text, room);
		if (len < 0)
			problem = strerror(errno);
	}
	if (fd >= 0)
		close(fd);
	if (problem != NULL)
		snprintf(detail, sizeof(detail), "%s", problem);
	else if (len >= 0 && jwt_keys_parse(text, len, keys, detail, sizeof(detail)) &&
			 (*keys)->secret && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
	{
		jwt_keys_free(*keys);
		*keys = NULL;
		snprintf(detail, sizeof(detail),
				 "it holds a secret, and users other than its owner have access to it;"
				 " its mode must be 0600");
	}
	if (text != NULL)
		crypto_wipe(text, room);
	free(text);
	if (*keys == NULL)
		snprintf(error, size, "could not use key file \"%s\": %s", path, detail);
	return *keys != NULL;
}
