/*
 * run_as.h
 *	  Whose rights are in force.  See run_as.c.
 */
#ifndef FLOHSYNC_RUN_AS_H
#define FLOHSYNC_RUN_AS_H

/* What was in force before run_as_begin; for run_as_end. */
typedef struct RunAs
{
	Oid			user;
	int			context;
	int			guc_level;
} RunAs;

extern Oid	run_as_worker_role(void);
extern Oid	run_as_caller(void);
extern Oid	run_as_role(Oid wanted, Oid code_owner);
extern void run_as_begin(RunAs *saved, Oid role);
extern void run_as_end(const RunAs *saved);
extern Datum run_as_call(Oid role, Oid function, int nargs, const Datum *args, bool *isnull);

#endif							/* FLOHSYNC_RUN_AS_H */
