/*
 * unit.h
 *	  What the files of the unit tests share.
 */
#ifndef FLOHSYNC_UNIT_H
#define FLOHSYNC_UNIT_H

#include "base/standalone.h"

extern void ok(bool good, const char *name);
extern void is(const char *got, const char *expected, const char *name);
extern void is_int(long got, long expected, const char *name);

extern void test_crypto(void);
extern void test_foretell(void);
extern void test_jwt(void);
extern void test_jwt_keys(void);
extern void test_known(void);
extern void test_outbound(void);
extern void test_rest(void);
extern void test_status(void);
extern void test_text(void);
extern void test_token_cache(void);

#endif /* FLOHSYNC_UNIT_H */
