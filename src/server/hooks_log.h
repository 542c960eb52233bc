/*
 * hooks_log.h
 *	  Statements with secrets stay out of the server log.  See hooks_log.c.
 */
#ifndef FLOHSYNC_HOOKS_LOG_H
#define FLOHSYNC_HOOKS_LOG_H

extern void hooks_log_init(void);
extern void hooks_hide_statement(void);

#endif /* FLOHSYNC_HOOKS_LOG_H */
