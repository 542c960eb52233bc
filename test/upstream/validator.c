/*
 * validator.c
 *	  ETag and Last-Modified of answers, and 304 for who has what they stand for.
 *
 * An ETag stands for the body alone, as with many services: not for a Link header.
 */
#include "call.h"
#include "data.h"

#include <stdio.h>
#include <time.h>

validator commands_validator = VALIDATOR_NONE;

/* Of the body, and of no use against an attacker. */
static uint64_t
body_hash(const buf *body)
{
	uint64_t hash = body->n;
	size_t	 i = 0;
	uint64_t word;

	for (; i + sizeof(word) <= body->n; i += sizeof(word))
	{
		memcpy(&word, body->p + i, sizeof(word));
		hash = mix(hash ^ word);
	}
	word = 0;
	memcpy(&word, body->p + i, body->n - i);
	return mix(hash ^ word);
}

static time_t
last_change(void)
{
	int64_t last = 0;

	for (int i = 0; i < data_types_used(); i++)
	{
		const data_type *t = data_type_at(i);

		for (size_t n = 0; n < t->count; n++)
			if (t->records[n].modified_at > last)
				last = t->records[n].modified_at;
	}
	return (time_t) (last / 1000000);
}

/* Adds the header to an answer, or makes a 304 of it: true. */
bool
validator_apply(call *c)
{
	answer	   *a = &c->answer;
	const char *given;
	bool		tag = commands_validator != VALIDATOR_MODIFIED;
	char		text[64];

	if (commands_validator == VALIDATOR_NONE || a->status != MHD_HTTP_OK)
		return false;
	if (tag)
	{
		uint64_t hash;

		if (a->shared != NULL && a->shared->hash == 0)
			a->shared->hash = body_hash(&a->shared->bytes) | 1;
		hash = a->shared != NULL ? a->shared->hash : body_hash(&a->body) | 1;
		snprintf(text, sizeof(text), "%s\"%016llx\"",
				 commands_validator == VALIDATOR_WEAK ? "W/" : "", (unsigned long long) hash);
	}
	else
	{
		time_t	  at = last_change();
		struct tm tm;

		gmtime_r(&at, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	answer_header(a, tag ? "ETag" : "Last-Modified", text);
	given = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND,
										tag ? "If-None-Match" : "If-Modified-Since");
	if (given == NULL || strcmp(given, text) != 0)
		return false;
	a->status = MHD_HTTP_NOT_MODIFIED;
	answer_no_body(a);
	return true;
}
