/*
 * unit_foretell.c
 *	  Checks which cursors are foretold.
 */
#include "unit.h"

#include "source/foretell.h"

/* Goes through cursors, of which the first may be unknown (""), and says what comes next but one. */
static const char *
second_after(const char *const *cursors, int n)
{
	Foretell f = {0};
	char	*next;

	foretell_begin(&f, cursors[0][0] ? cursors[0] : NULL, CurrentMemoryContext);
	for (int i = 1; i < n; i++)
		foretell_seen(&f, cursors[i], CurrentMemoryContext);
	next = foretell_next(&f, 2);
	return next ? next : "-";
}

#define AFTER(expected, name, ...) \
	do \
	{ \
		const char *const cursors[] = {__VA_ARGS__}; \
		is(second_after(cursors, lengthof(cursors)), expected, name); \
	} while (0)

void
test_foretell(void)
{
	AFTER("-", "nothing is known of the first cursor", "0");
	AFTER("60", "an offset", "0", "20");
	AFTER("60", "of a list whose beginning is not known: two are needed", "", "0", "20");
	AFTER("-", "and one does not do", "", "20");
	AFTER("4:80", "a page and how many records so far", "1:20", "2:40");
	AFTER("o:2000:1:5", "several numbers, of which some stand", "o:500:1:2", "o:1000:1:3");
	AFTER("60", "a cursor that is asked for again tells nothing", "0", "20", "20");
	AFTER("-", "a step of another kind ends it", "0", "20", "30");
	AFTER("60", "until there are two alike", "0", "20", "30", "40");
	AFTER("-", "what stands still is no position", "a1", "a1b");
	AFTER("-", "nor what goes back", "40", "20");
	AFTER("-", "nor what differs elsewhere", "a20", "b40");
	AFTER("-", "nor what is longer", "20", "40x");
	AFTER("-", "nor what begins with zeros", "008", "016");
	AFTER("-", "nor a number too long for one", "1000000000000000", "1000000000000020");
	AFTER("-", "nor so many numbers", "1.1.1.1.1.1.1", "2.1.1.1.1.1.1");
	AFTER("-", "an irregular cursor between", "0", "20", "x", "40", "60");
	AFTER("100", "and on from there", "0", "20", "x", "20", "40", "60");
	AFTER("https://a/users?skip=90&top=30", "whatever stands around it",
		  "https://a/users?skip=0&top=30", "https://a/users?skip=30&top=30");
}
