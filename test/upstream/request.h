/*
 * request.h
 *	  A command as a client sends it.  See request.c.
 */
#ifndef UPSTREAM_REQUEST_H
#define UPSTREAM_REQUEST_H

#include "buf.h"

typedef struct request
{
	char	command[80];
	char	external_id[512];
	char	cursor[512];
	bool	has_cursor;
	long	page_size; /* 0: not given */
	bool	has_since;
	bool	bad_since; /* modifiedSince is no time */
	int64_t since;	   /* microseconds */
} request;

extern bool request_parse(const char *json, size_t n, request *q);
extern bool request_member(const char *json, size_t n, const char *name, char *out, size_t size);
extern const char *request_type(const request *q, char *type, size_t size, bool *single);

#endif
