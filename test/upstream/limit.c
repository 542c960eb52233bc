/*
 * limit.c
 *	  "Too many requests", as several services say it: with or without
 *	  headers, with 429 or 403; and a limit that is really kept.
 *
 * Windows and resets are by the server's own clock, which a test may have
 * set wrong.
 */
#include "limit.h"
#include "data.h"

#include <stdio.h>

typedef struct vendor
{
	const char *name;
	unsigned	status;
	const char *limit, *remaining, *reset; /* headers, or NULL */
	bool		seconds;				   /* reset is seconds from now, not since 1970 */
	bool		retry_after;
	const char *body;
} vendor;

static const vendor vendors[] = {
	{"okta", 429, "X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset", false,
	 false,
	 "{\"errorCode\":\"E0000047\",\"errorSummary\":\"API call exceeded rate limit due to too many requests.\",\"errorCauses\":[]}"},
	{"github", 403, "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", false, false,
	 "{\"message\":\"API rate limit exceeded.\",\"documentation_url\":\"https://docs.example.com/rate-limits\"}"},
	{"github_secondary", 403, NULL, NULL, NULL, false, true,
	 "{\"message\":\"You have exceeded a secondary rate limit.\"}"},
	{"google", 403, NULL, NULL, NULL, false, false,
	 "{\"error\":{\"code\":403,\"message\":\"Request rate higher than configured.\",\"errors\":[{\"domain\":\"usageLimits\",\"reason\":\"userRateLimitExceeded\"}]}}"},
	{"graph", 429, NULL, NULL, NULL, false, true,
	 "{\"error\":{\"code\":\"TooManyRequests\",\"message\":\"Too many requests\"}}"},
	{"seconds", 429, "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", true, false,
	 "{\"error\":\"slow down\"}"}};

static settings	 limit;
static int64_t	 window_began;
static long long used;

static const vendor *
find(const char *name)
{
	for (size_t i = 0; i < sizeof(vendors) / sizeof(vendors[0]); i++)
		if (strcmp(vendors[i].name, name) == 0)
			return &vendors[i];
	return &vendors[0];
}

static void
number_header(answer *a, const char *name, long long value)
{
	char text[32];

	if (name == NULL)
		return;
	snprintf(text, sizeof(text), "%lld", value);
	answer_header(a, name, text);
}

static void
headers(answer *a, const vendor *v, long long allowed, long long remaining, int64_t reset)
{
	int64_t now = clock_now();
	int64_t left = reset > now ? (reset - now + 999999) / 1000000 : 0;

	number_header(a, v->limit, allowed);
	number_header(a, v->remaining, remaining);
	number_header(a, v->reset, v->seconds ? left : (reset + 999999) / 1000000);
}

/* The answer to a request that is too many, as this vendor gives it. */
void
limit_refuse(answer *a, const char *name, long long seconds)
{
	const vendor *v = find(name);

	a->status = v->status;
	a->body.n = 0;
	buf_str(&a->body, v->body);
	headers(a, v, 100, 0, clock_now() + seconds * 1000000);
	if (v->retry_after)
		number_header(a, "Retry-After", seconds);
}

/* Count a request; true, and the answer is made, if it is over the limit. */
bool
limit_strikes(answer *a)
{
	long long	  allowed = settings_int(&limit, "rate", 0);
	int64_t		  window = settings_int(&limit, "window", 1) * 1000000;
	const vendor *v = find(settings_text(&limit, "style", "okta"));
	int64_t		  now = clock_now();

	if (allowed == 0)
		return false;
	if (now < window_began || now >= window_began + window)
	{
		window_began = now;
		used = 0;
	}
	used++;
	if (used > allowed)
	{
		limit_refuse(a, v->name, (window_began + window - now + 999999) / 1000000);
		return true;
	}
	headers(a, v, allowed, allowed - used, window_began + window);
	return false;
}

void
limit_set(call *c)
{
	settings_clear(&limit);
	window_began = 0;
	if (c != NULL)
		settings_take(&limit, c);
}
