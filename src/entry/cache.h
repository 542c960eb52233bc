/*
 * cache.h
 *	  What the files of the cache's SQL functions share.
 */
#ifndef FLOHSYNC_SQLFN_CACHE_H
#define FLOHSYNC_SQLFN_CACHE_H

#include "cache/cache.h"

extern void	  fetch_check(Oid fetcher);
extern Jsonb *fetch_record(const CacheKey *key, Oid fetcher);

#endif /* FLOHSYNC_SQLFN_CACHE_H */
