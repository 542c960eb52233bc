/*
 * hooks.h
 *	  What flohsync does about other people's commands.  See hooks.c.
 */
#ifndef FLOHSYNC_HOOKS_H
#define FLOHSYNC_HOOKS_H

extern void hooks_init(void);

#endif /* FLOHSYNC_HOOKS_H */
