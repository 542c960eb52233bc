/*
 * jsonb.c
 *	  Writes jsonb of what json.c has parsed, without a second parser and without
 *	  a tree of PostgreSQL's.
 *
 * Text from outside is parsed by json.c first, because numbers and depths that
 * jsonb would take very long for, or raise an error, must be found before.
 * Its tree has then all that jsonb needs: the bytes are written in one walk over
 * it.  pushJsonbValue() and JsonbValueToJsonb() would make each value twice
 * more: a third of the processor time of a first load.  It costs that the form is
 * written down here as well.
 *
 * The form is PostgreSQL's own (utils/jsonb.h), the same to the byte as that of
 * jsonb_in, so a stored value does not tell how it came about.
 * test/t/014_first_load.t holds the two together.
 *
 * - Keys are ordered by length, then by bytes.  Of a key that comes twice the last
 *   one counts.
 * - The text is shorter than a string in jsonb may be; depth is bounded by
 *   json_parse, and checked again here.
 */
#include "postgres.h"

#include "base/compat.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "json/jsonb.h"

/* So many digits are an int64. */
#define JSON_INT_DIGITS 18

/* Members of an object for which nothing is allocated. */
#define JSON_FEW_MEMBERS 32

typedef struct JsonbWriter
{
	const JsonParser *parser;
	StringInfoData	  out;
} JsonbWriter;

typedef struct JsonbMember
{
	const char *key;
	int			len;
	uint32		value; /* its node: a later one has a higher number */
} JsonbMember;

static JEntry jsonb_write(JsonbWriter *w, uint32 index);

/* Room for so many bytes, which are not set; returns its place, since the buffer may move. */
static inline int
jsonb_reserve(JsonbWriter *w, int n)
{
	int at = w->out.len;

	if (n >= w->out.maxlen - at)
		enlargeStringInfo(&w->out, n);
	w->out.len += n;
	return at;
}

static inline void
jsonb_append(JsonbWriter *w, const void *bytes, int n)
{
	int at = jsonb_reserve(w, n);

	memcpy(w->out.data + at, bytes, n);
}

/* Numbers and containers begin at a multiple of four; returns the bytes between. */
static int
jsonb_align(JsonbWriter *w)
{
	int n = INTALIGN(w->out.len) - w->out.len;
	int at = jsonb_reserve(w, n);

	memset(w->out.data + at, 0, n);
	return n;
}

static Numeric
json_numeric(const JsonParser *parser, const JsonNode *node)
{
	const char *text = parser->text + node->start;
	int			len = node->end - node->start;

	if (len <= JSON_INT_DIGITS && json_is_integer(parser, node))
	{
		bool  negative = text[0] == '-';
		int64 number = 0;

		for (int i = negative; i < len; i++)
			number = number * 10 + (text[i] - '0');
		return int64_to_numeric(negative ? -number : number);
	}
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(text, len)),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static JEntry
jsonb_write_number(JsonbWriter *w, const JsonNode *node)
{
	Numeric number = json_numeric(w->parser, node);
	int		size = VARSIZE_ANY(number);
	int		padding = jsonb_align(w);

	jsonb_append(w, number, size);
	pfree(number);
	return JENTRY_ISNUMERIC | (padding + size);
}

static JEntry
jsonb_write_string(JsonbWriter *w, const JsonNode *node)
{
	int len = node->end - node->start - 2;

	if (node->flags & JSON_F_ESCAPED)
	{
		int at = jsonb_reserve(w, len);

		len = json_string_decode(w->parser, node, w->out.data + at);
		w->out.len = at + len;
	}
	else
		jsonb_append(w, w->parser->text + node->start + 1, len);
	return JENTRY_ISSTRING | len;
}

/* The entry of a member or element, which holds its length, or now and then where it ends. */
static void
jsonb_set_entry(JsonbWriter *w, int entries, int i, JEntry entry, Size *total)
{
	*total += JBE_OFFLENFLD(entry);
	if (*total > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("total size of jsonb elements exceeds the maximum of %u bytes",
						JENTRY_OFFLENMASK)));
	if (i % JB_OFFSET_STRIDE == 0)
		entry = (entry & JENTRY_TYPEMASK) | *total | JENTRY_HAS_OFF;
	memcpy(w->out.data + entries + sizeof(JEntry) * i, &entry, sizeof(entry));
}

/* The header of a container and room for its entries; returns their place. */
static int
jsonb_begin(JsonbWriter *w, uint32 header, uint32 n, uint32 entries)
{
	if (n > JB_CMASK || entries > MaxAllocSize / sizeof(JEntry))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("number of jsonb elements exceeds the maximum")));
	header |= n;
	jsonb_align(w);
	jsonb_append(w, &header, sizeof(header));
	return jsonb_reserve(w, sizeof(JEntry) * entries);
}

static JEntry
jsonb_write_array(JsonbWriter *w, const JsonNode *node)
{
	const JsonNode *nodes = w->parser->nodes;
	int				start = w->out.len;
	int				entries = jsonb_begin(w, JB_FARRAY, node->count, node->count);
	Size			total = 0;
	int				n = 0;

	for (uint32 i = node->child; i != 0; i = nodes[i].next)
		jsonb_set_entry(w, entries, n++, jsonb_write(w, i), &total);
	return JENTRY_ISCONTAINER | (w->out.len - start);
}

static int
jsonb_compare_keys(const JsonbMember *a, const JsonbMember *b)
{
	return a->len != b->len ? a->len - b->len : memcmp(a->key, b->key, a->len);
}

/* Of the same keys the one that came last is first. */
static int
jsonb_compare_members(const void *x, const void *y)
{
	const JsonbMember *a = x;
	const JsonbMember *b = y;
	int				   c = jsonb_compare_keys(a, b);

	return c != 0 ? c : a->value > b->value ? -1 : 1;
}

/* Sorts; returns how many different keys there are. */
static int
jsonb_sort_members(JsonbMember *members, int n)
{
	int kept = 0;

	if (n > JSON_FEW_MEMBERS)
		qsort(members, n, sizeof(JsonbMember), jsonb_compare_members);
	else
		for (int i = 1; i < n; i++)
		{
			JsonbMember member = members[i];
			int			k = i;

			for (; k > 0 && jsonb_compare_members(&members[k - 1], &member) > 0; k--)
				members[k] = members[k - 1];
			members[k] = member;
		}
	for (int i = 0; i < n; i++)
		if (kept == 0 || jsonb_compare_keys(&members[kept - 1], &members[i]) != 0)
			members[kept++] = members[i];
	return kept;
}

static JEntry
jsonb_write_object(JsonbWriter *w, const JsonNode *node)
{
	const JsonParser *parser = w->parser;
	const JsonNode	 *nodes = parser->nodes;
	JsonbMember		  few[JSON_FEW_MEMBERS];
	JsonbMember		 *members = few;
	int				  start = w->out.len;
	int				  entries;
	Size			  total = 0;
	int				  n = 0;

	if (node->count > JSON_FEW_MEMBERS)
		members = palloc_extended(sizeof(JsonbMember) * node->count, MCXT_ALLOC_HUGE);
	for (uint32 i = node->child; i != 0; i = nodes[nodes[i].next].next)
	{
		JsonbMember *member = &members[n++];

		member->key = parser->text + nodes[i].start + 1;
		member->len = nodes[i].end - nodes[i].start - 2;
		member->value = nodes[i].next;
		if (nodes[i].flags & JSON_F_ESCAPED)
		{
			char *decoded = palloc(member->len + 1);

			member->len = json_string_decode(parser, &nodes[i], decoded);
			member->key = decoded;
		}
	}
	n = jsonb_sort_members(members, n);
	entries = jsonb_begin(w, JB_FOBJECT, n, n * 2);
	for (int i = 0; i < n; i++)
	{
		jsonb_append(w, members[i].key, members[i].len);
		jsonb_set_entry(w, entries, i, JENTRY_ISSTRING | members[i].len, &total);
	}
	for (int i = 0; i < n; i++)
		jsonb_set_entry(w, entries, n + i, jsonb_write(w, members[i].value), &total);
	if (members != few)
		pfree(members);
	return JENTRY_ISCONTAINER | (w->out.len - start);
}

static JEntry
jsonb_write(JsonbWriter *w, uint32 index)
{
	const JsonNode *node = &w->parser->nodes[index];

	switch ((JsonType) node->type)
	{
		case JSON_NULL:
			break;
		case JSON_TRUE:
			return JENTRY_ISBOOL_TRUE;
		case JSON_FALSE:
			return JENTRY_ISBOOL_FALSE;
		case JSON_NUMBER:
			return jsonb_write_number(w, node);
		case JSON_STRING:
			return jsonb_write_string(w, node);
		case JSON_ARRAY:
			check_stack_depth();
			return jsonb_write_array(w, node);
		case JSON_OBJECT:
			check_stack_depth();
			return jsonb_write_object(w, node);
	}
	return JENTRY_ISNULL;
}

Jsonb *
json_node_to_jsonb(const JsonParser *parser, uint32 index)
{
	const JsonNode *node = &parser->nodes[index];
	JsonbWriter		w = {.parser = parser};
	Size			total = 0;
	int				entries;

	Assert((node->flags & JSON_F_BAD) == 0);
	/* Mostly enough: jsonb has four bytes for each value, the text has quotes and commas. */
	w.out.maxlen = 64 + (node->end - node->start) + (node->end - node->start) / 4;
	w.out.data = palloc(w.out.maxlen);
	w.out.len = VARHDRSZ;
	if (node->type == JSON_ARRAY || node->type == JSON_OBJECT)
		(void) jsonb_write(&w, index);
	else
	{
		/* jsonb keeps a single value as an array of it. */
		entries = jsonb_begin(&w, JB_FARRAY | JB_FSCALAR, 1, 1);
		jsonb_set_entry(&w, entries, 0, jsonb_write(&w, index), &total);
	}
	SET_VARSIZE(w.out.data, w.out.len);
	return (Jsonb *) w.out.data;
}

Jsonb *
json_to_jsonb(const JsonParser *parser)
{
	return json_node_to_jsonb(parser, JSON_ROOT);
}
