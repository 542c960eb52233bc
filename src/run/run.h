/*
 * run.h
 *	  One run, from claim to end.  See run.c.
 */
#ifndef FLOHSYNC_RUN_H
#define FLOHSYNC_RUN_H

extern void run_execute(int64 run);
extern void run_report_stage(const char *stage);

#endif /* FLOHSYNC_RUN_H */
