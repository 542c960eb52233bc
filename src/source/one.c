/*
 * one.c
 *	  One record, asked for where it comes from: for the cache, and for a webhook
 *	  that says which record has changed, and not what it is now.
 *
 * The caller has a transaction open.  It should hold no lock that others wait
 * for: the upstream may take as long as flohsync.http_timeout.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "base/bytes.h"
#include "base/db.h"
#include "page/page.h"
#include "source/one.h"
#include "source/spec.h"

static void
one_member(StringInfo out, const char *key, const Slice *slice)
{
	appendStringInfo(out, ",\"%s\":", key);
	if (slice->data == NULL)
		appendStringInfoString(out, "null");
	else
		escape_json(out, pnstrdup(slice->data, slice->len));
}

static char *
one_text(PageParser *parser, const Record *record)
{
	Slice		   attributes = page_stored_attributes(parser, record);
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"externalId\":");
	escape_json(&out, pnstrdup(record->external_id.data, record->external_id.len));
	one_member(&out, "displayName", &record->display_name);
	one_member(&out, "email", &record->email);
	appendStringInfoString(&out, ",\"attributes\":");
	if (attributes.data == NULL)
		appendStringInfoString(&out, "null");
	else
		appendBinaryStringInfo(&out, attributes.data, attributes.len);
	appendStringInfoChar(&out, '}');
	return out.data;
}

static void
one_failed(SourceOne *one, ErrorClass error_class, const char *problem)
{
	one->error_class = error_class;
	one->problem = pstrdup(problem);
}

/* The record in an upstream's answer. */
static void
one_read_answer(Source *source, const char *external_id, SourceAnswer *answer, SourceOne *one)
{
	PageParser	*parser = source_parser(source);
	UpstreamPage page;
	int			 i;

	if (answer->error_class || !source_read(source, parser, answer, &page))
		one_failed(one, answer->error_class, answer->message);
	else if (page.nrecords == 0 && page.nfaults > 0)
		one_failed(one, page.faults[0].error_class, page.faults[0].message);
	else if (page.nrecords > 0)
	{
		i = page_find_id(page.records, page.nrecords, external_id, strlen(external_id));
		if (i < 0)
			one_failed(one, ERRCLASS_PROTOCOL, "upstream returned a different record");
		else
			one->record = one_text(parser, &page.records[i]);
	}
}

/*
 * source_fetch_one asks a connector for one record and waits.  Raises only for
 * what is no fault of the upstream; what is said of one is sanitized, and all in the current
 * memory context.
 */
void
source_fetch_one(const char *connector_id, const char *resource_type, const char *external_id,
				 SourceOne *one)
{
	SourceSpec spec;
	Source *volatile source = NULL;
	SourceAnswer  answer;
	bool		  found;
	MemoryContext context = CurrentMemoryContext;

	memset(one, 0, sizeof(*one));
	one->supported = true;
	SPI_connect();
	found = source_read_spec(connector_id, resource_type, &spec, context);
	SPI_finish();
	if (!found)
	{
		one_failed(one, ERRCLASS_NONE, "the connector no longer exists");
		return;
	}
	spec.page_size = 1;
	spec.in_transaction = true;
	one->asked_at = GetCurrentTimestamp();
	PG_TRY();
	{
		source = source_open(&spec);
		source_get(source, external_id, &answer);
		one->supported = !answer.not_supported;
		if (one->supported)
			one_read_answer(source, external_id, &answer, one);
	}
	PG_FINALLY();
	{
		source_close(source);
	}
	PG_END_TRY();
}
