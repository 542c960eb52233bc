/*
 * query.h
 *	  Queries of connectors of kind sql.  See source/query.c.
 */
#ifndef FLOHSYNC_SOURCE_QUERY_H
#define FLOHSYNC_SOURCE_QUERY_H

extern const char *query_problem(const char *query);

#endif /* FLOHSYNC_SOURCE_QUERY_H */
