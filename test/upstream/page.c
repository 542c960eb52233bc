/*
 * page.c
 *	  Cuts a listing into pages and writes a page's JSON.
 *
 * A cursor is "o:<offset>:<epoch>:<page>".  The offset is a record number (as
 * a key would be, so nothing moves when a record before it is deleted), or,
 * by position, a count of the records that are there at the moment,
 * as many real services do it: then a deletion during a listing shifts the
 * rest, and the listing misses a record.
 */
#include "page.h"

#include <stdio.h>
#include <stdlib.h>

bool	page_by_position = false;
bool	page_reports_deleted = false;
int64_t cursor_epoch = 1;
int64_t cursor_oldest = 0;
int		cursor_expired_status = 410;

/* "o:<offset>" alone will do. */
bool
cursor_parse(const char *s, long page_size, cursor *c)
{
	unsigned long long offset;
	long long		   epoch = cursor_epoch;
	long			   number = 0;
	int				   fields = sscanf(s, "o:%llu:%lld:%ld", &offset, &epoch, &number);

	if (fields < 1)
		return false;
	c->offset = (size_t) offset;
	c->epoch = epoch;
	c->page = fields == 3 ? number : (long) (offset / (unsigned long) page_size) + 1;
	return true;
}

void
cursor_put(buf *b, const cursor *c)
{
	buf_lit(b, "o:");
	buf_int(b, (int64_t) c->offset);
	buf_char(b, ':');
	buf_int(b, c->epoch);
	buf_char(b, ':');
	buf_int(b, c->page);
}

/* Is the record listed, and if so, as one that is there (1) or as a deleted one (2)? */
static int
listed(const page *p, size_t i)
{
	const record *r = &p->type->records[i];

	if (p->part > 0 && (long) (i % (size_t) p->parts) != p->part - 1)
		return 0;
	if (p->member_of != 0 && !record_is_member(p->type, i + 1, p->member_of))
		return 0;
	if (p->incremental && r->modified_at < p->since)
		return 0;
	if (!r->deleted || p->with_deleted)
		return 1;
	return p->incremental && page_reports_deleted ? 2 : 0;
}

/* Does the listing have every record that there is? */
static bool
is_whole(const page *p)
{
	return !p->incremental && p->member_of == 0 && p->part == 0 &&
		(p->with_deleted || p->type->deleted == 0);
}

/* The index of the record at this cursor. */
static size_t
find_start(const page *p)
{
	size_t left = p->at.offset;

	if (!p->by_position || is_whole(p))
		return left;
	for (size_t i = 0; i < p->type->count; i++)
		if (listed(p, i) && left-- == 0)
			return i;
	return p->type->count;
}

/* How many records the listing has; the last answer is remembered. */
static size_t
count_listed(const page *p)
{
	static struct
	{
		const data_type *type;
		bool			 incremental;
		bool			 with_deleted;
		int64_t			 since;
		size_t			 member_of;
		long			 part;
		long			 parts;
		uint64_t		 generation;
		size_t			 count;
	} last;

	if (!p->incremental && p->member_of == 0 && p->part == 0)
		return p->type->count - (p->with_deleted ? 0 : p->type->deleted);
	if (last.type != p->type || last.incremental != p->incremental || last.since != p->since ||
		last.with_deleted != p->with_deleted || last.member_of != p->member_of ||
		last.part != p->part || last.parts != p->parts || last.generation != data_generation)
	{
		last.type = p->type;
		last.incremental = p->incremental;
		last.since = p->since;
		last.with_deleted = p->with_deleted;
		last.member_of = p->member_of;
		last.part = p->part;
		last.parts = p->parts;
		last.generation = data_generation;
		last.count = 0;
		for (size_t i = 0; i < p->type->count; i++)
			last.count += listed(p, i) == 1;
	}
	return last.count;
}

/* Fill in the records and the next cursor of the page at p->at. */
void
page_select(page *p)
{
	size_t i = find_start(p);
	size_t size = (size_t) p->size;
	size_t room = size;

	if (i > p->type->count)
		i = p->type->count;
	if (room > p->type->count - i)
		room = p->type->count - i;
	p->numbers = must_alloc(room * sizeof(size_t));
	p->deleted = must_alloc(room * sizeof(size_t));
	p->count = p->deleted_count = 0;
	for (; i < p->type->count && p->count + p->deleted_count < size; i++)
	{
		int how = listed(p, i);

		if (how == 1)
			p->numbers[p->count++] = i + 1;
		else if (how == 2)
			p->deleted[p->deleted_count++] = i + 1;
	}
	while (i < p->type->count && !listed(p, i))
		i++;
	p->more = i < p->type->count;
	p->next.offset = p->by_position ? p->at.offset + p->count + p->deleted_count : i;
	p->next.epoch = cursor_epoch;
	p->next.page = p->at.page + 1;
	p->estimate = count_listed(p);
}

void
page_free(page *p)
{
	free(p->numbers);
	free(p->deleted);
	free(p->next_json);
	free(p->estimate_json);
	free(p->deleted_json);
}

static void
put_deleted(buf *b, const page *p)
{
	if (p->deleted_json != NULL)
	{
		buf_lit(b, "\"deleted\":");
		buf_str(b, p->deleted_json);
		buf_char(b, ',');
		return;
	}
	if (p->deleted_count == 0)
		return;
	buf_lit(b, "\"deleted\":[");
	for (size_t i = 0; i < p->deleted_count; i++)
	{
		buf_str(b, i ? ",\"" : "\"");
		render_id(b, p->type, p->deleted[i]);
		buf_char(b, '"');
	}
	buf_lit(b, "],");
}

static void
put_next(buf *b, const page *p)
{
	if (p->next_json != NULL)
	{
		if (*p->next_json == '\0')
			return;
		buf_lit(b, "\"nextCursor\":");
		buf_str(b, p->next_json);
		buf_char(b, ',');
	}
	else if (p->more)
	{
		buf_lit(b, "\"nextCursor\":\"");
		cursor_put(b, &p->next);
		buf_lit(b, "\",");
	}
}

/* The record as the commands have it. */
void
page_put_plain(buf *b, const page *p, size_t position, const patch *change)
{
	render_record(b, p->type, p->numbers[position], change);
}

void
page_put_records(buf *b, const page *p, record_writer writer, void *closure)
{
	for (size_t i = 0; i < p->count; i++)
	{
		if (i > 0)
			buf_char(b, ',');
		if (writer != NULL)
			writer(b, p, i, closure);
		else
			p->put_record(b, p, i, NULL);
	}
}

void
page_render(buf *b, const page *p, record_writer writer, void *closure)
{
	buf_room(b, p->count * 512 + 512);
	buf_lit(b, "{\"success\":true,\"payload\":{");
	if (p->next_first)
		put_next(b, p);
	buf_lit(b, "\"resources\":[");
	page_put_records(b, p, writer, closure);
	buf_lit(b, "],");
	put_deleted(b, p);
	if (!p->next_first)
		put_next(b, p);
	if (p->estimate_json == NULL)
	{
		buf_lit(b, "\"totalEstimate\":");
		buf_int(b, (int64_t) p->estimate);
	}
	else if (*p->estimate_json != '\0')
	{
		buf_lit(b, "\"totalEstimate\":");
		buf_str(b, p->estimate_json);
	}
	if (b->p[b->n - 1] == ',')
		b->n--;
	buf_lit(b, "}}");
}
