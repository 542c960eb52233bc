/*
 * source.c
 *	  Where pages come from: what is common to the kinds of connectors.
 *
 * A source is asked for a page (source_ask, which may send a request and
 * return) and then gives its answer (source_answer, which waits).  Whatever
 * the kind, the answer is a text in the command protocol, so that one reader
 * (page.c) serves all.  Close a source also after an error.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "source.h"

Source *
source_open(const SourceSpec *spec)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "flohsync source",
												  ALLOCSET_DEFAULT_SIZES);
	Source	   *source = MemoryContextAllocZero(context, sizeof(Source));

	source->context = context;
	source->spec = *spec;
	source->kind = strcmp(spec->kind, source_kind_sql.name) == 0 ? &source_kind_sql : &source_kind_command;
	source->kind->open(source);
	return source;
}

void
source_ask(Source *source, const char *cursor)
{
	source->kind->ask(source, cursor);
}

void
source_answer(Source *source, SourceAnswer *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->retry_after_ms = -1;
	source->kind->answer(source, answer);
}

void
source_close(Source *source)
{
	if (source == NULL)
		return;
	source->kind->close(source);
	MemoryContextDelete(source->context);
}

static void
source_member(StringInfo out, const char *key, const char *text)
{
	if (text == NULL)
		return;
	appendStringInfo(out, ",\"%s\":", key);
	escape_json(out, text);
}

/* source_request is the request of a page: absent keys are left out. */
char *
source_request(const SourceSpec *spec, const char *cursor)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"command\":");
	escape_json(&out, spec->list_command);
	source_member(&out, "cursor", cursor);
	appendStringInfo(&out, ",\"pageSize\":%d", spec->page_size);
	if (spec->filter)
		appendStringInfo(&out, ",\"filter\":%s", spec->filter);
	source_member(&out, "modifiedSince", spec->modified_since);
	appendStringInfoChar(&out, '}');
	return out.data;
}
