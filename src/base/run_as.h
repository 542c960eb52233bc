/*
 * run_as.h
 *	  Whose rights are in force.  See run_as.c.
 */
#ifndef FLOHSYNC_RUN_AS_H
#define FLOHSYNC_RUN_AS_H

#include "fmgr.h"

/* What was in force before run_as_begin; for run_as_end. */
typedef struct RunAs
{
	Oid user;
	int context;
	int guc_level;
	Oid called_by;
	Oid called_as;
} RunAs;

extern Oid	 run_as_function_owner(Oid function);
extern Oid	 run_as_worker_role(void);
extern Oid	 run_as_caller(void);
extern Oid	 run_as_caller_to_note(void);
extern Oid	 run_as_role(Oid wanted, Oid code_owner);
extern void	 run_as_begin(RunAs *saved, Oid role);
extern void	 run_as_end(const RunAs *saved);
extern bool	 run_as_others(void);
extern Datum run_as_call(Oid role, Oid function, int nargs, const Datum *args, bool *isnull);

/* How the inner half of a public function runs (entry/rights.c). */
typedef enum RunAsInner
{
	RUN_AS_OWNER, /* as the owner of the outer half: our own code alone */
	RUN_AS_WORKER /* as flohsync.worker_role, like code of others */
} RunAsInner;

extern void	 run_as_begin_inner(RunAs *saved, RunAsInner how, Oid owner);
extern Datum run_as_invoke_inner(const RunAs *saved, RunAsInner how, FunctionCallInfo call);
extern void	 run_as_end_inner(const RunAs *saved, RunAsInner how);

extern void run_as_guard_init(void);

#endif /* FLOHSYNC_RUN_AS_H */
