/*
 * scan.h
 *	  Strings, numbers and words of a JSON text.  Part of json.c, whose speed
 *	  needs them inlined: nobody else includes it.
 */
#ifndef FLOHSYNC_JSON_SCAN_H
#define FLOHSYNC_JSON_SCAN_H

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "json/json.h"

/* With at most this many digits every decimal number survives a double. */
#define JSON_SAFE_DIGITS 15

typedef const unsigned char *Bytes;

typedef struct JsonScan
{
	Bytes		base;
	Bytes		end;
	JsonParser *parser;
} JsonScan;

static Bytes
json_fail(JsonScan *scan, Bytes at, const char *error)
{
	scan->parser->error = at >= scan->end ? "unexpected end" : error;
	scan->parser->error_offset = at - scan->base;
	return NULL;
}

/* p is at a backslash; returns the byte after the escape, a pair of surrogates being one. */
static Bytes
json_scan_escape(JsonScan *scan, Bytes p, unsigned *flags)
{
	int unit;

	*flags |= JSON_F_ESCAPED | JSON_F_REWRITE;
	if (scan->end - p < 2)
		return json_fail(scan, scan->end, NULL);
	switch (p[1])
	{
		case '"':
		case '\\':
		case '/':
		case 'b':
		case 'f':
		case 'n':
		case 'r':
		case 't':
			return p + 2;
		case 'u':
			break;
		default:
			return json_fail(scan, p, "unknown escape");
	}
	for (int i = 2; i < 6; i++)
	{
		if (p + i >= scan->end)
			return json_fail(scan, scan->end, NULL);
		if (hex_digit(p[i]) < 0)
			return json_fail(scan, p, "\\u without four hex digits");
	}
	unit = json_hex4(p + 2);
	p += 6;
	if (unit >= 0xD800 && unit <= 0xDBFF && scan->end - p >= 6 && p[0] == '\\' && p[1] == 'u')
	{
		int low = json_hex4(p + 2);

		if (low >= 0xDC00 && low <= 0xDFFF)
			return p + 6;
	}
	if (unit == 0 || (unit >= 0xD800 && unit <= 0xDFFF))
		*flags |= JSON_F_BAD_ESCAPE;
	return p;
}

/* p is after the opening quote; returns the byte after the closing one. */
static inline Bytes
json_scan_string(JsonScan *scan, Bytes p, unsigned *flags_out)
{
	Bytes	 end = scan->end;
	unsigned flags = 0;
	unsigned high = 0;

	for (;;)
	{
#ifdef __SSE2__
		while (end - p >= 16)
		{
			__m128i	 chunk = _mm_loadu_si128((const __m128i *) p);
			__m128i	 stop;
			unsigned mask;

			stop = _mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8('"')),
								_mm_cmpeq_epi8(chunk, _mm_set1_epi8('\\')));
			stop = _mm_or_si128(stop,
								_mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1F)), chunk));
			mask = _mm_movemask_epi8(stop);
			if (mask != 0)
			{
				high |= _mm_movemask_epi8(chunk) & (mask ^ (mask - 1));
				p += __builtin_ctz(mask);
				goto stopped;
			}
			high |= _mm_movemask_epi8(chunk);
			p += 16;
		}
#endif
		while (p < end && *p != '"' && *p != '\\' && *p >= 0x20)
			high |= *p++ & 0x80;
		if (unlikely(p >= end))
			return json_fail(scan, end, NULL);
#ifdef __SSE2__
stopped:
#endif
		if (likely(*p == '"'))
			break;
		if (*p != '\\')
			return json_fail(scan, p, "control character in a string");
		p = json_scan_escape(scan, p, &flags);
		if (p == NULL)
			return NULL;
	}
	if (high)
		flags |= JSON_F_NON_ASCII;
	*flags_out = flags;
	return p + 1;
}

/* Whether a literal is out of bounds; also true where numeric input would fail for a zero. */
static bool
json_number_is_bad(const JsonParser *parser, Bytes p, Bytes end)
{
	int64_t point = 0; /* digits between the first significant one and the point */
	int64_t exponent = 0;
	bool	significant = false;
	bool	fraction = false;

	if (end - p > parser->max_number_length)
		return true;
	for (; p < end && *p != 'e' && *p != 'E'; p++)
	{
		if (*p == '.')
			fraction = true;
		else if (*p != '-')
		{
			if (*p != '0')
				significant = true;
			if (significant ? !fraction : fraction)
				point += significant ? 1 : -1;
		}
	}
	if (p < end)
	{
		bool negative = p[1] == '-';

		for (p += (p[1] == '-' || p[1] == '+') ? 2 : 1; p < end; p++)
			exponent = exponent < INT32_MAX ? exponent * 10 + (*p - '0') : exponent;
		if (negative)
			exponent = -exponent;
	}
	if (!significant)
		return exponent < -4096 || exponent >= INT32_MAX / 2;
	exponent += point - 1;
	return exponent > parser->max_exponent || exponent < -(int64_t) parser->max_exponent;
}

/* p is at the first byte of a number; returns the byte after it. */
static inline Bytes
json_scan_number(JsonScan *scan, Bytes p, unsigned *flags_out)
{
	Bytes	 end = scan->end;
	Bytes	 start = p;
	Bytes	 whole;
	Bytes	 fraction = NULL;
	unsigned flags = 0;
	bool	 exponent = false;

	if (*p == '-')
		p++;
	whole = p;
	if (p < end && *p == '0')
		p++;
	else
	{
		while (p < end && (unsigned) (*p - '0') <= 9)
			p++;
		if (p == whole)
			return json_fail(scan, p, "a number without digits");
	}
	if (p < end && *p == '.')
	{
		fraction = ++p;
		while (p < end && (unsigned) (*p - '0') <= 9)
			p++;
		if (p == fraction)
			return json_fail(scan, p, "a number without digits after the point");
	}
	if (p < end && (*p | 0x20) == 'e')
	{
		Bytes digits;

		exponent = true;
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		digits = p;
		while (p < end && (unsigned) (*p - '0') <= 9)
			p++;
		if (p == digits)
			return json_fail(scan, p, "a number without digits in its exponent");
	}

	/* Canonical as it stands: short, no exponent, no -0, no idle zero, not below 1e-6. */
	if (exponent || p - whole > JSON_SAFE_DIGITS)
		flags = JSON_F_REWRITE;
	else if (fraction == NULL ? (whole != start && *whole == '0') :
								(p[-1] == '0' || (*whole == '0' && *fraction == '0')))
		flags = JSON_F_REWRITE;
	if ((exponent || p - start > 64) && json_number_is_bad(scan->parser, start, p))
		flags |= JSON_F_BAD_NUMBER;
	*flags_out = flags;
	return p;
}

static inline Bytes
json_scan_word(JsonScan *scan, Bytes p, const char *word, int len)
{
	for (int i = 0; i < len; i++)
	{
		if (p + i >= scan->end || p[i] != (unsigned char) word[i])
			return json_fail(scan, p + i, "unexpected character");
	}
	return p + len;
}

static Bytes
json_skip_space(Bytes p, Bytes end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

#endif /* FLOHSYNC_JSON_SCAN_H */
