/*
 * definition.h
 *	  Between definition.c and definition_values.c.
 */
#ifndef FLOHSYNC_REST_DEFINITION_H
#define FLOHSYNC_REST_DEFINITION_H

#include "rest/rest.h"

/* In bytes, where validate_definition counts characters. */
#define DEFINITION_MAX_BYTES   (1024 * 1024)
#define DEFINITION_MAX_TEXT	   (8000 * 4)
#define DEFINITION_MAX_PATH	   (1000 * 4)
#define DEFINITION_MAX_NESTING 64
#define DEFINITION_EXCERPT	   60

typedef struct Reader
{
	JsonParser *json;
	uint32		resources;
} Reader;

/* Where the placeholders beside {{config.…}} may stand. */
typedef enum Placeholders
{
	ALLOW_NONE = 0,
	ALLOW_SECRET = 1,
	ALLOW_SINCE = 2,
	ALLOW_PARENT = 4,
	ALLOW_EXTERNAL_ID = 8
} Placeholders;

#define CHOICE(object, key, ...) \
	definition_choice(r, object, key, (const char *const[]){__VA_ARGS__}, \
					  lengthof(((const char *const[]){__VA_ARGS__})))

FLOHSYNC_NORETURN(extern void definition_error(const char *what));
FLOHSYNC_NORETURN(extern void definition_wrong(const char *key, const char *what));

/* rest/definition_values.c */
extern uint32 definition_member(Reader *r, uint32 object, const char *key);
extern char	 *definition_text(Reader *r, uint32 object, const char *key);
extern char	 *definition_name(Reader *r, uint32 object, const char *key);
extern void	  definition_check_header(const char *key, const char *name);
extern char	 *definition_header(Reader *r, uint32 object, const char *key);
extern int	  definition_choice(Reader *r, uint32 object, const char *key, const char *const *words,
								int n);
extern uint32 definition_object(Reader *r, uint32 object, const char *key);
extern uint32 definition_list(Reader *r, uint32 object, const char *key, uint32 most);
extern int64  definition_int(Reader *r, uint32 object, const char *key, int64 min, int64 max,
							 int64 otherwise);
extern bool	  definition_bool(Reader *r, uint32 object, const char *key, bool otherwise);
extern Template *definition_template_of(const char *text, Placeholders allowed);
extern Template *definition_template(Reader *r, uint32 object, const char *key,
									 Placeholders allowed);
extern RestPath *definition_path_of(const char *text);
extern RestPath *definition_path(Reader *r, uint32 object, const char *key, const char *otherwise);
extern RestPaths definition_paths(Reader *r, uint32 object, const char *key, const char *otherwise);
extern RestParams definition_params(Reader *r, uint32 object, const char *key, uint32 most,
									bool only_texts, Placeholders allowed);
extern int		 *definition_statuses(Reader *r, uint32 object, const char *key, int min, int *n,
									  const int *otherwise, int notherwise);

#endif /* FLOHSYNC_REST_DEFINITION_H */
