/*
 * hex.h
 *	  Hexadecimal digits.  Includes nothing.
 */
#ifndef FLOHSYNC_HEX_H
#define FLOHSYNC_HEX_H

/* The value of a digit of either case, or -1. */
static inline int
hex_digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * The byte that the two digits at p spell, or -1; the second is not looked at where the
 * first is none.
 */
static inline int
hex_byte(const void *p)
{
	const unsigned char *digits = p;
	int					 high = hex_digit(digits[0]);
	int					 low = high < 0 ? -1 : hex_digit(digits[1]);

	return low < 0 ? -1 : high << 4 | low;
}

#endif /* FLOHSYNC_HEX_H */
