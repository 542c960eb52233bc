/*
 * shape.c
 *	  Faults in what a page holds: its size, its records, where it says that
 *	  the listing goes on, and how many records there are.
 */
#include "faults.h"

#include <stdlib.h>

static bool
is(const fault *f, const char *kind)
{
	return strcmp(f->kind->name, kind) == 0;
}

/* Before the records are chosen. */
void
shape_request(const struck *s, request *q)
{
	for (int i = 0; i < s->n; i++)
	{
		const fault *f = s->fault[i];

		if (is(f, "page_size"))
			q->page_size = (long) fault_int(f, "count", 5000);
		else if (is(f, "ignore_since"))
			q->has_since = false;
		if (q->page_size < 1)
			q->page_size = 1;
	}
}

static void
replace(char **text, const fault *f)
{
	free(*text);
	*text = must_strdup(fault_text(f, "json", ""));
}

static void
leave_out(page *p, const char *positions)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->count; i++)
		if (!in_ranges(positions, (long) i + 1))
			p->numbers[kept++] = p->numbers[i];
	p->count = kept;
}

/* Copies of the page's own records, at its end. */
static void
repeat_own(page *p, const fault *f)
{
	const char *positions = fault_text(f, "record", "1");
	size_t		count = p->count;
	size_t	   *numbers = must_alloc(2 * count * sizeof(size_t));

	if (count > 0)
		memcpy(numbers, p->numbers, count * sizeof(size_t));
	for (size_t i = 0; i < p->count; i++)
		if (in_ranges(positions, (long) i + 1))
			numbers[count++] = p->numbers[i];
	if (fault_int(f, "same", 0) == 0)
	{
		p->copies_from = p->count;
		p->copies_to = count;
	}
	free(p->numbers);
	p->numbers = numbers;
	p->count = count;
}

/* The last records of the page before, at the start of this one. */
static void
repeat_previous(page *p, const fault *f)
{
	size_t	wanted = (size_t) fault_int(f, "count", 1);
	size_t *numbers = must_alloc((wanted + p->count) * sizeof(size_t));
	size_t	at = wanted; /* they are filled in from the back */
	size_t	got;

	for (size_t n = p->count > 0 ? p->numbers[0] - 1 : 0; n > 0 && at > 0; n--)
		if (!p->type->records[n - 1].deleted)
			numbers[--at] = n;
	got = wanted - at;
	memmove(numbers, numbers + at, got * sizeof(size_t));
	if (p->count > 0)
		memcpy(numbers + got, p->numbers, p->count * sizeof(size_t));
	free(p->numbers);
	p->numbers = numbers;
	p->count += got;
	if (fault_int(f, "changed", 0) != 0)
	{
		p->copies_from = 0;
		p->copies_to = got;
	}
}

static void
go_back(page *p, long pages)
{
	size_t records = (size_t) (pages * p->size);

	p->next = p->at;
	p->next.epoch = cursor_epoch;
	p->next.offset = p->at.offset > records ? p->at.offset - records : 0;
	p->next.page = p->at.page > pages ? p->at.page - pages : 1;
	p->more = true;
}

/* After it. */
void
shape_page(const struck *s, page *p, const request *q)
{
	(void) q;
	for (int i = 0; i < s->n; i++)
	{
		const fault *f = s->fault[i];

		if (is(f, "empty_list"))
		{
			p->count = p->deleted_count = p->estimate = 0;
			p->more = false;
		}
		else if (is(f, "empty_page"))
		{
			/* what would have been here comes with the next page */
			p->count = p->deleted_count = 0;
			p->next.offset = p->at.offset;
			p->more = true;
		}
		else if (is(f, "endless"))
			p->more = true;
		else if (is(f, "no_next"))
			p->more = false;
		else if (is(f, "cursor_repeat"))
			go_back(p, 0);
		else if (is(f, "cursor_cycle"))
			go_back(p, (long) fault_int(f, "count", 2) - 1);
		else if (is(f, "next_cursor"))
			replace(&p->next_json, f);
		else if (is(f, "next_first"))
			p->next_first = true;
		else if (is(f, "total_estimate"))
			replace(&p->estimate_json, f);
		else if (is(f, "deleted"))
			replace(&p->deleted_json, f);
		else if (is(f, "skip"))
			leave_out(p, fault_text(f, "record", "1"));
		else if (is(f, "dup_in_page"))
			repeat_own(p, f);
		else if (is(f, "dup_across"))
			repeat_previous(p, f);
	}
}
