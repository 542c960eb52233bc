/*
 * http_memory.c
 *	  Memory for libcurl: wiped when it is given back.
 *
 * libcurl copies what it sends, headers with credentials among it, into buffers
 * of its own that it frees as they are.  So it gets its memory from here.  If
 * something else in the process set libcurl up first, it keeps what it has.
 *
 * The buffer for what is received is large, and has nothing of ours.  It is wiped only in a
 * process that has asked for credentials (HttpRequest.is_secret): otherwise that would take a
 * tenth of a pass whose pages have not changed.
 *
 * Some of it is called in the thread of a resolver: nothing here may know of
 * PostgreSQL.
 */
#include "postgres.h"

#include <malloc.h>

#include "net/crypto.h"
#include "net/http.h"
#include "net/http_private.h"

static bool memory_is_secret = false;

/* http_memory_secret: credentials are going to be received. */
void
http_memory_secret(void)
{
	memory_is_secret = true;
}

/* Is a block of so many bytes the buffer for what is received?  malloc may have added a page. */
static bool
memory_is_receive_buffer(size_t size)
{
	return size > HTTP_RECEIVE_BYTES && size <= HTTP_RECEIVE_BYTES + 8192;
}

static void
http_free(void *data)
{
	size_t size = data ? malloc_usable_size(data) : 0;

	if (data != NULL && (memory_is_secret || !memory_is_receive_buffer(size)))
		crypto_wipe(data, size);
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
