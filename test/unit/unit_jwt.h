/*
 * unit_jwt.h
 *	  Tokens and keys for the tests of the gateway: those of RFC 7515, appendices
 *	  A.1 to A.3.  See unit_jwt.c.
 */
#ifndef FLOHSYNC_UNIT_JWT_H
#define FLOHSYNC_UNIT_JWT_H

#define SECRET_K \
	"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
#define RSA_N \
	"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4" \
	"d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re" \
	"xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX" \
	"FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define EC_X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define EC_Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"

#define RSA_MEMBERS	   "\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\""
#define EC_MEMBERS	   "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\""
#define SECRET_MEMBERS "\"kty\":\"oct\",\"k\":\"" SECRET_K "\""

/* All three, with a kid each. */
#define ALL_KEYS \
	"{\"keys\":[{\"kid\":\"h\"," SECRET_MEMBERS "},{\"kid\":\"r\"," RSA_MEMBERS "}," \
	"{\"kid\":\"e\"," EC_MEMBERS "}]}"

#define NOW 1700000000

/* A signed token with this header and payload; the letter says by which key: h, r or e. */
extern char *unit_token(const char *header, const char *payload, char key);

/* The same from bytes that are encoded already. */
extern char *unit_sign(const char *signed_text, char key);

#endif /* FLOHSYNC_UNIT_JWT_H */
