/*
 * error_class.c
 *	  What is known of each kind of error.  See error_class.h.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/error_class.h"

#define OF_RUNS(id, name, retry, schedule, cursor, meaning) \
	[ERRCLASS_##id] = {name, false, retry, schedule, cursor, meaning},
#define OF_RECORDS(id, name, meaning) \
	[ERRCLASS_##id] = {name, true, RETRY_NEVER, false, false, meaning},

/* clang-format off */
const ErrorClassEntry error_class_entries[ERRCLASS_END] = {
	ERROR_CLASSES_OF_RUNS(OF_RUNS)
	ERROR_CLASSES_OF_RECORDS(OF_RECORDS)
};
/* clang-format on */
