/*
 * bytes.h
 *	  Byte strings in memory owned elsewhere.
 */
#ifndef FLOHSYNC_BYTES_H
#define FLOHSYNC_BYTES_H

/* A byte string; data is NULL for an absent value, and is not NUL-terminated. */
typedef struct Slice
{
	const char *data;
	int			len;
} Slice;


#endif /* FLOHSYNC_BYTES_H */
