/*
 * canonical_number.c
 *	  Numbers in canonical form: ECMAScript's Number::toString, with the
 *	  exception that canonical.c states.
 *
 * Most numbers never become a double: one of at most 15 digits comes back
 * from a double with the digits it had, so laying them out is enough.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include <math.h>

#include "json/canonical.h"
#include "common/shortest_dec.h"

/* With at most this many digits every decimal number survives a double. */
#define SAFE_DIGITS 15
/* A double prints with no more. */
#define DOUBLE_DIGITS 17
/* Well inside the range of normal doubles. */
#define SAFE_EXPONENT 290

/*
 * The digits d1..dk, which stand for 0.d1..dk * 10^point, as ECMAScript's
 * Number::toString lays them out.
 */
static int
layout_number(char *out, const char *digits, int k, int point)
{
	char *start = out;

	if (point > 0 && point <= 21)
	{
		if (k <= point)
		{
			memcpy(out, digits, k);
			memset(out + k, '0', point - k);
			return point;
		}
		memcpy(out, digits, point);
		out[point] = '.';
		memcpy(out + point + 1, digits + point, k - point);
		return k + 1;
	}
	if (point > -6 && point <= 0)
	{
		memcpy(out, "0.", 2);
		memset(out + 2, '0', -point);
		memcpy(out + 2 - point, digits, k);
		return k + 2 - point;
	}
	*out++ = *digits;
	if (k > 1)
	{
		*out++ = '.';
		memcpy(out, digits + 1, k - 1);
		out += k - 1;
	}
	*out++ = 'e';
	point--;
	*out++ = point < 0 ? '-' : '+';
	if (point < 0)
		point = -point;
	if (point >= 100)
		*out++ = '0' + point / 100;
	if (point >= 10)
		*out++ = '0' + point / 10 % 10;
	*out++ = '0' + point % 10;
	return out - start;
}

/* Takes the significant digits out of a literal; returns their number, 0 for a zero. */
static int
take_digits(const char *p, const char *end, char *digits, int64 *point)
{
	int	  k = 0;
	int64 exponent = 0;
	bool  fraction = false;

	*point = 0;
	for (; p < end && *p != 'e' && *p != 'E'; p++)
	{
		if (*p == '.')
			fraction = true;
		else if (*p != '-')
		{
			if (k > 0 || *p != '0')
			{
				digits[k++] = *p;
				if (!fraction)
					(*point)++;
			}
			else if (fraction)
				(*point)--;
		}
	}
	if (p < end)
	{
		bool negative = *++p == '-';

		for (p += *p == '-' || *p == '+'; p < end; p++)
			exponent = exponent < INT32_MAX ? exponent * 10 + (*p - '0') : exponent;
		*point += negative ? -exponent : exponent;
	}
	while (k > 0 && digits[k - 1] == '0')
		k--;
	return k;
}

/*
 * The shortest digits of a positive double, as ECMAScript wants them.
 * PostgreSQL's routine never gives a number midway between two doubles, which
 * ECMAScript does when that is shorter (1e23).  Such a number is an integer of
 * 2^53 or more, because a fraction midway has more than 17 digits.
 */
static int
shortest_digits(double value, char *digits, int64 *point)
{
	char buf[64];
	int	 len = double_to_shortest_decimal_bufn(value, buf);
	int	 k = take_digits(buf, buf + len, digits, point);

	for (int n = k - 1; k > SAFE_DIGITS && value >= 9007199254740992.0 && n > 0; n--)
	{
		char *mark;

		snprintf(buf, sizeof(buf), "%.*e", n - 1, value);
		if (strtod(buf, NULL) != value)
		{
			/* Above a power of two there is more room than below. */
			mark = strchr(buf, 'e');
			do
				mark--;
			while (mark > buf && (*mark == '9' || *mark == '.'));
			if (*mark == '9')
				break;
			(*mark)++;
			for (mark++; *mark != 'e'; mark++)
			{
				if (*mark != '.')
					*mark = '0';
			}
			if (strtod(buf, NULL) != value)
				break;
		}
		k = take_digits(buf, buf + strlen(buf), digits, point);
		n = k;
	}
	return k;
}

int
canonical_double(double value, char *out)
{
	char  digits[32];
	int64 point;
	int	  k;
	int	  sign = value < 0;

	if (value == 0)
	{
		*out = '0';
		return 1;
	}
	*out = '-';
	k = shortest_digits(fabs(value), digits, &point);
	return sign + layout_number(out + sign, digits, k, (int) point);
}

/* All digits, no exponent. */
static void
put_plain_number(Canonical *canonical, const char *digits, int k, int64 point)
{
	char *out;

	if (point <= 0)
	{
		out = canonical_reserve(canonical, 2 - point + k);
		memcpy(out, "0.", 2);
		memset(out + 2, '0', -point);
		memcpy(out + 2 - point, digits, k);
		canonical->len += 2 - point + k;
		return;
	}
	out = canonical_reserve(canonical, Max(point, k) + 1);
	if (k <= point)
	{
		memcpy(out, digits, k);
		memset(out + k, '0', point - k);
		canonical->len += point;
		return;
	}
	memcpy(out, digits, point);
	out[point] = '.';
	memcpy(out + point + 1, digits + point, k - point);
	canonical->len += k + 1;
}

void
canonical_append_number(Canonical *canonical, const char *text, uint32 len)
{
	char   stack[256];
	char  *digits = stack;
	char   shortest[32];
	char  *literal;
	int64  point;
	int64  shortest_point;
	int	   k;
	int	   shortest_k;
	double value;

	/* Nothing else grows, and these do by a factor of 80 (1e400). */
	if (canonical->limit != 0 && canonical->len > canonical->limit)
	{
		canonical->overflow = true;
		return;
	}
	if (len > sizeof(stack))
		digits = canonical_arena_alloc(&canonical->arena, len);
	k = take_digits(text, text + len, digits, &point);
	if (k == 0)
	{
		canonical_append_bytes(canonical, "0", 1);
		return;
	}
	if (*text == '-')
		canonical_append_bytes(canonical, "-", 1);
	if (k <= SAFE_DIGITS && point < SAFE_EXPONENT && point > -SAFE_EXPONENT)
	{
		canonical->len += layout_number(canonical_reserve(canonical, 40), digits, k, (int) point);
		return;
	}
	if (k > DOUBLE_DIGITS && k <= point)
	{
		put_plain_number(canonical, digits, k, point);
		return;
	}
	literal = len < sizeof(stack) / 2 && digits == stack ?
		stack + sizeof(stack) / 2 :
		canonical_arena_alloc(&canonical->arena, len + 1);
	memcpy(literal, text, len);
	literal[len] = '\0';
	value = fabs(strtod(literal, NULL));
	if (value == 0 || isinf(value))
	{
		put_plain_number(canonical, digits, k, point);
		return;
	}
	shortest_k = shortest_digits(value, shortest, &shortest_point);
	if (k <= point &&
		(k != shortest_k || point != shortest_point || memcmp(digits, shortest, k) != 0))
		put_plain_number(canonical, digits, k, point);
	else
		canonical->len += layout_number(canonical_reserve(canonical, 40), shortest, shortest_k,
										(int) shortest_point);
}
