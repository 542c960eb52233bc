/*
 * rate.c
 *	  How often something may happen: token buckets, a fixed number of them.
 *
 * Keys come from outside, so they are hashed with a secret of this process, and
 * the one used longest ago of a few makes room: who uses many keys makes nobody
 * remember more, and forgets only what has not been used lately.
 */
#include "rate.h"

#include <openssl/rand.h>
#include <string.h>

#include "buf.h"
#include "loop.h"

#define BUCKETS 8192
#define WAYS	4

typedef struct Bucket
{
	uint64_t hash;
	double	 left;
	int64_t	 at; /* milliseconds; 0: never used */
} Bucket;

struct Rates
{
	uint64_t seed[2];
	Bucket	 bucket[BUCKETS];
};

Rates *
rates_make(void)
{
	Rates *rates = must_alloc(sizeof(Rates));

	if (RAND_bytes((unsigned char *) rates->seed, sizeof(rates->seed)) != 1)
		rates->seed[0] = (uint64_t) clock_us();
	return rates;
}

static uint64_t
hash_of(const Rates *rates, const char *key)
{
	uint64_t h = rates->seed[0];

	for (const unsigned char *p = (const unsigned char *) key; *p != '\0'; p++)
	{
		h = (h ^ *p) * UINT64_C(0x9E3779B97F4A7C15);
		h ^= h >> 29;
	}
	h = (h ^ rates->seed[1]) * UINT64_C(0xBF58476D1CE4E5B9);
	return (h ^ h >> 32) | 1;
}

static Bucket *
bucket_of(Rates *rates, const char *key, int burst)
{
	uint64_t h = hash_of(rates, key);
	Bucket	*set = &rates->bucket[h % (BUCKETS / WAYS) * WAYS];
	Bucket	*oldest = set;

	for (int i = 0; i < WAYS; i++)
	{
		if (set[i].hash == h)
			return &set[i];
		if (set[i].at < oldest->at)
			oldest = &set[i];
	}
	*oldest = (Bucket){h, burst, loop_now()};
	return oldest;
}

static int
rate(Rates *rates, const char *key, int per_second, int burst, bool take)
{
	Bucket *b;

	if (per_second == 0)
		return 0;
	b = bucket_of(rates, key, burst);
	b->left += (double) (loop_now() - b->at) * per_second / 1000;
	if (b->left > burst)
		b->left = burst;
	b->at = loop_now();
	if (b->left < 1)
		return 1 + (int) ((1 - b->left) / per_second);
	if (take)
		b->left -= 1;
	return 0;
}

int
rate_take(Rates *rates, const char *key, int per_second, int burst)
{
	return rate(rates, key, per_second, burst, true);
}

int
rate_look(Rates *rates, const char *key, int per_second, int burst)
{
	return rate(rates, key, per_second, burst, false);
}
