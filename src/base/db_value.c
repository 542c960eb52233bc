/*
 * db_value.c
 *	  Arrays for statements, and values of their rows.
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/bytes.h"
#include "base/db.h"
#include "base/db_value.h"

/* db_text_array makes a text[]; a slice without data is a null. */
Datum
db_text_array(const Slice *slices, int n)
{
	Size	   size = 0;
	int		   nulls = 0;
	int		   offset;
	ArrayType *array;
	char	  *p;
	bits8	  *bitmap;

	if (n == 0)
		return PointerGetDatum(construct_empty_array(TEXTOID));
	for (int i = 0; i < n; i++)
	{
		if (slices[i].data == NULL)
			nulls++;
		else
			size += INTALIGN(VARHDRSZ + slices[i].len);
	}
	offset = nulls ? ARR_OVERHEAD_WITHNULLS(1, n) : ARR_OVERHEAD_NONULLS(1);
	array = palloc_extended(offset + size, MCXT_ALLOC_HUGE);
	memset(array, 0, offset);
	if (!AllocSizeIsValid(offset + size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("total size of the records of a page is too large")));
	SET_VARSIZE(array, offset + size);
	array->ndim = 1;
	array->dataoffset = nulls ? offset : 0;
	array->elemtype = TEXTOID;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	bitmap = ARR_NULLBITMAP(array);
	p = ARR_DATA_PTR(array);
	for (int i = 0; i < n; i++)
	{
		int len = slices[i].len;

		if (slices[i].data == NULL)
			continue;
		if (bitmap)
			bitmap[i / 8] |= 1 << (i % 8);
		SET_VARSIZE(p, VARHDRSZ + len);
		memcpy(VARDATA(p), slices[i].data, len);
		memset(p + VARHDRSZ + len, 0, INTALIGN(VARHDRSZ + len) - (VARHDRSZ + len));
		p += INTALIGN(VARHDRSZ + len);
	}
	return PointerGetDatum(array);
}

/* db_uuid_array makes a uuid[]. */
Datum
db_uuid_array(const pg_uuid_t *ids, int n)
{
	Datum	  *elements = palloc(sizeof(Datum) * Max(n, 1));
	ArrayType *array;

	for (int i = 0; i < n; i++)
		elements[i] = UUIDPGetDatum(&ids[i]);
	array = construct_array(elements, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
	pfree(elements);
	return PointerGetDatum(array);
}

/* db_get_texts returns the elements of a text[] in a result, copied; -1 when it is null. */
int
db_get_texts(uint64 row, int column, char ***texts, MemoryContext context)
{
	bool		  isnull;
	Datum		  value = db_value(row, column, &isnull);
	Datum		 *elements;
	bool		 *nulls;
	int			  n;
	MemoryContext old;

	*texts = NULL;
	if (isnull)
		return -1;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &n);
	old = MemoryContextSwitchTo(context);
	*texts = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*texts)[i] = nulls[i] ? pstrdup("") : TextDatumGetCString(elements[i]);
	MemoryContextSwitchTo(old);
	return n;
}

/* db_get_text copies a value, which may be null, into a memory context. */
char *
db_get_text(uint64 row, int column, MemoryContext context)
{
	char *text = db_text(row, column);

	return text ? MemoryContextStrdup(context, text) : NULL;
}

/* db_get_bytea likewise. */
bytea *
db_get_bytea(uint64 row, int column, MemoryContext context)
{
	bool		  isnull;
	Datum		  value = db_value(row, column, &isnull);
	MemoryContext old;
	bytea		 *copy;

	if (isnull)
		return NULL;
	old = MemoryContextSwitchTo(context);
	copy = DatumGetByteaPCopy(value);
	MemoryContextSwitchTo(old);
	return copy;
}
