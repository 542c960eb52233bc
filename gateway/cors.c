/*
 * cors.c
 *	  Pages of other origins: those that setting cors_origins names may call, with a
 *	  token that they have; cookies play no part here, so none are allowed.
 */
#include "cors.h"

#include <string.h>

#include "config.h"
#include "request.h"

static const char *
origin_allowed(const Request *r)
{
	const char *origin = request_header(r, "Origin");

	for (int i = 0; origin != NULL && i < config->cors_origins.n; i++)
	{
		if (strcmp(config->cors_origins.word[i], origin) == 0)
			return config->cors_origins.word[i];
	}
	return NULL;
}

void
cors_headers(Request *r)
{
	const char *origin = origin_allowed(r);

	if (config->cors_origins.n > 0)
		answer_header(&r->answer, "Vary", "Origin");
	if (origin == NULL)
		return;
	answer_header(&r->answer, "Access-Control-Allow-Origin", origin);
	answer_header(&r->answer, "Access-Control-Expose-Headers",
				  "ETag, Location, Retry-After, X-Request-Id");
}

void
cors_preflight(Request *r, const char *methods)
{
	if (origin_allowed(r) == NULL || request_header(r, "Access-Control-Request-Method") == NULL)
		return;
	answer_header(&r->answer, "Access-Control-Allow-Methods", methods);
	answer_header(
		&r->answer, "Access-Control-Allow-Headers",
		"Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, X-Request-Id");
	answer_header(&r->answer, "Access-Control-Max-Age", "600");
}
