/*
 * query.c
 *	  Whether a text is a query that kind sql can run.
 */
#include "postgres.h"

#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/memutils.h"

#include "source/query.h"

/*
 * query_problem: why a text is not one plain SELECT, or NULL.  Only
 * then is it safe to put it in parentheses.
 */
const char *
query_problem(const char *query)
{
	MemoryContext context = CurrentMemoryContext;
	const char *volatile problem = NULL;

	PG_TRY();
	{
		List	   *trees = raw_parser(query, RAW_PARSE_DEFAULT);
		SelectStmt *select;

		if (list_length(trees) != 1)
			problem = "it is not one statement";
		else if (!IsA(linitial_node(RawStmt, trees)->stmt, SelectStmt))
			problem = "it is not a SELECT";
		else
		{
			select = (SelectStmt *) linitial_node(RawStmt, trees)->stmt;
			if (select->intoClause)
				problem = "it has an INTO clause";
			else if (select->lockingClause)
				problem = "it locks rows";
			else if (strchr(query, ';') != NULL && linitial_node(RawStmt, trees)->stmt_len > 0)
				problem = "it ends with a semicolon";
		}
	}
	PG_CATCH();
	{
		ErrorData *edata;

		/* The parser holds nothing that would need a rollback. */
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (edata->sqlerrcode != ERRCODE_SYNTAX_ERROR &&
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR))
			PG_RE_THROW();
		FlushErrorState();
		problem = edata->message;
	}
	PG_END_TRY();
	return problem;
}
