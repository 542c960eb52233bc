/*
 * ahead.c
 *	  Requests that are on their way before their turn, so that what a pass waits
 *	  for an upstream is shared by several pages (concurrency).
 *
 * A lane is a client with one request.  One lane is that of the request whose
 * turn it is; the others have requests that a kind foretells, by what makes them
 * the same request (a key).  When the turn of a key comes, its answer is taken if
 * it is on its way, and asked for if it is not.  So a pass asks for the same
 * pages, reads and applies them in the same order and judges them in the same way
 * as with one lane; what is foretold decides nothing.
 *
 * - No more requests are open than there are lanes: one that turned out to be in
 *   vain keeps its lane until its answer is there.
 * - An answer that is an error counts when its turn comes, as the first attempt at
 *   it.  Until then, nothing more is asked for ahead.  After it, all that failed
 *   beside it is forgotten, and the lanes come back into use one by one with each
 *   page that is good: a limit of the upstream is met by all of them together.
 * - What failed without an answer, or with 401 and perhaps the token of then, is
 *   asked for anew in its turn.
 * - A Retry-After is kept to by all, from when it came (pace.c).
 *
 * It costs, beside the memory of the answers (net/http_group.c), a request in
 * vain a lane where a list ends earlier than foretold.  If the answers do not fit
 * into that memory, there are fewer lanes from then on.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "net/crypto.h"
#include "source/ahead.h"

#define AHEAD_LOOK_MS 1000

typedef enum LaneState
{
	LANE_FREE,
	LANE_TURN,	 /* its request is the one whose turn it is */
	LANE_AHEAD,	 /* is foretold */
	LANE_IN_VAIN /* is not wanted any more, but open */
} LaneState;

typedef struct Lane
{
	HttpClient *client; /* NULL: not made yet */
	LaneState	state;
	char	   *key;
	char	   *url;
	bool		named;	 /* since ahead_begin() */
	bool		arrived; /* and looked at */
	bool		failed;	 /* with an error */
} Lane;

struct Ahead
{
	Source		*source;
	AheadArrived arrived;
	Lane		*lanes;
	int			 nlanes;
	int			 most;	/* lanes whose answers memory has room for */
	int			 width; /* lanes in use, after errors */
	int			 turn;	/* that lane */
	bool		 more;	/* the kind had more to ask for */
};

/* ahead_open makes lanes, as many as the source is to have; close it, also after an error. */
Ahead *
ahead_open(Source *source, AheadArrived arrived)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	Ahead		 *ahead = palloc0(sizeof(Ahead));
	bool alone = source->spec.probe || source->spec.in_transaction || source->spec.one_at_a_time;

	ahead->source = source;
	ahead->arrived = arrived;
	ahead->nlanes = ahead->most = ahead->width = alone ?
		1 :
		Max(1, Min(source->concurrency, SOURCE_MAX_LANES));
	ahead->lanes = palloc0(sizeof(Lane) * ahead->nlanes);
	MemoryContextSwitchTo(old);
	return ahead;
}

static void
ahead_forget(Lane *lane)
{
	if (lane->key)
		pfree(lane->key);
	if (lane->url)
	{
		crypto_wipe(lane->url, strlen(lane->url));
		pfree(lane->url);
	}
	lane->key = lane->url = NULL;
	lane->named = lane->arrived = lane->failed = false;
}

/* The lane's request, if it has one, does not matter any more. */
static void
ahead_free(Lane *lane)
{
	if (lane->client)
		http_drop(lane->client);
	ahead_forget(lane);
	lane->state = LANE_FREE;
}

void
ahead_close(Ahead *ahead)
{
	if (ahead == NULL)
		return;
	for (int i = 0; i < ahead->nlanes; i++)
	{
		http_client_close(ahead->lanes[i].client);
		ahead->lanes[i].client = NULL;
		ahead_forget(&ahead->lanes[i]);
	}
}

/* ahead_client is the client of the request whose turn it is. */
HttpClient *
ahead_client(const Ahead *ahead)
{
	Lane *lane = &ahead->lanes[ahead->turn];

	if (lane->client == NULL)
		lane->client = http_client_create();
	return lane->client;
}

/* Is an answer none, so that asking for more should wait?  A list may well not be there. */
static bool
ahead_is_error(int status)
{
	return status <= 0 || (status >= 400 && status != 404 && status != 410);
}

/* Looks at what has come since it was looked last. */
static void
ahead_look(Ahead *ahead)
{
	Source *source = ahead->source;

	for (int i = 0; i < ahead->nlanes; i++)
	{
		Lane *lane = &ahead->lanes[i];
		int64 wait_ms;
		int	  status;

		if ((lane->state != LANE_AHEAD && lane->state != LANE_IN_VAIN) || lane->arrived ||
			!http_has_ended(lane->client))
			continue;
		lane->arrived = true;
		status = http_early_status(lane->client);
		lane->failed = ahead_is_error(status);
		if (status == HTTP_NO_ROOM)
			ahead->most = ahead->width = Max(1, ahead->width / 2);
		if (status > 0 && ahead->arrived)
			ahead->arrived(source, lane->client);
		wait_ms = lane->failed && status > 0 ? http_early_retry_ms(lane->client) : 0;
		/* One that is too long for a run ends it, in its turn. */
		if (wait_ms > 0 && wait_ms <= (int64) flohsync_http_max_retry_wait * 1000)
			source->paused_until = Max(source->paused_until,
									   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms));
		if (lane->state == LANE_IN_VAIN)
			ahead_free(lane);
	}
}

static Lane *
ahead_find(Ahead *ahead, const char *key)
{
	for (int i = 0; i < ahead->nlanes; i++)
		if (ahead->lanes[i].state == LANE_AHEAD && strcmp(ahead->lanes[i].key, key) == 0)
			return &ahead->lanes[i];
	return NULL;
}

/* ahead_has: is a request on its way, or its answer there? */
bool
ahead_has(Ahead *ahead, const char *key)
{
	return ahead_find(ahead, key) != NULL;
}

/* A request is to be sent again: so something went wrong with it, and perhaps with others. */
static void
ahead_begin_again(Ahead *ahead)
{
	ahead_look(ahead);
	for (int i = 0; i < ahead->nlanes; i++)
		if (ahead->lanes[i].state == LANE_AHEAD && ahead->lanes[i].failed)
			ahead_free(&ahead->lanes[i]);
	ahead->width = 1;
}

/*
 * ahead_turn: the turn of a request has come, and the one before is done with.
 * True: it is on its way, to the address that was noted with it; false: it is to
 * be sent with ahead_client().
 */
bool
ahead_turn(Ahead *ahead, const char *key, const char **url)
{
	Lane *last = &ahead->lanes[ahead->turn];
	Lane *lane;
	int	  status;

	if (last->state == LANE_TURN && last->key && strcmp(last->key, key) == 0)
	{
		/* What has not changed may be asked for in any case: that is no error. */
		if (last->client == NULL || http_early_status(last->client) != 304)
			ahead_begin_again(ahead);
	}
	else if (last->state == LANE_TURN)
		ahead->width = Min(ahead->width + 1, ahead->most);
	/* Its answer may still be in use: it stays in the client until that is waited for again. */
	ahead_forget(last);
	last->state = LANE_FREE;

	lane = ahead_find(ahead, key);
	if (lane)
	{
		status = http_has_ended(lane->client) ? http_early_status(lane->client) : 200;
		lane->failed = ahead_is_error(status);
		if (status <= 0 || status == 401)
		{
			ahead_free(lane);
			lane = NULL;
		}
	}
	if (lane)
	{
		ahead->turn = (int) (lane - ahead->lanes);
		lane->state = LANE_TURN;
		*url = lane->url;
		return true;
	}
	/* The one whose turn it was: so the first lane made is always there to make others beside. */
	last->state = LANE_TURN;
	last->key = MemoryContextStrdup(ahead->source->context, key);
	return false;
}

/* May one more be sent before its turn? */
static bool
ahead_may(Ahead *ahead)
{
	int busy = 1; /* that of the turn */

	for (int i = 0; i < ahead->nlanes; i++)
	{
		if (ahead->lanes[i].failed)
			return false;
		busy += ahead->lanes[i].state == LANE_AHEAD || ahead->lanes[i].state == LANE_IN_VAIN;
	}
	return busy < ahead->width;
}

/* ahead_begin: what is foretold is named now. */
void
ahead_begin(Ahead *ahead)
{
	ahead_look(ahead);
	for (int i = 0; i < ahead->nlanes; i++)
		ahead->lanes[i].named = false;
	ahead->more = false;
}

/*
 * ahead_wants: a request is foretold; is it to be sent?  Not if it is on its way,
 * and not as long as there is no room for it.
 */
bool
ahead_wants(Ahead *ahead, const char *key)
{
	Lane *lane = ahead_find(ahead, key);

	if (lane)
	{
		lane->named = true;
		return false;
	}
	if (ahead->more || !ahead_may(ahead) || !source_pace_ready(ahead->source))
	{
		ahead->more = true;
		return false;
	}
	return true;
}

/* ahead_lane is a client for a request before its turn; NULL: there is none. */
HttpClient *
ahead_lane(Ahead *ahead)
{
	for (int i = 0; i < ahead->nlanes; i++)
	{
		Lane *lane = &ahead->lanes[i];

		if (lane->state != LANE_FREE)
			continue;
		if (lane->client == NULL)
			lane->client = http_client_beside(ahead_client(ahead));
		/* The files are used up: so many lanes must do. */
		if (lane->client == NULL)
			ahead->most = ahead->width = Max(1, Min(i, ahead->width));
		return lane->client;
	}
	return NULL;
}

/* ahead_sent: a client has sent the request of a key. */
void
ahead_sent(Ahead *ahead, HttpClient *client, const char *key, const char *url)
{
	for (int i = 0; i < ahead->nlanes; i++)
	{
		Lane *lane = &ahead->lanes[i];

		if (lane->client != client)
			continue;
		lane->state = LANE_AHEAD;
		lane->key = MemoryContextStrdup(ahead->source->context, key);
		lane->url = url ? MemoryContextStrdup(ahead->source->context, url) : NULL;
		lane->named = true;
	}
}

/* ahead_end: what was not named is in vain. */
void
ahead_end(Ahead *ahead)
{
	for (int i = 0; i < ahead->nlanes; i++)
	{
		Lane *lane = &ahead->lanes[i];

		if (lane->state != LANE_AHEAD || lane->named)
			continue;
		lane->state = LANE_IN_VAIN;
		if (lane->arrived)
			ahead_free(lane);
	}
}

/* Whatever page was read before has been applied, so its answer is not needed any more. */
static HttpClient *
ahead_begin_turn(Ahead *ahead)
{
	HttpClient *client = ahead_client(ahead);

	for (int i = 0; i < ahead->nlanes; i++)
		if (ahead->lanes[i].client && ahead->nlanes > 1)
			http_tidy(ahead->lanes[i].client);
	http_turn(client);
	return client;
}

/* ahead_ready: is the answer to the request whose turn it is there within so many milliseconds? */
bool
ahead_ready(Ahead *ahead, int ms)
{
	return http_await(ahead_begin_turn(ahead), ms);
}

/*
 * ahead_await waits for the answer to the request whose turn it is, and returns
 * true; or false when more may be asked for meanwhile.
 */
bool
ahead_await(Ahead *ahead)
{
	HttpClient *client = ahead_begin_turn(ahead);

	while (!http_has_ended(client))
	{
		long ms = AHEAD_LOOK_MS;

		ahead_look(ahead);
		if (ahead->more && ahead_may(ahead))
		{
			ms = Min(ms, source_pace_ms(ahead->source));
			if (ms <= 0)
				return false;
		}
		(void) http_await(client, ms);
	}
	return true;
}
