/*
 * rest_template.h
 *	  Texts with placeholders.  See rest_template.c.
 */
#ifndef FLOHSYNC_REST_TEMPLATE_H
#define FLOHSYNC_REST_TEMPLATE_H

#include "lib/stringinfo.h"

typedef enum RestPieceType
{
	REST_LITERAL, REST_CONFIG, REST_SECRET, REST_SINCE, REST_SINCE_EPOCH, REST_PARENT, REST_EXTERNAL_ID
} RestPieceType;

typedef struct RestPiece
{
	RestPieceType type;
	char	   *text;			/* the literal, or the name */
} RestPiece;

typedef struct RestTemplate
{
	int			npieces;
	RestPiece  *pieces;
	bool		secret;			/* there is a secret in it */
} RestTemplate;

/* The value of a placeholder, NULL when it has none. */
typedef const char *(*RestLookup) (void *arg, const RestPiece *piece);

/* Puts a value into a text; false when it cannot stand there. */
typedef bool (*RestEncoder) (StringInfo out, const char *value);

extern RestTemplate *rest_template_parse(const char *text);
extern bool rest_template_render(const RestTemplate *t, StringInfo out, RestEncoder literals, RestEncoder values,
								 RestLookup lookup, void *arg, const RestPiece **missing);

#endif							/* FLOHSYNC_REST_TEMPLATE_H */
