/*
 * source.c
 *	  Where pages come from: the common part of all kinds of connectors.
 *
 * A page is requested (source_ask, which may send a request and return), then
 * its answer is awaited (source_answer), and then converted to a page
 * a page of it (source_read).  source_get asks for a single record and waits for
 * the answer, of which source_read makes a page with that record, or with none.
 * Close a source also after an error.
 *
 * Nobody else makes a page of an answer; what is told of one is made in
 * source/upstream_answer.c (test/layers checks both).
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/clean.h"
#include "base/flohsync.h"
#include "net/crypto.h"
#include "source/source.h"

static const SourceKind *const kinds[] = {
#define SOURCE_KIND(name) &source_kind_##name,
#include "source/kinds.h"
#undef SOURCE_KIND
};

/* source_kind_name is the name of the i-th kind; NULL: there are no more. */
const char *
source_kind_name(int i)
{
	return i < lengthof(kinds) ? kinds[i]->name : NULL;
}

/* source_find_kind is the kind of a name, NULL when there is none. */
const SourceKind *
source_find_kind(const char *name)
{
	for (size_t i = 0; i < lengthof(kinds); i++)
		if (strcmp(kinds[i]->name, name) == 0)
			return kinds[i];
	return NULL;
}

/* source_kind is the kind of a name; raises when there is none. */
const SourceKind *
source_kind(const char *name)
{
	const SourceKind *kind = source_find_kind(name);

	if (kind == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a kind of connector", clean(name))));
	return kind;
}

/* source_config is the tree of a config, in the current memory context; NULL: it is no object. */
JsonParser *
source_config(const char *text)
{
	JsonParser *json = json_parser_create();

	return text != NULL && json_parse(json, text, strlen(text), FLOHSYNC_MAX_NESTING) &&
			json->nodes[JSON_ROOT].type == JSON_OBJECT ?
		json :
		NULL;
}

Source *
source_open(const SourceSpec *spec)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "flohsync source",
												  ALLOCSET_DEFAULT_SIZES);
	Source		 *source = MemoryContextAllocZero(context, sizeof(Source));

	source->context = context;
	source->spec = *spec;
	source->memory = spec->memory;
	if (source->memory == NULL)
	{
		source->memory = MemoryContextAlloc(context, sizeof(PageMemory));
		memory_begin(source->memory, context);
	}
	spec->kind->open(source);
	return source;
}

void
source_ask(Source *source, const char *cursor)
{
	source->spec.kind->ask(source, cursor);
}

static void
source_begin_answer(SourceAnswer *answer, bool one)
{
	memset(answer, 0, sizeof(*answer));
	answer->one = one;
	answer->retry_after_ms = -1;
}

/* source_ready: does source_answer have what was asked for within so many milliseconds? */
bool
source_ready(Source *source, int ms)
{
	return source->spec.kind->ready && source->spec.kind->ready(source, ms);
}

void
source_answer(Source *source, SourceAnswer *answer)
{
	source_begin_answer(answer, false);
	source->spec.kind->answer(source, answer);
}

/*
 * source_get asks for one record and waits for it.  One attempt: who asks for a
 * single record does not want to wait for a second one.
 */
void
source_get(Source *source, const char *external_id, SourceAnswer *answer)
{
	source_begin_answer(answer, true);
	if (source->spec.kind->get)
	{
		source->spec.kind->get(source, external_id, answer);
		return;
	}
	source_fail(source, answer, ERRCLASS_CONFIGURATION,
				"connectors of this kind cannot be asked for one record");
	answer->not_supported = true;
}

/*
 * source_expect announces the records that source_get will be called for, in this
 * order; so they may be asked for at the same time.  They are forgotten when the
 * next page is asked for.
 */
void
source_expect(Source *source, char *const *external_ids, int n)
{
	if (source->spec.kind->expect)
		source->spec.kind->expect(source, external_ids, n);
}

/*
 * source_read makes a page of an answer that came: of one to source_get a page of
 * one record, of none, or of one that was set aside.  False with the answer's
 * class set when it is none.
 */
bool
source_read(Source *source, PageParser *parser, SourceAnswer *answer, UpstreamPage *page)
{
	if (answer->none)
	{
		page_make_empty(parser, page);
		return true;
	}
	return source->spec.kind->read(source, parser, answer, page);
}

/* source_knows_pages: may a page be known again by its bytes?  See run/prints.c. */
bool
source_knows_pages(const SourceSpec *spec)
{
	return spec->kind->reads_from != NULL;
}

/*
 * source_reads_from is what the reading of the next answer goes by besides its
 * bytes, or (answered) of the one at hand; palloc'd.  NULL: the page must be read.
 */
char *
source_reads_from(Source *source, bool answered)
{
	return source->spec.kind->reads_from ? source->spec.kind->reads_from(source, answered) : NULL;
}

/* source_read_to is where the reading of the last page has come to, likewise. */
char *
source_read_to(Source *source)
{
	return source->spec.kind->read_to ? source->spec.kind->read_to(source) : NULL;
}

/*
 * source_read_as_before takes a page as read that was read before, up to there; false when
 * it must be read all the same.
 */
bool
source_read_as_before(Source *source, const char *read_to, const char *next_cursor)
{
	/* It may have become one since. */
	if (next_cursor && source_shows_secret(source, next_cursor))
		return false;
	return source->spec.kind->read_as_before(source, read_to);
}

/*
 * source_give_up: no further attempt is made at a page.  True when the list goes
 * on all the same: the answer is then an empty page, which source_read tells the
 * consequences of.
 */
bool
source_give_up(Source *source, SourceAnswer *answer)
{
	const SourceKind *kind = source->spec.kind;

	if (kind->give_up == NULL || !kind->give_up(source, answer))
		return false;
	answer->error_class = ERRCLASS_NONE;
	answer->message[0] = '\0';
	answer->retryable = false;
	answer->body = "";
	answer->len = 0;
	return true;
}

/* source_close also wipes the secrets that the caller's spec has. */
void
source_close(Source *source)
{
	if (source == NULL)
		return;
	source->spec.kind->close(source);
	for (int i = 0; i < source->nhidden; i++)
		crypto_wipe(source->hidden[i], strlen(source->hidden[i]));
	source_wipe_secrets(source->spec.secrets, source->spec.nsecrets);
	MemoryContextDelete(source->context);
}

/* source_parser is a page parser that lives, and is counted, with the source. */
PageParser *
source_parser(const Source *source)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	PageParser	 *parser = page_parser_create(NULL, 0, source->memory);

	MemoryContextSwitchTo(old);
	return parser;
}
