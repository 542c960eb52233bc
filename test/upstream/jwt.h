/*
 * jwt.h
 *	  Signed assertions.  See jwt.c.
 */
#ifndef UPSTREAM_JWT_H
#define UPSTREAM_JWT_H

#include "buf.h"

typedef struct jwt
{
	buf header; /* JSON */
	buf claims; /* JSON */
} jwt;

extern const char *jwt_verify(const char *token, const char *alg, const char *pem, size_t pem_len,
							  jwt *out);
extern void		   jwt_free(jwt *j);
extern bool		   base64_decode(const char *text, size_t n, buf *out);

#endif
