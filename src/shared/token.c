/*
 * token.c
 *	  Access tokens that all processes share.
 *
 * If a new token invalidates the previous one, workers with tokens of their own
 * would invalidate them mutually.  So they share one.  A token is found by the
 * digest of everything in its request, secrets included: only a process that
 * could have requested it finds it.  It is kept as long as any process uses it,
 * and wiped when the last one releases it.
 *
 * While there is none, one process requests it: it has a claim, which expires, so
 * that a process that died does not block the others.
 *
 * Only under shared_preload_libraries; without it nothing is stored here, and each
 * process has its own token (rest/auth.c).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "shared/token.h"

#define SHARED_TOKENS 64

typedef struct SharedToken
{
	unsigned char key[SHMEM_TOKEN_KEY];
	TimestampTz	  until; /* 0: free */
	int			  users;
	char		  token[SHMEM_TOKEN_BYTES];
} SharedToken;

typedef struct TokenClaim
{
	unsigned char key[SHMEM_TOKEN_KEY];
	TimestampTz	  until; /* 0: free */
	int			  pid;
} TokenClaim;

typedef struct SharedTokens
{
	LWLock	   *lock;
	SharedToken tokens[SHARED_TOKENS];
	TokenClaim	claims[SHARED_TOKENS];
} SharedTokens;

static SharedTokens *shared = NULL;

Size
shmem_token_size(void)
{
	return MAXALIGN(sizeof(SharedTokens));
}

/* shmem_token_startup is called with AddinShmemInitLock held. */
void
shmem_token_startup(LWLock *lock)
{
	bool found;

	shared = ShmemInitStruct("flohsync tokens", shmem_token_size(), &found);
	if (found)
		return;
	memset(shared, 0, shmem_token_size());
	shared->lock = lock;
}

static SharedToken *
token_of(const unsigned char *key)
{
	for (int i = 0; i < SHARED_TOKENS; i++)
		if (shared->tokens[i].until != 0 &&
			memcmp(shared->tokens[i].key, key, SHMEM_TOKEN_KEY) == 0)
			return &shared->tokens[i];
	return NULL;
}

/*
 * shmem_token_get copies the token of a key into a buffer of SHMEM_TOKEN_BYTES; false: there
 * is none that is good.
 */
bool
shmem_token_get(const unsigned char *key, char *token, TimestampTz *until, bool *held)
{
	SharedToken *t;
	bool		 found;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	t = token_of(key);
	found = t != NULL && t->until > GetCurrentTimestamp();
	if (found)
	{
		strlcpy(token, t->token, SHMEM_TOKEN_BYTES);
		*until = t->until;
		t->users += !*held;
		*held = true;
	}
	LWLockRelease(shared->lock);
	return found;
}

/*
 * shmem_token_put keeps the token of a key, in the place of an older one, or of the one that
 * expires first; NULL: none.
 */
void
shmem_token_put(const unsigned char *key, const char *token, TimestampTz until, bool *held)
{
	SharedToken *t;
	int			 users;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	t = token_of(key);
	if (t == NULL && token != NULL)
	{
		t = &shared->tokens[0];
		for (int i = 1; i < SHARED_TOKENS; i++)
			if (shared->tokens[i].until < t->until)
				t = &shared->tokens[i];
	}
	users = t && t->until != 0 && memcmp(t->key, key, SHMEM_TOKEN_KEY) == 0 ? t->users : 0;
	if (t)
		explicit_bzero(t, sizeof(*t));
	/* One that does not fit is not shared, and the older one is of no use. */
	if (token && strlen(token) < SHMEM_TOKEN_BYTES)
	{
		memcpy(t->key, key, SHMEM_TOKEN_KEY);
		strcpy(t->token, token);
		t->until = until;
		t->users = users + !*held;
		*held = true;
	}
	LWLockRelease(shared->lock);
}

/* shmem_token_release: the caller does not use the token of a key any more. */
void
shmem_token_release(const unsigned char *key)
{
	SharedToken *t;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	t = token_of(key);
	if (t && --t->users <= 0)
		explicit_bzero(t, sizeof(*t));
	LWLockRelease(shared->lock);
}

/*
 * shmem_token_claim: may this process ask for the token of a key, until a time?  Not while
 * another one does.
 */
bool
shmem_token_claim(const unsigned char *key, TimestampTz until)
{
	TimestampTz now = GetCurrentTimestamp();
	TokenClaim *mine = NULL;
	bool		taken = false;

	if (shared == NULL)
		return true;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SHARED_TOKENS; i++)
	{
		TokenClaim *c = &shared->claims[i];

		if (c->until <= now || c->pid == MyProcPid)
			mine = mine ? mine : c;
		else if (memcmp(c->key, key, SHMEM_TOKEN_KEY) == 0)
			taken = true;
	}
	/* Where there is room for no more claims, one more token is got. */
	if (!taken && mine)
	{
		memcpy(mine->key, key, SHMEM_TOKEN_KEY);
		mine->until = until;
		mine->pid = MyProcPid;
	}
	LWLockRelease(shared->lock);
	return !taken;
}

/* shmem_token_unclaim: this process asks for no token any more. */
void
shmem_token_unclaim(void)
{
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SHARED_TOKENS; i++)
		if (shared->claims[i].pid == MyProcPid)
			explicit_bzero(&shared->claims[i], sizeof(TokenClaim));
	LWLockRelease(shared->lock);
}
