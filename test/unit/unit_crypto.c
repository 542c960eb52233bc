/*
 * unit_crypto.c
 *	  Checks crypto.c against published values: RFC 4231 (HMAC), the test cases
 *	  13 to 16 of the specification of GCM, RFC 4648 (base64), RFC 7515 (JWS).
 *	  What has no fixed result is verified with OpenSSL.
 */
#include "unit.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "net/crypto.h"
#include "keys.h"

/* Bytes of hex digits, in one of a few buffers. */
static unsigned char *
bytes_of(const char *hex, size_t *len)
{
	static unsigned char buffers[8][512];
	static int			 next = 0;
	unsigned char		*out = buffers[next++ % 8];

	*len = strlen(hex) / 2;
	if (!crypto_hex_decode(hex, strlen(hex), out))
		abort();
	return out;
}

static const char *
hex_of(const void *data, size_t len)
{
	static char out[2049];

	crypto_hex_encode(data, len, out);
	return out;
}

static void
repeat(unsigned char *out, int byte, size_t n)
{
	memset(out, byte, n);
}

static void
test_hmac(void)
{
	static const struct
	{
		int			key_byte; /* -1: text; -2: 01, 02, … */
		size_t		keylen;
		const char *key;
		int			data_byte;
		size_t		len;
		const char *data;
		const char *mac;
	} cases[] = {
		{0x0b, 20, NULL, -1, 0, "Hi There",
		 "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{-1, 0, "Jefe", -1, 0, "what do ya want for nothing?",
		 "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{0xaa, 20, NULL, 0xdd, 50, NULL,
		 "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{-2, 25, NULL, 0xcd, 50, NULL,
		 "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
		{0x0c, 20, NULL, -1, 0, "Test With Truncation", "a3b6167473100ee06e0c796c2955552b"},
		{0xaa, 131, NULL, -1, 0, "Test Using Larger Than Block-Size Key - Hash Key First",
		 "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
		{0xaa, 131, NULL, -1, 0,
		 "This is a test using a larger than block-size key and a larger than block-size data. "
		 "The key needs to be hashed before being used by the HMAC algorithm.",
		 "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
	};
	unsigned char mac[CRYPTO_HMAC_BYTES];

	for (int i = 0; i < lengthof(cases); i++)
	{
		unsigned char key[131];
		unsigned char data[50];
		size_t		  keylen = cases[i].key_byte == -1 ? strlen(cases[i].key) : cases[i].keylen;
		size_t		  len = cases[i].data_byte == -1 ? strlen(cases[i].data) : cases[i].len;
		char		  name[40];

		if (cases[i].key_byte == -1)
			memcpy(key, cases[i].key, keylen);
		else if (cases[i].key_byte == -2)
			for (size_t k = 0; k < keylen; k++)
				key[k] = k + 1;
		else
			repeat(key, cases[i].key_byte, keylen);
		if (cases[i].data_byte != -1)
			repeat(data, cases[i].data_byte, len);
		snprintf(name, sizeof(name), "HMAC, RFC 4231, case %d", i + 1);
		ok(crypto_hmac_sha256(key, keylen,
							  cases[i].data_byte == -1 ? (const void *) cases[i].data : data, len,
							  mac) &&
			   strncmp(hex_of(mac, sizeof(mac)), cases[i].mac, strlen(cases[i].mac)) == 0,
		   name);
	}
	ok(crypto_hmac_sha256(NULL, 0, NULL, 0, mac), "HMAC of nothing with an empty key");
	is(hex_of(mac, sizeof(mac)), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad",
	   "is what it is");
}

static void
test_sha256(void)
{
	unsigned char digest[CRYPTO_SHA256_BYTES];

	ok(crypto_sha256("abc", 3, digest), "SHA-256 of FIPS 180-4's example");
	is(hex_of(digest, sizeof(digest)),
	   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "is what it says");
}

static void
test_gcm(void)
{
	static const char key0[] = "0000000000000000000000000000000000000000000000000000000000000000";
	static const char key1[] = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
	static const char text[] = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
							   "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
	static const char cipher[] = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
								 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
	static const struct
	{
		const char *key, *nonce, *aad, *plain, *cipher, *tag;
	} cases[] = {
		{key0, "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{key0, "000000000000000000000000", "", "00000000000000000000000000000000",
		 "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
		{key1, "cafebabefacedbaddecaf888", "", text, cipher, "b094dac5d93471bdec1a502270e3cc6c"},
		{key1, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", text, cipher,
		 "76fc6ece0f4e1768cddf8853bb2d551b"},
	};

	for (int i = 0; i < lengthof(cases); i++)
	{
		size_t		   n, aadlen, len;
		unsigned char *key = bytes_of(cases[i].key, &n);
		unsigned char *nonce = bytes_of(cases[i].nonce, &n);
		unsigned char *aad = bytes_of(cases[i].aad, &aadlen);
		unsigned char *plain = bytes_of(cases[i].plain, &len);
		unsigned char  out[64] = {0};
		unsigned char  back[64] = {0};
		unsigned char  tag[CRYPTO_TAG_BYTES];
		char		   name[80];

		if (i == 3)
			len = 60; /* the last case has four bytes less */
		snprintf(name, sizeof(name), "AES-256-GCM, case %d: ciphertext", i + 13);
		ok(crypto_gcm_encrypt(key, nonce, aad, aadlen, plain, len, out, tag) &&
			   strncmp(hex_of(out, len), cases[i].cipher, 2 * len) == 0,
		   name);
		snprintf(name, sizeof(name), "AES-256-GCM, case %d: tag", i + 13);
		is(hex_of(tag, sizeof(tag)), cases[i].tag, name);
		snprintf(name, sizeof(name), "AES-256-GCM, case %d: back", i + 13);
		ok(crypto_gcm_decrypt(key, nonce, aad, aadlen, out, len, tag, back) &&
			   memcmp(back, plain, len) == 0,
		   name);
		tag[15] ^= 1;
		snprintf(name, sizeof(name), "AES-256-GCM, case %d: not with another tag", i + 13);
		ok(!crypto_gcm_decrypt(key, nonce, aad, aadlen, out, len, tag, back), name);
		repeat(out, 0, sizeof(out));
		snprintf(name, sizeof(name), "AES-256-GCM, case %d: and then there is no text", i + 13);
		ok(memcmp(back, out, len) == 0, name);
	}
}

static void
test_seal(void)
{
	unsigned char key[CRYPTO_KEY_BYTES];
	unsigned char sealed[6 + CRYPTO_SEAL_BYTES];
	unsigned char again[6 + CRYPTO_SEAL_BYTES];
	unsigned char out[6];
	bool		  found = false;

	ok(crypto_random(key, sizeof(key)), "random bytes");
	ok(crypto_seal(key, "ab", 2, "secret", 6, sealed) &&
		   crypto_seal(key, "ab", 2, "secret", 6, again),
	   "a text is sealed");
	ok(memcmp(sealed, again, CRYPTO_NONCE_BYTES) != 0 && memcmp(sealed + 12, again + 12, 6) != 0,
	   "each time otherwise");
	ok(crypto_unseal(key, "ab", 2, sealed, sizeof(sealed), out) && memcmp(out, "secret", 6) == 0,
	   "and unsealed");
	for (size_t i = 0; i < sizeof(sealed); i++)
	{
		sealed[i] ^= 0x80;
		found = found || crypto_unseal(key, "ab", 2, sealed, sizeof(sealed), out);
		sealed[i] ^= 0x80;
	}
	ok(!found, "not with any byte changed");
	ok(!crypto_unseal(key, "ac", 2, sealed, sizeof(sealed), out), "not with another context");
	ok(!crypto_unseal(key, "ab", 1, sealed, sizeof(sealed), out), "not with less of it");
	for (size_t n = 0; n < sizeof(sealed); n++)
		found = found || crypto_unseal(key, "ab", 2, sealed, n, out);
	ok(!found, "not when it is cut anywhere");
	key[31] ^= 1;
	ok(!crypto_unseal(key, "ab", 2, sealed, sizeof(sealed), out), "not with another key");
	ok(crypto_seal(key, NULL, 0, "", 0, sealed) &&
		   crypto_unseal(key, NULL, 0, sealed, CRYPTO_SEAL_BYTES, out),
	   "an empty text can be sealed");
	ok(crypto_equal("abc", 3, "abc", 3) && !crypto_equal("abc", 3, "abd", 3) &&
		   !crypto_equal("abc", 3, "abcd", 4) && crypto_equal("", 0, "", 0),
	   "texts are compared");
	crypto_wipe(key, sizeof(key));
	repeat(out, 0, sizeof(out));
	ok(memcmp(key, out, sizeof(out)) == 0, "memory is wiped");
}

static void
test_encodings(void)
{
	/* clang-format off */
	static const struct
	{
		CryptoBase64 kind;
		const char *plain, *encoded;
	}			pairs[] = {
		{CRYPTO_BASE64, "", ""}, {CRYPTO_BASE64, "f", "Zg=="}, {CRYPTO_BASE64, "fo", "Zm8="},
		{CRYPTO_BASE64, "foo", "Zm9v"}, {CRYPTO_BASE64, "foob", "Zm9vYg=="}, {CRYPTO_BASE64, "fooba", "Zm9vYmE="},
		{CRYPTO_BASE64, "foobar", "Zm9vYmFy"}, {CRYPTO_BASE64, "\xfb\xff\xfe", "+//+"},
		{CRYPTO_BASE64URL, "", ""}, {CRYPTO_BASE64URL, "f", "Zg"}, {CRYPTO_BASE64URL, "fo", "Zm8"},
		{CRYPTO_BASE64URL, "\x03\xec\xff\xe0\xc1", "A-z_4ME"}, {CRYPTO_BASE64URL, "\xfb\xff\xfe", "-__-"},
		{CRYPTO_BASE64URL, "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
		"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"},
	};
	/* clang-format on */
	static const struct
	{
		CryptoBase64 kind;
		const char	*text;
	} bad[] = {
		{CRYPTO_BASE64, "Zg"},		{CRYPTO_BASE64, "Zg="},		 {CRYPTO_BASE64, "Zg==="},
		{CRYPTO_BASE64, "Z"},		{CRYPTO_BASE64, "Zh=="},	 {CRYPTO_BASE64, "Zm9="},
		{CRYPTO_BASE64, "Zm9v\n"},	{CRYPTO_BASE64, " Zm9v"},	 {CRYPTO_BASE64, "Zm=v"},
		{CRYPTO_BASE64, "===="},	{CRYPTO_BASE64, "-__-"},	 {CRYPTO_BASE64, "Zm9\xc3"},
		{CRYPTO_BASE64URL, "+//+"}, {CRYPTO_BASE64URL, "Z"},	 {CRYPTO_BASE64URL, "Zh"},
		{CRYPTO_BASE64URL, "Zg="},	{CRYPTO_BASE64URL, "Zm9vZ"}, {CRYPTO_BASE64URL, "Zm 9v"},
		{CRYPTO_BASE64URL, "="},
	};
	unsigned char out[300];
	unsigned char all[256];
	char		  text[CRYPTO_BASE64_SIZE(256)];

	for (int i = 0; i < lengthof(pairs); i++)
	{
		size_t	n = strlen(pairs[i].plain);
		ssize_t back;

		is_int(crypto_base64_encode(pairs[i].kind, pairs[i].plain, n, text),
			   strlen(pairs[i].encoded), "length in base64");
		is(text, pairs[i].encoded, "in base64");
		back = crypto_base64_decode(pairs[i].kind, text, strlen(text), out);
		ok(back == (ssize_t) n && memcmp(out, pairs[i].plain, n) == 0, "and back");
	}
	for (int i = 0; i < lengthof(bad); i++)
		ok(crypto_base64_decode(bad[i].kind, bad[i].text, strlen(bad[i].text), out) == -1,
		   "what is not base64 is refused");
	is_int(crypto_base64_decode(CRYPTO_BASE64URL, "Zg==", 4, out), 1, "base64url may be padded");
	for (int i = 0; i < 256; i++)
		all[i] = i;
	for (int kind = 0; kind < 2; kind++)
	{
		bool same = true;

		for (size_t n = 0; n <= 256; n++)
		{
			size_t	len = crypto_base64_encode(kind, all, n, text);
			ssize_t back = crypto_base64_decode(kind, text, len, out);

			same = same && back == (ssize_t) n && memcmp(out, all, n) == 0 &&
				len < CRYPTO_BASE64_SIZE(n) && n <= CRYPTO_BASE64_ROOM(len);
		}
		ok(same, "all bytes, in all lengths");
	}
	is(hex_of("\x00\x7f\x80\xff", 4), "007f80ff", "hex digits");
	ok(crypto_hex_decode("00fFaA", 6, out) && memcmp(out, "\x00\xff\xaa", 3) == 0,
	   "and back, of either case");
	ok(!crypto_hex_decode("0g", 2, out) && !crypto_hex_decode("000", 3, out) &&
		   !crypto_hex_decode("0 ", 2, out),
	   "nothing else");
}

/* Does OpenSSL agree with a signature? */
static bool
verifies(const char *pem, bool pss, const char *input, const unsigned char *sig, size_t len)
{
	BIO			  *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY	  *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	EVP_MD_CTX	  *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX  *options;
	unsigned char *der = NULL;
	bool		   good;

	if (EVP_PKEY_is_a(key, "EC"))
	{
		ECDSA_SIG *raw = ECDSA_SIG_new();

		ECDSA_SIG_set0(raw, BN_bin2bn(sig, len / 2, NULL), BN_bin2bn(sig + len / 2, len / 2, NULL));
		len = i2d_ECDSA_SIG(raw, &der);
		sig = der;
		ECDSA_SIG_free(raw);
	}
	good = EVP_DigestVerifyInit(ctx, &options, EVP_sha256(), NULL, key) == 1 &&
		(!pss ||
		 (EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
		  EVP_PKEY_CTX_set_rsa_pss_saltlen(options, 32) == 1)) &&
		EVP_DigestVerify(ctx, sig, len, (const unsigned char *) input, strlen(input)) == 1;
	OPENSSL_free(der);
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	BIO_free(bio);
	return good;
}

static void
test_signatures(void)
{
	static const char payload[] =
		"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
	static const char rs256[] =
		"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
	static const char es256[] =
		"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
	static const char *const rsa[] = {rsa_pkcs1, rsa_pkcs8};
	static const char *const ec[] = {ec_sec1, ec_pkcs8};
	static const struct
	{
		CryptoAlgorithm algorithm;
		const char	   *pem;
		const char	   *says;
	} refused[] = {
		{CRYPTO_RS256, rsa_1024, "less than 2048 bits"},
		{CRYPTO_PS256, rsa_1024, "less than 2048 bits"},
		{CRYPTO_RS256, ec_sec1, "needs an RSA key"},
		{CRYPTO_ES256, rsa_pkcs8, "needs an EC key"},
		{CRYPTO_ES256, ec_p384, "on curve P-256"},
		{CRYPTO_ES256, ec_password, "not a private key in PEM without a password"},
		{CRYPTO_ES256, ec_public, "not a private key in PEM"},
		{CRYPTO_RS256, "", "not a private key in PEM"},
		{CRYPTO_RS256, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
		 "not a private key in PEM"},
		{CRYPTO_RS256, "{\"kty\":\"RSA\"}", "not a private key in PEM"},
	};
	unsigned char	sig[CRYPTO_MAX_SIGNATURE];
	char			input[400];
	char			text[CRYPTO_BASE64_SIZE(CRYPTO_MAX_SIGNATURE)];
	size_t			n;
	CryptoAlgorithm algorithm;

	for (int i = 0; i < 2; i++)
	{
		snprintf(input, sizeof(input), "eyJhbGciOiJSUzI1NiJ9.%s", payload);
		is(crypto_sign(CRYPTO_RS256, rsa[i], strlen(rsa[i]), input, strlen(input), sig, &n), NULL,
		   "RS256 signs");
		crypto_base64_encode(CRYPTO_BASE64URL, sig, n, text);
		is(text, rs256, "as RFC 7515, A.2 says");
		is(crypto_sign(CRYPTO_PS256, rsa[i], strlen(rsa[i]), input, strlen(input), sig, &n), NULL,
		   "PS256 signs");
		ok(n == 256 && verifies(rsa[i], true, input, sig, n), "with a salt of 32 bytes");
		ok(!verifies(rsa[i], false, input, sig, n), "and not the other way");

		snprintf(input, sizeof(input), "eyJhbGciOiJFUzI1NiJ9.%s", payload);
		n = crypto_base64_decode(CRYPTO_BASE64URL, es256, strlen(es256), sig);
		ok(n == 64 && verifies(ec[i], false, input, sig, n),
		   "the signature of RFC 7515, A.3 is one");
		is(crypto_sign(CRYPTO_ES256, ec[i], strlen(ec[i]), input, strlen(input), sig, &n), NULL,
		   "ES256 signs");
		ok(n == 64 && verifies(ec[i], false, input, sig, n), "as r and s");
		input[0]++;
		ok(!verifies(ec[i], false, input, sig, n), "and that only");
	}
	/* Now and then r or s is short: it is padded. */
	for (int i = 0; i < 600; i++)
	{
		snprintf(input, sizeof(input), "%d", i);
		if (crypto_sign(CRYPTO_ES256, ec_pkcs8, strlen(ec_pkcs8), input, strlen(input), sig, &n) ||
			n != 64 || ((sig[0] == 0 || sig[32] == 0) && !verifies(ec_pkcs8, false, input, sig, n)))
			ok(false, "a signature with zeros at the front");
	}
	for (int i = 0; i < lengthof(refused); i++)
	{
		const char *problem = crypto_sign(refused[i].algorithm, refused[i].pem,
										  strlen(refused[i].pem), "x", 1, sig, &n);

		ok(problem != NULL && strstr(problem, refused[i].says) != NULL, refused[i].says);
	}
	ok(crypto_algorithm("PS256", &algorithm) && algorithm == CRYPTO_PS256,
	   "an algorithm by its name");
	ok(!crypto_algorithm("none", &algorithm) && !crypto_algorithm("HS256", &algorithm) &&
		   !crypto_algorithm("rs256", &algorithm) && !crypto_algorithm("", &algorithm),
	   "and no others");
	is_int(ERR_peek_error(), 0, "no error of OpenSSL is left for somebody else to find");
}

void
test_crypto(void)
{
	test_hmac();
	test_sha256();
	test_gcm();
	test_seal();
	test_encodings();
	test_signatures();
}
