/*
 * condition.c
 *	  Requests for a page only if it has changed (RFC 9110, 13): 304 means that it has not.
 *
 * A condition is set only where the page could be taken as it was (run/prints.c), so
 * there is no 304 that is of no use.  One that comes without a condition is a status like any
 * other.
 *
 * ETag comes first.  A Last-Modified is of use only if the answer was made a while
 * later: within its second, or that of a clock beside, there may be another change.
 */
#include "postgres.h"

#include "source/source.h"

#define CONDITION_AGE_S 60 /* so much later than its last change an answer must be */

/* source_set_condition: what the next pages are asked with; NULL: nothing. */
void
source_set_condition(Source *source, const char *etag, const char *last_modified)
{
	source->if_none_match = etag;
	source->if_modified_since = etag ? NULL : last_modified;
}

/* source_add_condition adds the header of the condition to n headers; the new n. */
int
source_add_condition(const Source *source, char **headers, int n)
{
	if (source->if_none_match)
		headers[n++] = psprintf("If-None-Match: %s", source->if_none_match);
	else if (source->if_modified_since)
		headers[n++] = psprintf("If-Modified-Since: %s", source->if_modified_since);
	return n;
}

/* Is it an entity tag: characters in quotes, perhaps "W/" before them? */
static bool
condition_is_etag(const char *text)
{
	size_t len;

	if (strncmp(text, "W/", 2) == 0)
		text += 2;
	len = strlen(text);
	if (len < 3 || text[0] != '"' || text[len - 1] != '"')
		return false;
	for (size_t i = 1; i < len - 1; i++)
		if (text[i] <= ' ' || text[i] > '~' || text[i] == '"')
			return false;
	return true;
}

/* source_take_validators notes by what the page of an answer can be asked for if it has changed. */
void
source_take_validators(const Source *source, SourceAnswer *answer, const HttpResponse *response)
{
	answer->etag[0] = answer->last_modified[0] = '\0';
	if (!source->conditional || answer->one || response->status != 200)
		return;
	if (condition_is_etag(response->etag))
		strlcpy(answer->etag, response->etag, sizeof(answer->etag));
	else if (response->last_modified_at > 0 &&
			 response->date >= response->last_modified_at + CONDITION_AGE_S)
		strlcpy(answer->last_modified, response->last_modified, sizeof(answer->last_modified));
}

/* source_is_not_modified: does an answer say that the condition is still true? */
bool
source_is_not_modified(const Source *source, const SourceAnswer *answer)
{
	return answer->status == 304 && !answer->one &&
		(source->if_none_match || source->if_modified_since);
}
