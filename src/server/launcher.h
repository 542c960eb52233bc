/*
 * launcher.h
 *	  The process that starts workers when they are due.  See launcher.c.
 */
#ifndef FLOHSYNC_LAUNCHER_H
#define FLOHSYNC_LAUNCHER_H

extern void				launcher_register(void);
extern bool				launcher_has(const char *database);
extern PGDLLEXPORT void flohsync_launcher_main(Datum arg);

#endif /* FLOHSYNC_LAUNCHER_H */
