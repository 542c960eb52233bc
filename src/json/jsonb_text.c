/*
 * jsonb_text.c
 *	  jsonb as text, and strings in it: the same bytes as PostgreSQL's own output.
 *
 * That goes over each string character by character.  Most strings need no escape, which is
 * found out by looking, and then they are copied.
 */
#include "postgres.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "utils/builtins.h"
#include "utils/json.h"

#include "json/jsonb_text.h"

/* How many characters from the first on need no escape. */
static int
jsonb_plain(const char *text, int len)
{
	int plain = 0;

#ifdef __SSE2__
	for (; len - plain >= 16; plain += 16)
	{
		__m128i chunk = _mm_loadu_si128((const __m128i *) (text + plain));
		__m128i stop = _mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8('"')),
									_mm_cmpeq_epi8(chunk, _mm_set1_epi8('\\')));

		stop = _mm_or_si128(stop, _mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1F)), chunk));
		if (_mm_movemask_epi8(stop) != 0)
			break;
	}
#endif
	while (plain < len && (unsigned char) text[plain] >= 0x20 && text[plain] != '"' &&
		   text[plain] != '\\')
		plain++;
	return plain;
}

/* jsonb_put_string appends a text as a JSON string. */
void
jsonb_put_string(StringInfo out, const char *text, int len)
{
	if (jsonb_plain(text, len) < len)
	{
		char *copy = pnstrdup(text, len);

		escape_json(out, copy);
		pfree(copy);
		return;
	}
	if (unlikely(out->maxlen - out->len <= len + 2))
		enlargeStringInfo(out, len + 2);
	out->data[out->len] = '"';
	memcpy(out->data + out->len + 1, text, len);
	out->data[out->len + len + 1] = '"';
	out->len += len + 2;
}

static void
jsonb_put_scalar(StringInfo out, const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			jsonb_put_bytes(out, "null", 4);
			break;
		case jbvString:
			jsonb_put_string(out, v->val.string.val, v->val.string.len);
			break;
		case jbvNumeric:
			appendStringInfoString(
				out,
				DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric))));
			break;
		case jbvBool:
			if (v->val.boolean)
				jsonb_put_bytes(out, "true", 4);
			else
				jsonb_put_bytes(out, "false", 5);
			break;
		default:
			elog(ERROR, "unknown jsonb scalar type");
	}
}

/* jsonb_put appends a value. */
void
jsonb_put(StringInfo out, Jsonb *jsonb)
{
	JsonbIterator	  *it = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue		   v;
	bool			   scalar = false; /* stored as an array of one */
	bool			   first = true;   /* behind a bracket, or a key */

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		bool opens = token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT;

		if (!first && (opens || token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM))
			jsonb_put_bytes(out, ", ", 2);
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
				scalar = v.val.array.rawScalar;
				if (!scalar)
					jsonb_put_bytes(out, "[", 1);
				break;
			case WJB_BEGIN_OBJECT:
				jsonb_put_bytes(out, "{", 1);
				break;
			case WJB_KEY:
				jsonb_put_string(out, v.val.string.val, v.val.string.len);
				jsonb_put_bytes(out, ": ", 2);
				break;
			case WJB_VALUE:
			case WJB_ELEM:
				jsonb_put_scalar(out, &v);
				break;
			case WJB_END_ARRAY:
				if (!scalar)
					jsonb_put_bytes(out, "]", 1);
				break;
			case WJB_END_OBJECT:
				jsonb_put_bytes(out, "}", 1);
				break;
			default:
				elog(ERROR, "unknown jsonb iterator token");
		}
		first = opens || token == WJB_KEY;
	}
}
