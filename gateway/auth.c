/*
 * auth.c
 *	  Who sends a request: a JSON Web Token of an identity provider, or an API token
 *	  of this database.
 *
 * - A role never comes out of a token as it is: it is one of setting roles, or the
 *	 one that the database has for an API token.
 * - What was verified is remembered until it expires.  API tokens are remembered for as
 *	 long as the database tells us of those that are revoked, else for two seconds.
 * - Addresses that send bad tokens are refused for a while, before anything is
 *	 computed.
 */
#include "auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "config.h"
#include "db_connect.h"
#include "json_text.h"
#include "jwt.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "rate.h"
#include "request.h"
#include "token_cache.h"

#define API_PREFIX		"fls_"
#define API_TOKEN_MOST	200
#define SHORT_S			2
#define LONG_S			60
#define FILE_MS			2000
#define STATEMENT_TOKEN 123

typedef struct LookUp
{
	Request *r;
	void (*next)(Request *r);
	unsigned char hash[SHA256_DIGEST_LENGTH];
	const char	 *values[1];
	int			  lengths[1];
	int			  formats[1];
	char		 *token;
	unsigned	  generation; /* when it began */
	DbTask		  task;
} LookUp;

static JwtKeys	  *keys;
static struct stat keys_stat;
static TokenCache *cache;
static Rates	  *failures;
static unsigned	   generation; /* of what is known of API tokens */
static unsigned	   changes;	   /* of keys and settings, so far */
static Timer	   timer;

static const DbStatement token_statement = {
	"SELECT flohsync_api.api_token(token_hash => $1::bytea)::text, NULL, NULL", STATEMENT_TOKEN, 1};

void
identity_keep(Identity *i)
{
	i->refs++;
}

void
identity_drop(Identity *i)
{
	if (i == NULL || --i->refs > 0)
		return;
	free(i->role);
	free(i->claims);
	free(i->subject);
	free(i->user);
	free(i);
}

bool
identity_valid(const Identity *i)
{
	return i->ends > time(NULL) && i->changes == changes;
}

static void
drop_cached(void *value)
{
	identity_drop(value);
}

static bool
load_keys(void)
{
	JwtKeys	   *read = NULL;
	char		problem[512];
	struct stat now;

	if (config->jwt_keys == NULL)
	{
		jwt_keys_free(keys);
		keys = NULL;
		return true;
	}
	if (stat(config->jwt_keys, &now) != 0)
		memset(&now, 0, sizeof(now));
	keys_stat = now;
	if (!jwt_keys_load(config->jwt_keys, &read, problem, sizeof(problem)))
	{
		log_message(LOG_ERROR, "setting jwt_keys: %s%s", problem,
					keys != NULL ? "; the keys that were read before stay" : "");
		return false;
	}
	if (jwt_keys_warnings(read)[0] != '\0')
		log_message(LOG_WARNING, "setting jwt_keys: %s", jwt_keys_warnings(read));
	log_message(LOG_INFO, "%d keys for JSON Web Tokens", jwt_keys_count(read));
	jwt_keys_free(keys);
	keys = read;
	changes++;
	token_cache_flush(cache);
	return true;
}

/* A JWK Set is replaced when the identity provider changes its keys. */
static void
look_at_file(void *arg)
{
	struct stat now;

	(void) arg;
	if (config->jwt_keys == NULL || stat(config->jwt_keys, &now) != 0)
		return;
	if (now.st_mtim.tv_sec != keys_stat.st_mtim.tv_sec ||
		now.st_mtim.tv_nsec != keys_stat.st_mtim.tv_nsec || now.st_ino != keys_stat.st_ino ||
		now.st_size != keys_stat.st_size || now.st_mode != keys_stat.st_mode)
		load_keys();
}

static bool
check_paths(void)
{
	if (!jwt_path_valid(config->jwt_role_claim) ||
		(config->jwt_user_claim != NULL && !jwt_path_valid(config->jwt_user_claim)))
	{
		log_message(LOG_ERROR, "setting %s is not a path of a claim, such as .realm_access.roles",
					!jwt_path_valid(config->jwt_role_claim) ? "jwt_role_claim" : "jwt_user_claim");
		return false;
	}
	return true;
}

bool
auth_start(void)
{
	cache = token_cache_create(TOKEN_CACHE_ENTRIES, drop_cached);
	failures = rates_make();
	if (cache == NULL || !check_paths() || !load_keys())
		return false;
	loop_every(&timer, FILE_MS, look_at_file, NULL);
	return true;
}

void
auth_reload(void)
{
	check_paths();
	load_keys();
	changes++;
	token_cache_flush(cache);
}

void
auth_forget_tokens(void)
{
	generation++;
	token_cache_flush(cache);
}

/* The role of the database for one of the values of the claim, the first of setting roles that fits. */
static const char *
role_for(const JwtStrings *values)
{
	for (int i = 0; i < config->roles.n; i++)
	{
		const char *word = config->roles.word[i];
		const char *equals = strrchr(word, '=');
		size_t		n = equals != NULL ? (size_t) (equals - word) : strlen(word);

		for (int j = 0; j < values->count; j++)
		{
			if (strlen(values->values[j]) == n && memcmp(values->values[j], word, n) == 0)
				return equals != NULL ? equals + 1 : word;
		}
	}
	return NULL;
}

static char *
user_for(const JwtClaims *claims)
{
	JwtStrings values;
	char	  *user = NULL;

	if (config->jwt_user_claim == NULL || !jwt_claim(claims, config->jwt_user_claim, &values))
		return NULL;
	if (values.count == 1 && strlen(values.values[0]) == 36 &&
		strspn(values.values[0], "0123456789abcdefABCDEF-") == 36)
		user = must_copy(values.values[0]);
	jwt_strings_free(&values);
	return user;
}

static void
refuse(Request *r, const char *message, const char *error)
{
	char challenge[300];

	if (error != NULL)
	{
		metrics_count(METRIC_BAD_TOKEN);
		rate_take(failures, r->network, config->failures_per_second,
				  5 * config->failures_per_second);
		snprintf(challenge, sizeof(challenge), "Bearer error=\"%s\", error_description=\"%s\"",
				 error, message);
	}
	else
		snprintf(challenge, sizeof(challenge), "Bearer");
	answer_error(&r->answer, 401, FLS_NO_TOKEN, message, NULL,
				 error == NULL ? "Send a token in the header Authorization: Bearer." : NULL);
	answer_header(&r->answer, "WWW-Authenticate", challenge);
}

static void
take_identity(Request *r, Identity *i)
{
	if (i->role == NULL)
	{
		if (i->api_token)
			refuse(r, "the token is not valid", "invalid_token");
		else
		{
			answer_error(&r->answer, 403, FLS_FORBIDDEN,
						 "the token has no role that may use this service", NULL, NULL);
			metrics_count(METRIC_FORBIDDEN);
		}
		return;
	}
	identity_keep(i);
	r->who = i;
}

static const char *
token_of(const Request *r, size_t *n)
{
	const char *header = request_header(r, "Authorization");
	const char *token = NULL;

	if (header != NULL && strncasecmp(header, "Bearer ", 7) == 0)
		token = header + 7 + strspn(header + 7, " ");
	/* A browser's EventSource cannot set a header. */
	else if (header == NULL && r->route != NULL && r->route->kind == ROUTE_EVENTS)
		token = request_query(r, "access_token");
	*n = token != NULL ? strlen(token) : 0;
	return token;
}

static void
verify_jwt(Request *r, const char *token, size_t n)
{
	JwtRules   rules = {config->jwt_issuer, (const char *const *) config->jwt_audience.word,
						config->jwt_audience.n, JWT_LEEWAY};
	JwtClaims  claims;
	JwtResult  result;
	Identity  *i;
	JwtStrings values;

	if (keys == NULL)
	{
		refuse(r, "the token is not valid", "invalid_token");
		return;
	}
	metrics_count(METRIC_TOKEN_VERIFIED);
	result = jwt_verify(keys, &rules, token, n, time(NULL), &claims);
	if (result == JWT_NO_MEMORY)
	{
		answer_error(&r->answer, 503, FLS_INTERNAL, "the token could not be verified", NULL, NULL);
		return;
	}
	if (result != JWT_OK)
	{
		LogField f[] = {LOG_TEXT("reason", jwt_result_name(result)), LOG_TEXT("client", r->peer),
						LOG_TEXT("id", r->id)};

		log_line(LOG_INFO, "a token was refused", f, 3);
		refuse(r, jwt_result_text(result), "invalid_token");
		return;
	}
	i = must_alloc(sizeof(Identity));
	i->refs = 1;
	i->expires = i->ends = claims.expires_at + JWT_LEEWAY;
	i->changes = changes;
	if (jwt_claim(&claims, config->jwt_role_claim, &values))
	{
		const char *role = role_for(&values);

		i->role = role != NULL ? must_copy(role) : NULL;
		jwt_strings_free(&values);
	}
	i->user = user_for(&claims);
	i->claims = must_copy_n(claims.payload, claims.payload_len);
	i->subject = claims.subject != NULL ? must_copy(claims.subject) : NULL;
	jwt_claims_free(&claims);
	take_identity(r, i);
	token_cache_put(cache, token, n, i, (time_t) i->expires);
}

bool
auth_begin(Request *r)
{
	size_t		n;
	const char *token = token_of(r, &n);
	Identity   *known;
	int			wait;

	if (token == NULL)
	{
		refuse(r, "a token is required", NULL);
		return true;
	}
	known = token_cache_get(cache, token, n, time(NULL));
	if (known != NULL)
	{
		metrics_count(METRIC_TOKEN_CACHED);
		take_identity(r, known);
		return true;
	}
	wait = rate_look(failures, r->network, config->failures_per_second,
					 5 * config->failures_per_second);
	if (wait > 0)
	{
		char after[16];

		metrics_count(METRIC_RATE_LIMITED);
		snprintf(after, sizeof(after), "%d", wait);
		answer_error(&r->answer, 429, FLS_TOO_MANY, "too many bad tokens from this address", NULL,
					 NULL);
		answer_header(&r->answer, "Retry-After", after);
		return true;
	}
	if (n > strlen(API_PREFIX) && strncmp(token, API_PREFIX, strlen(API_PREFIX)) == 0 &&
		n <= API_TOKEN_MOST)
		return false;
	verify_jwt(r, token, n);
	return true;
}

static void
looked_up(void *arg, const DbResult *result)
{
	LookUp			 *l = arg;
	Request			 *r = l->r;
	const JsonParser *json = NULL;
	Identity		 *i;

	if (result->verdict != DB_OK)
	{
		answer_db_error(&r->answer, result);
		goto done;
	}
	if (!PQgetisnull(result->row, 0, 0))
		json = json_read(PQgetvalue(result->row, 0, 0), PQgetlength(result->row, 0, 0));
	i = must_alloc(sizeof(Identity));
	i->refs = 1;
	i->api_token = true;
	i->ends = INT64_MAX;
	i->changes = changes;
	/* A standby may not have heard of what we are told. */
	i->expires = time(NULL) + (db_listening() && !connect_several_hosts() ? LONG_S : SHORT_S);
	if (json != NULL && json->nodes[JSON_ROOT].type == JSON_OBJECT)
	{
		Buf claims = {0};

		i->role = json_text_member(json, JSON_ROOT, "role");
		i->subject = json_text_member(json, JSON_ROOT, "name");
		buf_text(&claims, "{\"sub\":");
		buf_json_text(&claims, i->subject);
		buf_text(&claims, ",\"role\":");
		buf_json_text(&claims, i->role);
		buf_char(&claims, '}');
		i->claims = buf_take(&claims);
		{
			long long until;

			if (json_number_member(json, JSON_ROOT, "expiresIn", &until))
				i->ends = time(NULL) + until;
			if (i->ends < i->expires)
				i->expires = i->ends;
		}
	}
	take_identity(r, i);
	/* What is no good is not remembered, nor what may have been revoked since it was asked for. */
	if (i->role != NULL && l->generation == generation)
		token_cache_put(cache, l->token, strlen(l->token), i, (time_t) i->expires);
	else
		identity_drop(i);
done:
{
	void (*next)(Request *) = l->next;

	OPENSSL_cleanse(l->token, strlen(l->token));
	free(l->token);
	free(l);
	next(r);
}
}

void
auth_look_up(Request *r, void (*next)(Request *r))
{
	LookUp	   *l;
	size_t		n;
	const char *token;

	/* It may be known by now. */
	if (auth_begin(r))
	{
		next(r);
		return;
	}
	token = token_of(r, &n);
	l = must_alloc(sizeof(LookUp));
	l->r = r;
	l->next = next;
	l->generation = generation;
	l->token = must_copy_n(token, n);
	SHA256((const unsigned char *) token, n, l->hash);
	l->values[0] = (const char *) l->hash;
	l->lengths[0] = sizeof(l->hash);
	l->formats[0] = 1;
	metrics_count(METRIC_TOKEN_VERIFIED);
	l->task = (DbTask){.mode = DB_READ,
					   .statement = &token_statement,
					   .values = l->values,
					   .lengths = l->lengths,
					   .formats = l->formats,
					   .done = looked_up,
					   .arg = l};
	db_run(&l->task);
}
