/*
 * unit_token_cache.c
 *	  Checks the cache of verified tokens (gateway/token_cache.c), against a model
 *	  that is simple and slow.
 */
#include "unit.h"

#include "gateway/token_cache.h"

#define VALUES 20000
#define KINDS  40
#define ROOM   16

static int freed[VALUES];

static void
free_value(void *value)
{
	freed[(int *) value - freed]++;
}

static bool
put(TokenCache *cache, const char *token, int value, time_t expires_at)
{
	return token_cache_put(cache, token, strlen(token), &freed[value], expires_at);
}

static int
get(TokenCache *cache, const char *token, time_t now)
{
	int *value = token_cache_get(cache, token, strlen(token), now);

	return value ? (int) (value - freed) : -1;
}

static void
test_small(void)
{
	TokenCache *cache = token_cache_create(3, free_value);

	is_int(get(cache, "a", 0), -1, "an empty cache has nothing");
	ok(put(cache, "a", 1, 100) && get(cache, "a", 99) == 1, "a value");
	is_int(get(cache, "A", 99), -1, "is another token's never");
	ok(token_cache_get(cache, "ab", 1, 99) == &freed[1], "a token is as long as it is said to be");
	is_int(get(cache, "a", 100), -1, "until it expires");
	ok(freed[1] == 1 && token_cache_count(cache) == 0, "and is freed when that is seen");
	put(cache, "a", 2, 100);
	put(cache, "a", 3, 200);
	ok(freed[2] == 1 && get(cache, "a", 150) == 3, "a second value takes the place of the first");
	put(cache, "b", 4, 200);
	put(cache, "c", 5, 200);
	get(cache, "a", 150);
	put(cache, "d", 6, 200);
	ok(freed[4] == 1 && get(cache, "b", 150) == -1 && get(cache, "a", 150) == 3,
	   "what was used least recently gives way");
	token_cache_forget(cache, "a", 1);
	token_cache_forget(cache, "none", 4);
	ok(freed[3] == 1 && get(cache, "a", 150) == -1 && token_cache_count(cache) == 2,
	   "one is forgotten");
	token_cache_flush(cache);
	ok(freed[5] == 1 && freed[6] == 1 && get(cache, "c", 150) == -1, "all are");
	ok(put(cache, "c", 7, 200) && get(cache, "c", 150) == 7, "and there is room again");
	ok(!token_cache_put(cache, "x", 1, NULL, 200), "nothing is no value");
	token_cache_free(cache);
	is_int(freed[7], 1, "the end frees the rest");
	memset(freed, 0, sizeof(freed));
}

/* The model: for each token its value, or -1, when it expires, and when it was used last. */
static struct
{
	int value;
	int expires_at;
	int used;
} model[KINDS];

static int
model_oldest(int *n)
{
	int oldest = -1;

	*n = 0;
	for (int i = 0; i < KINDS; i++)
	{
		*n += model[i].value >= 0;
		if (model[i].value >= 0 && (oldest < 0 || model[i].used < model[oldest].used))
			oldest = i;
	}
	return oldest;
}

void
test_token_cache(void)
{
	TokenCache *cache = token_cache_create(ROOM, free_value);
	unsigned	seed = 1;
	int			wrong = 0;
	int			hits = 0;
	int			many = 0;
	int			n;

	test_small();
	for (int i = 0; i < KINDS; i++)
		model[i].value = -1;
	for (int now = 0; now < VALUES; now++)
	{
		char token[10];
		int	 kind = rand_r(&seed) % KINDS;
		int	 what = rand_r(&seed) % 100;

		snprintf(token, sizeof(token), "%d", kind);
		if (what < 40)
		{
			int oldest;

			model[kind].value = -1;
			oldest = model_oldest(&n);
			if (n == ROOM)
				model[oldest].value = -1;
			model[kind].value = now;
			model[kind].used = now;
			model[kind].expires_at = now + rand_r(&seed) % 60;
			put(cache, token, now, model[kind].expires_at);
		}
		else if (what < 99)
		{
			if (model[kind].expires_at <= now)
				model[kind].value = -1;
			wrong += get(cache, token, now) != model[kind].value;
			hits += model[kind].value >= 0;
			model[kind].used = now;
		}
		else
		{
			token_cache_forget(cache, token, strlen(token));
			model[kind].value = -1;
		}
		model_oldest(&n);
		wrong += token_cache_count(cache) != n;
	}
	is_int(wrong, 0, "20,000 operations as in the model");
	ok(hits > 1000, "with enough hits");
	token_cache_free(cache);
	wrong = 0;
	for (int i = 0; i < VALUES; i++)
	{
		wrong += freed[i] > 1;
		many += freed[i];
	}
	ok(wrong == 0 && many > VALUES / 3, "each value was freed once");
}
