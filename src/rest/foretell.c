/*
 * foretell.c
 *	  Which requests for pages are sent before their turn (concurrency).
 *
 * What is foretold is a position: the next pages of the list at hand, where its
 * pages are numbers and the list goes on in the same steps, and not behind the
 * total that the upstream reports; the first pages of the lists of the next
 * parents; and of a split list the turns that are known.  Single records are
 * announced by who will ask for them.  A position is known by its
 * parent, or part, and what stands for the page, so that what a parent's list goes
 * through meanwhile does not make another of it.
 *
 * A request is put together as in its turn, but never gets a token for it, and
 * what is wrong with it counts in its turn only.
 */
#include "postgres.h"

#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "rest/foretell.h"

/* Whether the page of a position is one that is foretold by its number. */
static bool
foretell_by_position(const RestDefinition *d)
{
	return d->pages.type == REST_PAGES_OFFSET || d->pages.type == REST_PAGES_PAGE;
}

/* rest_list_name is the parent or the part whose list is at hand; NULL: there is only one list. */
const char *
rest_list_name(const RestState *state)
{
	const RestParent *parent = rest_parent(state);

	return state->def->nsplit > 0 ? rest_split_value(state) : parent ? parent->external_id : NULL;
}

/* rest_key is what makes a request for a page, or a record, the same as another, palloc'd. */
char *
rest_key(const RestState *state, const char *list, const char *inner)
{
	StringInfoData key;

	if (state->external_id)
		return pstrdup(state->external_id);
	initStringInfo(&key);
	escape_json(&key, list ? list : "");
	/* Of "page:records so far" only the page goes into the request. */
	if (inner)
		appendBinaryStringInfo(&key, inner,
							   (int) (state->def->pages.type == REST_PAGES_PAGE ?
										  strcspn(inner, ":") :
										  strlen(inner)));
	else
		appendStringInfoString(&key, " first");
	return key.data;
}

/* rest_foretell_seen: it is the turn of the position at hand. */
void
rest_foretell_seen(RestState *state)
{
	const RestPagination *p = &state->def->pages;
	const char			 *inner = state->at.inner;
	char				  base[32];

	if (!foretell_by_position(state->def) || inner != NULL)
	{
		foretell_seen(&state->list->pages_ahead, inner, state->source->context);
		return;
	}
	snprintf(base, sizeof(base), p->type == REST_PAGES_PAGE ? "%d:0" : "%d", p->base);
	foretell_begin(&state->list->pages_ahead, base, state->source->context);
}

/* May a list have a page there, by what the upstream says of its length? */
static bool
foretell_is_within(const RestState *state, const RestList *list, const char *inner)
{
	const RestPagination *p = &state->def->pages;
	const char			 *colon = strchr(inner, ':');
	int64				  number = strtoll(inner, NULL, 10) - p->base;
	int64 passed = p->type == REST_PAGES_OFFSET ? number : colon ? strtoll(colon + 1, NULL, 10) : 0;

	if (p->type == REST_PAGES_PAGE && p->stop == REST_STOP_TOTAL_PAGES && list->total_pages > 0 &&
		number >= list->total_pages)
		return false;
	/* A full last page is followed by a look behind it. */
	return list->total <= 0 || passed <= list->total;
}

/* Is there a credential that a request can have without asking for one? */
static bool
foretell_has_credentials(const RestState *state)
{
	RestAuthType type = state->def->auth.type;

	if (type != REST_AUTH_CLIENT_CREDENTIALS && type != REST_AUTH_JWT)
		return true;
	return state->token != NULL && state->token_until > GetCurrentTimestamp();
}

/* The page of a list that many behind the one asked for last, palloc'd; NULL: not known. */
static char *
foretell_page(const RestState *state, const RestList *list, int ahead)
{
	char *inner = foretell_by_position(state->def) ? foretell_next(&list->pages_ahead, ahead) :
													 NULL;

	return inner && foretell_is_within(state, list, inner) ? inner : NULL;
}

/*
 * Sends the request that the state is at, if it is not on its way.  False: nothing
 * more can be sent.
 */
static bool
foretell_start(RestState *state, const char *inner)
{
	Ahead		 *lanes = rest_lanes(state);
	RestProblem	  problem = state->problem;
	MemoryContext context = state->request_context;
	char		 *url = state->url;
	char		 *key = rest_key(state, rest_list_name(state), inner);
	bool		  sent = true;
	bool		  skipped = false;

	if (ahead_wants(lanes, key))
	{
		state->early = foretell_has_credentials(state) ? ahead_lane(lanes) : NULL;
		sent = state->early != NULL;
	}
	if (state->early)
	{
		state->request_context = AllocSetContextCreate(state->source->context, "flohsync request",
													   ALLOCSET_SMALL_SIZES);
		sent = rest_send_now(state);
		skipped = state->problem.of_parent;
		if (sent)
			ahead_sent(lanes, state->early, key, state->url);
		state->early = NULL;
		MemoryContextDelete(state->request_context);
	}
	state->request_context = context;
	state->url = url;
	state->problem = problem;
	pfree(key);
	return sent || skipped;
}

/*
 * The first or a further page of a parent's list, or of a part of a split one; the
 * parent is by its place among those that are read.
 */
static bool
foretell_send(RestState *state, int place, char *inner)
{
	RestPosition at = state->at;
	int			 here = state->parent;
	RestTurn	 turn = {.part = place, .inner = inner};
	bool		 go_on;

	if (state->def->nsplit > 0)
	{
		state->at.turns = &turn;
		state->at.nturns = 1;
	}
	else
		state->parent = place;
	state->at.inner = inner;
	go_on = foretell_start(state, inner);
	state->parent = here;
	state->at = at;
	return go_on;
}

/* The single records behind the one at hand. */
static void
foretell_ones(RestState *state, int most)
{
	char *here = state->external_id;
	int	  at = 0;

	while (at < state->nexpected && strcmp(state->expected[at], here) != 0)
		at++;
	for (int i = at + 1; i < state->nexpected && i <= at + most; i++)
	{
		bool go_on;

		state->external_id = state->expected[i];
		go_on = foretell_start(state, NULL);
		state->external_id = here;
		if (!go_on)
			break;
	}
}

/*
 * Of a split list, the turns in their order, round after round: where a part goes
 * on in the next round is known as far as its pages are numbers.
 */
static void
foretell_turns(RestState *state, int most)
{
	int n = state->at.nturns;

	for (int i = 1; i <= most; i++)
	{
		RestTurn *turn = &state->at.turns[i % n];
		RestList *list = &state->lists[turn->part];
		char	 *inner = turn->inner;
		int		  round = i / n;

		if (i % n == 0)
			inner = foretell_page(state, list, round);
		else if (round > 0)
		{
			char *next = foretell_page(state, list, 1);

			inner = inner && next && strcmp(next, inner) == 0 ?
				foretell_page(state, list, round + 1) :
				NULL;
		}
		if ((inner || (round == 0 && i % n != 0)) && !foretell_send(state, turn->part, inner))
			break;
	}
}

/* The next pages of the list at hand, and the first ones of the next parents' lists. */
static void
foretell_pages(RestState *state, int most)
{
	bool go_on = true;

	for (int i = 1; i <= most && go_on; i++)
	{
		char *inner = foretell_page(state, state->list, i);

		if (inner == NULL)
			break;
		go_on = foretell_send(state, state->parent, inner);
	}
	/* Some more than there are lanes: parents may lack what a request needs. */
	for (int i = state->parent + 1;
		 state->def->parent_type && i < state->nparents && i <= state->parent + 2 * most && go_on;
		 i++)
		go_on = foretell_send(state, i, NULL);
}

/* rest_ask_ahead asks for what is foretold, as far as there is room for it. */
void
rest_ask_ahead(RestState *state)
{
	int most = state->source->concurrency - 1;

	if (most <= 0)
		return;
	ahead_begin(rest_lanes(state));
	if (state->external_id)
		foretell_ones(state, most);
	else if (state->def->nsplit > 0)
		foretell_turns(state, most);
	else
		foretell_pages(state, most);
	ahead_end(rest_lanes(state));
}

/* rest_arrived looks at an answer before its turn: is the upstream's limit used up? */
void
rest_arrived(Source *source, HttpClient *client)
{
	RestState *state = source->state;

	state->early = client;
	rest_note_limit(state);
	state->early = NULL;
}
