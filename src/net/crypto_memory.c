/*
 * crypto_memory.c
 *	  Clear texts in memory of PostgreSQL: wiped when it is given back.
 *
 * A memory context is reset or deleted on every way out of a piece of work, an
 * error's among them.  So a clear text is registered with the context that it
 * lives in, once it has its final size and place: one that is moved later would
 * leave a copy behind, and be wiped where it is not any more.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "net/crypto.h"
#include "net/crypto_memory.h"

typedef struct WipedText
{
	MemoryContextCallback callback;
	void				 *data;
	size_t				  len;
} WipedText;

static void
memory_wipe(void *arg)
{
	WipedText *text = arg;

	crypto_wipe(text->data, text->len);
}

/*
 * crypto_wipe_with has bytes of a context wiped when the context is reset; they must not be
 * freed before.
 */
void
crypto_wipe_with(MemoryContext context, void *data, size_t len)
{
	WipedText *text = MemoryContextAlloc(context, sizeof(WipedText));

	text->data = data;
	text->len = len;
	text->callback.func = memory_wipe;
	text->callback.arg = text;
	MemoryContextRegisterResetCallback(context, &text->callback);
}

/* crypto_join is a + b + c in memory of a context, wiped with it. */
char *
crypto_join(MemoryContext context, const char *a, const char *b, const char *c)
{
	size_t an = strlen(a);
	size_t bn = strlen(b);
	size_t size = an + bn + strlen(c) + 1;
	char  *text = MemoryContextAlloc(context, size);

	crypto_wipe_with(context, text, size);
	memcpy(text, a, an);
	memcpy(text + an, b, bn);
	strcpy(text + an + bn, c);
	return text;
}
