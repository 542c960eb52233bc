/*
 * rate.h
 *	  How often something may happen.  See rate.c.
 */
#ifndef GATEWAY_RATE_H
#define GATEWAY_RATE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Rates Rates;

extern Rates *rates_make(void);
/*
 * rate_take counts one for a key; per_second are given back each second, burst at
 * most.  Returns 0, or after how many seconds there may be one more.
 */
extern int rate_take(Rates *rates, const char *key, int per_second, int burst);
/* Whether rate_take would say no, without counting. */
extern int rate_look(Rates *rates, const char *key, int per_second, int burst);

#endif /* GATEWAY_RATE_H */
