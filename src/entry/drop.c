/*
 * drop.c
 *	  SQL-callable: dropping a connector in many transactions.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/run_as.h"

/*
 * flohsync_drop_connector_in_parts is CALL drop_connector_in_parts: each part is a
 * transaction (sql/76_drop.sql), with the rights of the procedure's owner.
 */
PG_FUNCTION_INFO_V1(flohsync_drop_connector_in_parts);
PGDLLEXPORT Datum
flohsync_drop_connector_in_parts(PG_FUNCTION_ARGS)
{
	static DbQuery part = {"select _flohsync.drop_connector_part($1, $2, $3)",
						   3,
						   {TEXTOID, INT4OID, JSONBOID}};
	CallContext	  *call = (CallContext *) fcinfo->context;
	MemoryContext  context = CurrentMemoryContext;
	Datum		   v[3] = {0};
	char		   nulls[3] = {' ', ' ', 'n'};
	bool		   done;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg(
					 "flohsync.drop_connector_in_parts() cannot commit inside a transaction block"),
				 errhint("CALL it outside a transaction block, or drop the connector in one "
						 "transaction with flohsync.drop_connector().")));
	if (PG_ARGISNULL(0))
		nulls[0] = 'n';
	else
		v[0] = PointerGetDatum(PG_GETARG_TEXT_P_COPY(0));
	if (PG_ARGISNULL(1))
		nulls[1] = 'n';
	else
		v[1] = PG_GETARG_DATUM(1);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	do
	{
		RunAs saved;
		Datum state;

		CHECK_FOR_INTERRUPTS();
		PushActiveSnapshot(GetTransactionSnapshot());
		run_as_begin_inner(&saved, RUN_AS_OWNER, run_as_function_owner(fcinfo->flinfo->fn_oid));
		db_execute(&part, v, nulls);
		run_as_end_inner(&saved, RUN_AS_OWNER);
		state = db_value(0, 1, &done);
		if (nulls[2] == ' ')
			pfree(DatumGetPointer(v[2]));
		nulls[2] = done ? 'n' : ' ';
		if (!done)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			v[2] = PointerGetDatum(PG_DETOAST_DATUM_COPY(state));
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
		PopActiveSnapshot();
		SPI_commit();
	} while (!done);
	SPI_finish();
	PG_RETURN_VOID();
}
