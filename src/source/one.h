/*
 * one.h
 *	  One record, asked for where it comes from.  See source/one.c.
 */
#ifndef FLOHSYNC_SOURCE_ONE_H
#define FLOHSYNC_SOURCE_ONE_H

#include "datatype/timestamp.h"

#include "base/error_class.h"

typedef struct SourceOne
{
	bool		supported;	 /* the connector can be asked for one record */
	ErrorClass	error_class; /* of the problem, if it has one */
	const char *problem;	 /* NULL: there is an answer */
	char	   *record;		 /* as a JSON text, whole; NULL: the upstream has none */
	TimestampTz asked_at;	 /* it is no newer than that */
} SourceOne;

extern void source_fetch_one(const char *connector_id, const char *resource_type,
							 const char *external_id, SourceOne *one);

#endif /* FLOHSYNC_SOURCE_ONE_H */
