/*
 * unit_jwt_keys.c
 *	  Checks which files are accepted as keys (gateway/jwt_keys.c).  Keys that are
 *	  not those of RFC 7515 are made here.
 */
#include "unit.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/jwt.h"
#include "net/crypto.h"
#include "keys.h"
#include "unit_jwt.h"

static char error[1024];

/* "N SECRET WARNING": how many keys, and whether one is secret; or the error. */
static const char *
told_of(const char *contents, size_t len)
{
	static char out[2048];
	JwtKeys	   *keys;
	char	   *copy = malloc(Max(len, 1));

	/* A copy of its own size: a sanitizer sees each byte read past the end. */
	memcpy(copy, contents, len);
	if (jwt_keys_parse(copy, len, &keys, error, sizeof(error)))
		snprintf(out, sizeof(out), "%d %s%s%s", jwt_keys_count(keys),
				 jwt_keys_secret(keys) ? "secret" : "public", jwt_keys_warnings(keys)[0] ? " " : "",
				 jwt_keys_warnings(keys));
	else
		snprintf(out, sizeof(out), "%s%s", error, keys == NULL ? "" : " and keys");
	jwt_keys_free(keys);
	free(copy);
	return out;
}

static bool
told(const char *contents, const char *expected)
{
	return strstr(told_of(contents, strlen(contents)), expected) != NULL;
}

static void
test_sets(void)
{
#define K32 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define K31 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	/* clang-format off */
	static const char *const rows[][2] = {
		{ALL_KEYS, "3 secret"},
		{"{\"keys\":[{" RSA_MEMBERS ",\"alg\":\"RS256\",\"use\":\"sig\",\"key_ops\":[\"verify\"]}]}", "1 public"},
		{" \n{" EC_MEMBERS "}", "1 public"}, /* a key by itself */
		{"\xEF\xBB\xBF{\"keys\":[{" EC_MEMBERS "}]}", "1 public"},
		{"{\"keys\":[{" EC_MEMBERS ",\"x5c\":[\"MII\"],\"x5t\":\"x\",\"more\":{\"a\":[1]}}]}", "1 public"},
		/* left out, with a warning */
		{"{\"keys\":[{" RSA_MEMBERS ",\"alg\":\"RS384\",\"kid\":\"k\"},{" EC_MEMBERS "}]}", "1 public key 1 (\"k\") is left out: its \"alg\""},
		{"{\"keys\":[{" RSA_MEMBERS ",\"alg\":\"HS256\"},{" EC_MEMBERS "}]}", "1 public key 1 is left out: its \"alg\""},
		{"{\"keys\":[{" SECRET_MEMBERS ",\"alg\":\"RS256\"},{" EC_MEMBERS "}]}", "1 secret key 1 is left out: its \"alg\""},
		{"{\"keys\":[{" EC_MEMBERS ",\"alg\":7},{" RSA_MEMBERS "}]}", "1 public key 1 is left out: its \"alg\""},
		{"{\"keys\":[{" RSA_MEMBERS ",\"use\":\"enc\"},{" EC_MEMBERS "}]}", "1 public key 1 is left out: it is not for verifying"},
		{"{\"keys\":[{" RSA_MEMBERS ",\"key_ops\":[\"encrypt\"]},{" EC_MEMBERS "}]}", "1 public key 1 is left out: it is not for verifying"},
		{"{\"keys\":[{" RSA_MEMBERS ",\"key_ops\":\"verify\"},{" EC_MEMBERS "}]}", "1 public key 1 is left out: it is not for verifying"},
		{"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" K32 "\"},{" EC_MEMBERS "}]}", "1 public key 1 is left out: its \"kty\""},
		{"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"},{" EC_MEMBERS "}]}", "1 public key 1 is left out: its \"crv\""},
		{"{\"keys\":[{\"kty\":\"EC\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"},{" EC_MEMBERS "}]}", "1 public key 1 is left out: its \"crv\""},
		{"{\"keys\":[{\"kid\":\"a\\nb\\u001b\",\"kty\":\"x\"},{" EC_MEMBERS "}]}", "1 public key 1 (\"a b?\") is left out"},
		/* nothing is left */
		{"{\"keys\":[]}", "no key that can be used"},
		{"{\"keys\":[{\"kty\":\"x\"}]}", "no key that can be used: key 1 is left out"},
		{"{\"keys\":[{}]}", "no key that can be used: key 1 is left out"},
		/* refused */
		{"{\"keys\":[{" EC_MEMBERS "},{" RSA_MEMBERS ",\"d\":\"AA\"}]}", "key 2: it is a private key"},
		{"{\"keys\":[{" RSA_MEMBERS ",\"p\":\"AA\"}]}", "it is a private key"},
		{"{\"keys\":[{" RSA_MEMBERS ",\"q\":\"AA\"}]}", "it is a private key"},
		{"{\"keys\":[{" RSA_MEMBERS ",\"use\":\"enc\",\"d\":\"AA\"}]}", "it is a private key"},
		{"{\"keys\":[{" EC_MEMBERS ",\"d\":\"AA\"}]}", "it is a private key"},
		{"{\"keys\":[{\"kty\":\"x\",\"d\":null}]}", "it is a private key"},
		{"{\"keys\":[{\"kid\":\"a\"," EC_MEMBERS "},{\"kid\":\"a\"," RSA_MEMBERS "}]}", "key 2 (\"a\"): it has the \"kid\" of a key before"},
		{"{\"keys\":[{\"kid\":7," EC_MEMBERS "}]}", "its \"kid\" is not a string"},
		{"{\"keys\":[{\"kid\":null," EC_MEMBERS "}]}", "its \"kid\" is not a string"},
		{"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K32 "\"}]}", "1 secret"},
		{"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K31 "\"}]}", "its member \"k\""},
		{"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K32 "=\"}]}", "its member \"k\""},
		{"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K31 "+A\"}]}", "its member \"k\""},
		{"{\"keys\":[{\"kty\":\"oct\",\"k\":7}]}", "its member \"k\""},
		{"{\"keys\":[{\"kty\":\"oct\",\"k\":\"\"}]}", "its member \"k\""},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAAAAAAAAAB\"}]}", "its members \"n\" and \"e\""},
		{"{\"keys\":[{\"kty\":\"oct\"}]}", "its member \"k\""},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RSA_N "\"}]}", "its members \"n\" and \"e\""},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RSA_N "=\",\"e\":\"AQAB\"}]}", "its members \"n\" and \"e\""},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}", "less than 2048 bits"},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}]}", "its numbers cannot be"},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"BA\"}]}", "its numbers cannot be"},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AAAA\"}]}", "key 1: its "},
		{"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_Y "\",\"y\":\"" EC_X "\"}]}", "are not a point on P-256"},
		{"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\"}]}", "are not a point on P-256"},
		{"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"" EC_Y "\"}]}", "are not a point on P-256"},
		{"{\"keys\":[{" EC_MEMBERS ",\"alg\":\"ES384\",\"alg\":\"ES256\"}]}", "the same member twice"},
		{"{\"keys\":[],\"keys\":[{" EC_MEMBERS "}]}", "the same member twice"},
		{"{\"keys\":{}}", "not a JSON Web Key Set"},
		{"{}", "not a JSON Web Key Set"},
		{"{\"keys\":[7]}", "key 1: it is no object"},
		{"{\"keys\":[", "is not JSON: unexpected end"},
		{"{\"this looks like a key set and is a secret of more than 32 bytes\"", "is not JSON"},
		{"{\"keys\":[{" EC_MEMBERS ",\"x\\u0000\":1}]}", "is not JSON"},
		{"{\"keys\":[{" EC_MEMBERS ",\"y2\":\"\xFF\"}]}", "is not JSON"},
	};
	/* clang-format on */
	char name[200];

	for (int i = 0; i < lengthof(rows); i++)
	{
		const char *got = told_of(rows[i][0], strlen(rows[i][0]));

		snprintf(name, sizeof(name), "set %d: %.120s", i, rows[i][1]);
		ok(strstr(got, rows[i][1]) != NULL, name);
		if (strstr(got, rows[i][1]) == NULL)
			printf("# got: %s\n", got);
	}
}

/* So many of the same key. */
static void
test_many(void)
{
	char *set = malloc(JWT_KEYS_MAX_FILE + 100);

	for (int n = 100; n <= 101; n++)
	{
		char *out = set + sprintf(set, "{\"keys\":[");

		for (int i = 0; i < n; i++)
			out += sprintf(out, "%s{" EC_MEMBERS ",\"kid\":\"%d\"}", i ? "," : "", i);
		strcpy(out, "]}");
		is(told_of(set, strlen(set)), n == 100 ? "100 public" : "it has more than 100 keys",
		   "as many keys as may be, and one more");
	}
	for (int n = 0; n <= 1; n++)
	{
		size_t len = JWT_KEYS_MAX_FILE + n;

		memset(set, ' ', len);
		memcpy(set, "{" EC_MEMBERS "}", strlen("{" EC_MEMBERS "}"));
		is(told_of(set, len), n == 0 ? "1 public" : "it has more than 1 MB", "1 MB, and more");
	}
	memset(set, '[', JWT_KEYS_MAX_FILE);
	memcpy(set, "{\"keys\":", 8);
	ok(strstr(told_of(set, JWT_KEYS_MAX_FILE), "is not JSON") != NULL, "a million brackets");
	memset(set, ',', JWT_KEYS_MAX_FILE);
	memcpy(set, "{\"keys\":[", 9);
	for (int i = 9; i < JWT_KEYS_MAX_FILE - 2; i += 2)
		set[i] = '1';
	ok(strstr(told_of(set, JWT_KEYS_MAX_FILE), "too many values") != NULL, "half a million values");
	/* Secrets, as JSON and by themselves. */
	for (int n = 4096; n <= 4097; n++)
	{
		char *secret = calloc(n + 1, 1);
		char *out = set + sprintf(set, "{\"kty\":\"oct\",\"k\":\"");

		out += crypto_base64_encode(CRYPTO_BASE64URL, secret, n, out);
		strcpy(out, "\"}");
		ok(told(set, n == 4096 ? "1 secret" : "its member \"k\""), "as long as a key may be");
		memset(secret, 'x', n);
		is(told_of(secret, n), n == 4096 ? "1 secret" : "a secret must have 32 to 4096 bytes",
		   "and a secret");
		free(secret);
	}
	free(set);
}

/* A public key in PEM or, where pem is false, in DER. */
static char *
written(EVP_PKEY *key, bool pem, size_t *len)
{
	BIO	 *bio = BIO_new(BIO_s_mem());
	char *data;
	char *copy;

	if (!(pem ? PEM_write_bio_PUBKEY(bio, key) : i2d_PUBKEY_bio(bio, key)))
		abort();
	*len = BIO_get_mem_data(bio, &data);
	copy = calloc(*len + 1, 1);
	memcpy(copy, data, *len);
	BIO_free(bio);
	EVP_PKEY_free(key);
	return copy;
}

static void
is_written(EVP_PKEY *key, bool pem, const char *expected, const char *name)
{
	size_t len;
	char  *data = written(key, pem, &len);

	ok(strstr(told_of(data, len), expected) != NULL, name);
	free(data);
}

static void
test_pem(void)
{
	char   both[4096];
	char   base64[1024];
	size_t len;
	char  *pem = written(EVP_EC_gen("P-256"), true, &len);
	char  *der;

	is(told_of(pem, len), "1 public", "EC on P-256 in PEM");
	snprintf(both, sizeof(both), "a remark\n%s\n", pem);
	is(told_of(both, strlen(both)), "1 public", "with lines around");
	snprintf(both, sizeof(both), "%s%s", pem, pem);
	ok(told(both, "more than one PEM block"), "two of them");
	pem[40] = '!';
	ok(told(pem, "not of a public key"), "damaged");
	free(pem);
	is_written(EVP_RSA_gen(2048), true, "1 public", "RSA of 2048 bits in PEM");
	is_written(EVP_RSA_gen(1024), true, "less than 2048 bits", "RSA of 1024 bits");
	is_written(EVP_EC_gen("P-384"), true, "not on curve P-256", "EC on P-384");
	is_written(EVP_EC_gen("secp256k1"), true, "not on curve P-256", "EC on secp256k1");
	is_written(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), true, "neither an RSA key nor", "Ed25519");
	ok(told(rsa_pkcs1, "holds a private key"), "a private RSA key");
	ok(told(rsa_pkcs8, "holds a private key"), "in the other form");
	ok(told(ec_sec1, "holds a private key"), "a private EC key");
	ok(told("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
			"not of a public key"),
	   "a certificate is no key, and no secret");
	ok(told("-----BEGIN RSA PUBLIC KEYS-----\n01234567890123456789012345678901\n",
			"not of a public key"),
	   "nor is what looks like PEM");

	/* What everybody may know is no secret, however it is written. */
	is_written(EVP_EC_gen("P-256"), false, "public key or certificate in a form", "DER");
	is_written(EVP_RSA_gen(2048), false, "public key or certificate in a form", "of RSA as well");
	der = written(EVP_EC_gen("P-256"), false, &len);
	crypto_base64_encode(CRYPTO_BASE64, der, len, base64);
	ok(told(base64, "public key or certificate in a form"), "the base64 of it");
	base64[strlen(base64) - 10] = '!';
	is(told_of(base64, strlen(base64)), "1 secret", "which is a secret where it is not that");
	free(der);
	ok(told("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAA me\n",
			"public key or certificate in a form"),
	   "a line of OpenSSH");
}

/* A key from PEM verifies what its private key has signed. */
static void
test_pem_verifies(void)
{
	static const JwtRules any = {NULL, NULL, 0, JWT_LEEWAY};
	char				 *token = unit_token("{\"alg\":\"ES256\"}", "{\"exp\":1700000001}", 'e');
	char				 *forged = unit_token("{\"alg\":\"HS256\"}", "{\"exp\":1700000001}", 'h');
	JwtKeys				 *keys = NULL;
	JwtClaims			  claims;
	char				  secret[] = "\r\n\n0123456789abcdef0123456789abcdef\r\n";

	ok(jwt_keys_parse(ec_public, strlen(ec_public), &keys, error, sizeof(error)), "the public key");
	if (keys != NULL)
	{
		JwtResult good = jwt_verify(keys, &any, token, strlen(token), NOW, &claims);

		jwt_claims_free(&claims);
		ok(good == JWT_OK, "verifies what was signed");
		ok(jwt_verify(keys, &any, forged, strlen(forged), NOW, &claims) == JWT_ALGORITHM,
		   "and nothing by another algorithm");
	}
	jwt_keys_free(keys);
	free(token);
	free(forged);

	/* A secret is the bytes between the newlines. */
	for (int n = 31; n <= 32; n++)
	{
		char		  text[100];
		JwtResult	  result = JWT_NO_MEMORY;
		const char	  head[] = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDF9";
		unsigned char mac[32];

		crypto_hmac_sha256("0123456789abcdef0123456789abcdef", n, head, strlen(head), mac);
		snprintf(text, sizeof(text), "%s.", head);
		crypto_base64_encode(CRYPTO_BASE64URL, mac, 32, text + strlen(text));
		if (jwt_keys_parse(secret, strlen(secret), &keys, error, sizeof(error)))
			result = jwt_verify(keys, &any, text, strlen(text), NOW, &claims);
		if (result == JWT_OK)
			jwt_claims_free(&claims);
		ok(result == (n == 32 ? JWT_OK : JWT_SIGNATURE), "the secret without its newlines");
		jwt_keys_free(keys);
	}
	is(told_of("0123456789abcdef0123456789abcde\n", 32), "a secret must have 32 to 4096 bytes",
	   "a newline does not make it longer");
	is(told_of("\0 23456789abcdef0123456789abcdef", 32), "1 secret", "a secret is any bytes");
	is(told_of("", 0), "a secret must have 32 to 4096 bytes", "an empty file");
}

/* What comes of a file with this mode: "good", or the error behind its path. */
static const char *
file_told(const char *path, const char *contents, mode_t mode)
{
	FILE	*file = fopen(path, "w");
	JwtKeys *keys;
	char	*colon;

	if (file == NULL || fputs(contents, file) < 0 || fclose(file) != 0 || chmod(path, mode) != 0)
		abort();
	if (jwt_keys_load(path, &keys, error, sizeof(error)))
	{
		jwt_keys_free(keys);
		return "good";
	}
	colon = strstr(error, "\": ");
	return keys == NULL && colon != NULL ? colon + 3 : error;
}

static void
test_files(void)
{
	static const char secret[] = "0123456789abcdef0123456789abcdef\n";
	static const char set[] = "{\"keys\":[{" RSA_MEMBERS "},{" SECRET_MEMBERS "}]}";
	static const char unused[] = "{\"keys\":[{" RSA_MEMBERS "},{" SECRET_MEMBERS
								 ",\"alg\":\"HS384\"}]}";
	char	 folder[] = "/tmp/flohsync-unit.XXXXXX";
	char	 path[100];
	JwtKeys *keys;
	int		 wrong = 0;

	if (mkdtemp(folder) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/key", folder);
	/* Every mode that lets its owner read it. */
	for (mode_t mode = 0; mode < 0400; mode++)
	{
		bool is_private = (mode & 077) == 0;
		bool is_owned = (mode & 022) == 0;

		wrong += (strcmp(file_told(path, secret, mode | 0600), "good") == 0) != is_private;
		wrong += (strcmp(file_told(path, set, mode | 0600), "good") == 0) != is_private;
		wrong += (strcmp(file_told(path, unused, mode | 0600), "good") == 0) != is_private;
		wrong += (strcmp(file_told(path, ec_public, mode | 0600), "good") == 0) != is_owned;
	}
	is_int(wrong, 0, "secrets are their owner's alone, public keys only his to write");
	ok(strstr(file_told(path, secret, 0640), "it holds a secret, and users other") != NULL,
	   "which is told");
	ok(strstr(file_told(path, ec_public, 0664), "users other than its owner may write") != NULL,
	   "as well");
	is(file_told(path, rsa_pkcs1, 0600),
	   "it holds a private key, which only whoever issues tokens may have", "what is in a file");
	if (truncate(path, JWT_KEYS_MAX_FILE + 1) != 0)
		abort();
	ok(!jwt_keys_load(path, &keys, error, sizeof(error)) && strstr(error, "more than 1 MB"),
	   "a file that is too large");
	/* With root the owner may be anybody; he is not root, nor who runs this. */
	if (geteuid() == 0)
	{
		if (truncate(path, 0) != 0 || chown(path, 12345, (gid_t) -1) != 0)
			abort();
		ok(strstr(file_told(path, ec_public, 0600), "it is owned neither by") != NULL,
		   "a file of somebody else");
	}
	unlink(path);
	ok(!jwt_keys_load(path, &keys, error, sizeof(error)) && keys == NULL &&
		   strstr(error, "No such file") != NULL && strstr(error, path) != NULL,
	   "no file");
	ok(!jwt_keys_load(folder, &keys, error, sizeof(error)) && strstr(error, "not a regular file"),
	   "a folder");
	if (mkfifo(path, 0600) != 0)
		abort();
	ok(!jwt_keys_load(path, &keys, error, sizeof(error)) && strstr(error, "not a regular file"),
	   "a pipe without a writer");
	unlink(path);
	rmdir(folder);
}

void
test_jwt_keys(void)
{
	test_sets();
	test_many();
	test_pem();
	test_pem_verifies();
	test_files();
}
