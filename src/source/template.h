/*
 * template.h
 *	  Texts with placeholders.  See template.c.
 */
#ifndef FLOHSYNC_TEMPLATE_H
#define FLOHSYNC_TEMPLATE_H

#include "lib/stringinfo.h"

typedef enum TemplatePieceType
{
	TEMPLATE_LITERAL,
	TEMPLATE_CONFIG,
	TEMPLATE_SECRET,
	TEMPLATE_SINCE,
	TEMPLATE_SINCE_EPOCH,
	TEMPLATE_PARENT,
	TEMPLATE_EXTERNAL_ID
} TemplatePieceType;

typedef struct TemplatePiece
{
	TemplatePieceType type;
	char			 *text; /* the literal, or the name */
} TemplatePiece;

typedef struct Template
{
	int			   npieces;
	TemplatePiece *pieces;
	bool		   secret; /* there is a secret in it */
} Template;

/* The value of a placeholder, NULL when it has none. */
typedef const char *(*TemplateLookup)(void *arg, const TemplatePiece *piece);

/* Puts a value into a text; false when it cannot stand there. */
typedef bool (*TemplateEncoder)(StringInfo out, const char *value);

extern Template *template_parse(const char *text);
extern bool		 template_render(const Template *t, StringInfo out, TemplateEncoder literals,
								 TemplateEncoder values, TemplateLookup lookup, void *arg,
								 const TemplatePiece **missing);

#endif /* FLOHSYNC_TEMPLATE_H */
