/*
 * worker_obstacle.c
 *	  What the catalogs say that keeps workers from a database.
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "base/guc.h"
#include "server/worker.h"

/*
 * worker_obstacle is why the role of the workers cannot work in a database, or
 * NULL; the role is returned, too.
 */
const char *
worker_obstacle(Oid database, Oid *role)
{
	HeapTuple tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(flohsync_worker_role));
	bool	  may_log_in;

	*role = InvalidOid;
	if (!HeapTupleIsValid(tuple))
		return "the role of flohsync.worker_role does not exist";
	*role = ((Form_pg_authid) GETSTRUCT(tuple))->oid;
	may_log_in = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (!may_log_in)
		return "the role of flohsync.worker_role may not log in";
	if (superuser_arg(*role))
		return "the role of flohsync.worker_role is a superuser";
	if (!compat_may_connect(database, *role))
		return "the role of flohsync.worker_role may not connect to this database";
	return NULL;
}
