/*
 * condition.c
 *	  Requests for a page only if it has changed (RFC 9110, 13): 304 means that it has not.
 *
 * A condition is set only where the page could be taken as it was (run/prints.c); so
 * there is hardly a 304 that is of no use.  One that comes without a condition is a status
 * like any other.
 *
 * A request before its turn (ahead.c) has the condition of its own page.  So the answer
 * says which condition its request had: by the time of its turn, the page at hand
 * may have another one, or none.
 *
 * ETag comes first.  A Last-Modified is of use only if the answer was made a while
 * later: within its second, or that of a clock beside, there may be another change.
 */
#include "postgres.h"

#include "source/source.h"

#define CONDITION_AGE_S 60 /* so much later than its last change an answer must be */

/* source_set_condition: by which validator the next page is asked for in its turn; NULL: by none. */
void
source_set_condition(Source *source, const char *validator)
{
	source->condition = validator;
}

/* source_foresee_conditions: who knows the validators of pages before their turn. */
void
source_foresee_conditions(Source *source, SourceForesee foresee, void *arg)
{
	source->foresee = foresee;
	source->foresee_arg = arg;
}

/* source_foreseen_condition: by which validator a page is asked for before its turn; NULL: by none. */
const char *
source_foreseen_condition(const Source *source, const char *cursor)
{
	return source->conditional && source->foresee && cursor ?
		source->foresee(source->foresee_arg, cursor) :
		NULL;
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

/* source_add_condition adds the header of a condition, for which there must be room; NULL: none. */
void
source_add_condition(HttpRequest *request, const char *validator)
{
	if (validator == NULL)
		return;
	request->condition = validator;
	request->headers[request->nheaders++] = psprintf(
		"%s: %s", condition_is_etag(validator) ? "If-None-Match" : "If-Modified-Since", validator);
}

/*
 * source_take_validators notes by what the page of an answer can be asked for if it has
 * changed, and by what it was.
 */
void
source_take_validators(const Source *source, SourceAnswer *answer, const HttpResponse *response)
{
	answer->etag[0] = answer->last_modified[0] = answer->condition[0] = '\0';
	answer->not_modified = false;
	if (!source->conditional || answer->one)
		return;
	strlcpy(answer->condition, response->condition, sizeof(answer->condition));
	answer->not_modified = answer->status == 304 && answer->condition[0] != '\0';
	if (answer->status != 200)
		return;
	if (condition_is_etag(response->etag))
		strlcpy(answer->etag, response->etag, sizeof(answer->etag));
	else if (response->last_modified_at > 0 &&
			 response->date >= response->last_modified_at + CONDITION_AGE_S)
		strlcpy(answer->last_modified, response->last_modified, sizeof(answer->last_modified));
}
