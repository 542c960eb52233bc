/*
 * sql_private.h
 *	  Between kind_sql.c and sql_function.c.
 */
#ifndef FLOHSYNC_SQL_PRIVATE_H
#define FLOHSYNC_SQL_PRIVATE_H

#include "lib/stringinfo.h"
#include "utils/tuplestore.h"

#include "source/source.h"

typedef struct SqlState
{
	char			*query; /* of the type, or NULL: then there is a function, or nothing */
	char			*function;
	char			*list_command;
	char			*get_command; /* NULL: the function offers none */
	bool			 rights_known;
	Oid				 owner; /* with whose rights it runs; InvalidOid: there is none any more */
	char			*owner_name;
	Oid				 code_owner; /* of the function when it was set; of another one it is not run */
	char			*cursor;	 /* asked for */
	Tuplestorestate *spool;		 /* rows (external_id text, record text); see sql_receive() */
	TupleTableSlot	*slot;
	char			*answered; /* cursor of the page given last, "" for the first */
	char			*next;	   /* cursor of the one behind it, NULL: there is none */
	bool			 stepped;  /* the first row has been read */
	bool			 has_row;  /* slot holds the row to come */
	int64			 total;	   /* rows of the whole query, -1 unknown */
	TimestampTz		 queried_at;
	StringInfoData	 body;
	char **
		/* ids of records of the page that are too large to be in the body; NULL: no usable id */
		too_large;
	int ntoo_large;
} SqlState;

/* source/sql_function.c */
extern void sql_read_rights(Source *source);
extern Oid	sql_role(const SqlState *state, Oid code_owner);
extern bool sql_call_function(Source *source, const char *request, SourceAnswer *answer);

/* source/kind_sql.c, for sql_function.c */
extern void sql_room(Source *source, Size more);

#endif /* FLOHSYNC_SQL_PRIVATE_H */
