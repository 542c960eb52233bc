/*
 * http_memory.c
 *	  Memory for libcurl: wiped when it is given back.
 *
 * libcurl copies what it sends, headers with credentials among it, into buffers
 * of its own that it frees as they are.  So it gets its memory from here.  If
 * something else in the process set libcurl up first, it keeps what it has.
 *
 * Some of it is called in the thread of a resolver: nothing here may know of
 * PostgreSQL.
 */
#include "postgres.h"

#include <malloc.h>

#include "net/crypto.h"
#include "net/http.h"
#include "net/http_private.h"

static void
http_free(void *data)
{
	if (data != NULL)
		crypto_wipe(data, malloc_usable_size(data));
	free(data);
}

static void *
http_realloc(void *data, size_t size)
{
	size_t had = data ? malloc_usable_size(data) : 0;
	void  *copy;

	if (data != NULL && size > 0 && size <= had)
		return data;
	copy = malloc(size);
	if (copy == NULL)
		return NULL;
	if (data != NULL)
		memcpy(copy, data, Min(had, size));
	http_free(data);
	return copy;
}

static char *
http_strdup(const char *text)
{
	return strdup(text);
}

/* http_memory_init sets libcurl up, once in a process. */
CURLcode
http_memory_init(void)
{
	return curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, http_free, http_realloc, http_strdup,
								calloc);
}
