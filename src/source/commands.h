/*
 * commands.h
 *	  The command protocol.  See source/commands.c.
 */
#ifndef FLOHSYNC_SOURCE_COMMANDS_H
#define FLOHSYNC_SOURCE_COMMANDS_H

#include "source/source.h"

extern char *command_list_name(const JsonParser *config, const char *type);
extern char *command_get_name(const JsonParser *config, const char *type);
extern char *command_list_request(const SourceSpec *spec, const char *command, const char *cursor);
extern char *command_get_request(const char *command, const char *external_id);
extern bool	 command_none_found(const Source *source, const SourceAnswer *answer);
extern bool	 command_read(Source *source, PageParser *parser, SourceAnswer *answer,
						  UpstreamPage *page);

#endif /* FLOHSYNC_SOURCE_COMMANDS_H */
