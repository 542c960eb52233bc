/*
 * sqlfn_cache.h
 *	  What the files of the cache's SQL functions share.
 */
#ifndef FLOHSYNC_SQLFN_CACHE_H
#define FLOHSYNC_SQLFN_CACHE_H

#include "cache.h"

/* While the rights of the extension's owner are on; an error takes them away as well. */
typedef struct OwnerRights
{
	Oid			user;
	int			context;
	int			guc_level;
} OwnerRights;

extern void owner_rights_begin(OwnerRights *rights, Oid function);
extern void owner_rights_end(OwnerRights *rights);

extern void fetch_check(Oid fetcher);
extern Jsonb *fetch_record(Oid function, const CacheKey *key, Oid fetcher);

#endif							/* FLOHSYNC_SQLFN_CACHE_H */
