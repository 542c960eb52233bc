/*
 * spec.h
 *	  What source_open needs to know of a connector.  See source/spec.c.
 */
#ifndef FLOHSYNC_SOURCE_SPEC_H
#define FLOHSYNC_SOURCE_SPEC_H

#include "source/source.h"

extern bool source_read_spec(const char *connector_id, const char *resource_type, SourceSpec *spec,
							 MemoryContext context);

#endif /* FLOHSYNC_SOURCE_SPEC_H */
