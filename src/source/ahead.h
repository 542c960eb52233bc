/*
 * ahead.h
 *	  Requests that are on their way before their turn.  See ahead.c.
 */
#ifndef FLOHSYNC_SOURCE_AHEAD_H
#define FLOHSYNC_SOURCE_AHEAD_H

#include "source/source.h"

typedef struct Ahead Ahead;

/* Told of each answer as it comes; its turn may be later. */
typedef void (*AheadArrived)(Source *source, HttpClient *client);

extern Ahead	  *ahead_open(Source *source, AheadArrived arrived);
extern void		   ahead_close(Ahead *ahead);
extern HttpClient *ahead_client(const Ahead *ahead);
extern bool		   ahead_has(Ahead *ahead, const char *key);
extern bool		   ahead_turn(Ahead *ahead, const char *key, const char **url);
extern bool		   ahead_await(Ahead *ahead);
extern bool		   ahead_ready(Ahead *ahead, int ms);

/* What is foretold, from the next one on: begin, name each, end. */
extern void		   ahead_begin(Ahead *ahead);
extern bool		   ahead_wants(Ahead *ahead, const char *key);
extern HttpClient *ahead_lane(Ahead *ahead);
extern void		   ahead_sent(Ahead *ahead, HttpClient *client, const char *key, const char *url);
extern void		   ahead_end(Ahead *ahead);

#endif /* FLOHSYNC_SOURCE_AHEAD_H */
