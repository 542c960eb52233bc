/*
 * hooks_copy.h
 *	  COPY into the tables of the extension.  See hooks_copy.c.
 */
#ifndef FLOHSYNC_HOOKS_COPY_H
#define FLOHSYNC_HOOKS_COPY_H

#include "nodes/nodes.h"
#include "utils/relcache.h"

extern Relation hooks_copy_begin(Node *statement);
extern void		hooks_copy_end(Relation rel);

#endif /* FLOHSYNC_HOOKS_COPY_H */
