/*
 * path.h
 *	  Paths of a definition, walked on the tree of an answer.  See rest/path.c.
 */
#ifndef FLOHSYNC_REST_PATH_H
#define FLOHSYNC_REST_PATH_H

#include "json/json.h"

typedef enum RestStepType
{
	REST_STEP_MEMBER,
	REST_STEP_INDEX,
	REST_STEP_ELEMENTS,
	REST_STEP_FILTER
} RestStepType;

typedef struct RestStep
{
	RestStepType		  type;
	char				 *name; /* of a member */
	uint32_t			  len;
	uint32_t			  index;
	struct RestCondition *condition; /* of a filter */
} RestStep;

typedef struct RestPath
{
	char	 *text;	  /* as in the definition */
	bool	  native; /* steps say it all; else PostgreSQL has to evaluate it */
	int		  nsteps; /* not native: those that lead up to what is not understood */
	RestStep *steps;
	void	 *compiled; /* not native: a jsonpath (rest/jsonpath.c) */
} RestPath;

/* Looks at an item that a path has found; true ends the walk. */
typedef bool (*RestVisitor)(void *arg, uint32_t node);

extern RestPath *rest_path_compile(const char *text);
extern int		 rest_path_list(const RestPath *path, bool *array);
extern bool rest_path_walk(const RestPath *path, int nsteps, const JsonParser *json, uint32_t node,
						   RestVisitor visitor, void *arg);
extern uint32_t rest_path_first(const RestPath *path, const JsonParser *json, uint32_t node,
								bool full, bool *found);

#endif /* FLOHSYNC_REST_PATH_H */
