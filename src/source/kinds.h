/*
 * kinds.h
 *	  The kinds of connectors, a row each; SOURCE_KIND is what a row stands for,
 *	  so there is no guard.  See README.md for what belongs to a kind.
 */
SOURCE_KIND(command)
SOURCE_KIND(sql)
SOURCE_KIND(rest)
