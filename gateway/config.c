/*
 * config.c
 *	  The settings of flohsync-http: lines "name = value" of a file, and variables
 *	  FLOHSYNC_HTTP_NAME of the environment, which come before the file.
 *
 * The table below is the list of settings: what is read, what is printed by
 * --settings, and what a reload can change.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buf.h"

#define FILE_LIMIT (1024 * 1024)

Config *config;

typedef enum SettingType
{
	SETTING_TEXT,
	SETTING_WORDS,
	SETTING_CHOICE,
	SETTING_BOOL,
	SETTING_NUMBER
} SettingType;

typedef struct Setting
{
	const char *name;
	SettingType type;
	size_t		offset;
	bool		reread;
	const char *initial; /* NULL: none */
	const char *choices; /* of a choice, separated by spaces */
	int			least;
	int			most;
	const char *about;
} Setting;

#define TEXT(name, reread, initial, about) \
	{ \
#name, SETTING_TEXT, offsetof(Config, name), reread, initial, NULL, 0, 0, about \
	}
#define WORDS(name, about) \
	{ \
#name, SETTING_WORDS, offsetof(Config, name), true, NULL, NULL, 0, 0, about \
	}
#define CHOICE(name, initial, choices, about) \
	{ \
#name, SETTING_CHOICE, offsetof(Config, name), true, initial, choices, 0, 0, about \
	}
#define BOOL(name, initial, about) \
	{ \
#name, SETTING_BOOL, offsetof(Config, name), false, initial, NULL, 0, 0, about \
	}
#define NUMBER(name, reread, initial, least, most, about) \
	{ \
#name, SETTING_NUMBER, offsetof(Config, name), reread, initial, NULL, least, most, about \
	}

static const Setting settings[] = {
	TEXT(
		db, false, NULL,
		"Connection string of the database, as libpq takes it. The user is the role that switches to "
		"others; it may be neither a superuser nor one who bypasses row level security. Several hosts: "
		"the first that answers is read, the primary is written"),
	TEXT(
		listen, false, "127.0.0.1:8080",
		"Address and port, such as `[::1]:8080`, or the path of a Unix socket. Port 0: any, which the log tells"),
	WORDS(roles,
		  "Roles of the database that a token may take, the first that it has; `claim=role` where "
		  "the value of the claim is not the name of the role"),
	TEXT(
		jwt_keys, true, NULL,
		"File with keys for JSON Web Tokens: a JWK Set, a public key (PEM), or a secret of at least 32 bytes; "
		"read again when it changes. Without it only API tokens are taken"),
	WORDS(jwt_audience,
		  "Values of `aud`, one of which a token must have; required with `jwt_keys`"),
	TEXT(jwt_issuer, true, NULL, "Value of `iss` that a token must have"),
	TEXT(
		jwt_role_claim, true, ".role",
		"Path of the claim that has the role, or an array of roles, such as `.realm_access.roles` or "
		"`.\"https://example.com/role\"`"),
	TEXT(
		jwt_user_claim, true, NULL,
		"Path of the claim that has the id of the user (a UUID, of `v_user`) who decides about matches, for "
		"`resolvedBy`"),
	WORDS(cors_origins,
		  "Origins whose pages may call this server from a browser; none: no page of another "
		  "origin"),
	WORDS(trusted_proxies, "Addresses of load balancers, whose `X-Forwarded-For` is believed"),
	CHOICE(
		metrics, "local", "local public reader",
		"Who may read `/metrics`: programs on this machine without a token, and readers; everybody; readers"),
	TEXT(public_url, true, NULL,
		 "URL under which clients reach this server, for the OpenAPI document"),
	CHOICE(log_format, "text", "text json", "Form of the log, which goes to standard error"),
	CHOICE(log_level, "request", "error warning info request", "What is logged"),
	NUMBER(pool_size, false, "8", 1, 200, "Connections to the database, at most"),
	NUMBER(queue_limit, false, "1000", 1, 100000,
		   "Requests that wait for one of them, at most; then 503"),
	BOOL(standby_reads, "off", "Whether reads prefer a standby, where `db` names several hosts"),
	NUMBER(statement_timeout, true, "30", 1, 3600,
		   "Seconds that the database may take for a request"),
	NUMBER(wait_timeout, true, "600", 1, 86400,
		   "Seconds that a trigger waits for the end of its run; then it answers 202"),
	NUMBER(connections, false, "12000", 16, 100000,
		   "Connections of clients, at most; the longest idle are closed when they get scarce"),
	NUMBER(connections_per_address, false, "0", 0, 100000,
		   "The same for one address; 0: no limit. Behind a load balancer all have its address"),
	NUMBER(body_limit, false, "1048576", 1024, 67108864,
		   "Bytes of a body, at most, as sent and unpacked"),
	NUMBER(header_timeout, true, "10", 1, 600, "Seconds that the head of a request may take"),
	NUMBER(body_timeout, true, "30", 1, 600, "Seconds that its body may take"),
	NUMBER(send_timeout, true, "30", 1, 600,
		   "Seconds in which the next part of an answer has to be taken"),
	NUMBER(idle_timeout, true, "15", 1, 3600,
		   "Seconds that a connection is kept without a request"),
	NUMBER(stop_timeout, true, "30", 0, 3600, "Seconds that requests have to finish after SIGTERM"),
	NUMBER(failures_per_second, true, "20", 0, 100000,
		   "Requests with a bad token that are taken from one address; then 429. 0: no limit"),
	NUMBER(
		webhooks_per_second, true, "100", 0, 1000000,
		"Webhooks that are taken for one connector (five times as many at once); then 429. 0: no limit"),
	NUMBER(webhooks_per_second_address, true, "200", 0, 1000000, "The same, from one address"),
	NUMBER(event_clients, true, "1000", 0, 100000, "Clients of `/api/events`, at most"),
};

#define NSETTINGS (sizeof(settings) / sizeof(settings[0]))

#define FIELD(c, s, type) (*(type *) ((char *) (c) + (s)->offset))

static void
words_set(Words *words, const char *value)
{
	const char *p = value;

	for (int i = 0; i < words->n; i++)
		free(words->word[i]);
	words->n = 0;
	while (*p != '\0')
	{
		size_t n;

		p += strspn(p, " \t,");
		n = strcspn(p, " \t,");
		if (n == 0)
			break;
		words->word = must_realloc(words->word, (words->n + 1) * sizeof(char *));
		words->word[words->n++] = must_copy_n(p, n);
		p += n;
	}
}

static bool
one_of(const char *value, const char *choices)
{
	size_t n = strlen(value);

	for (const char *p = choices; *p != '\0'; p += strspn(p, " "))
	{
		size_t length = strcspn(p, " ");

		if (length == n && memcmp(p, value, n) == 0)
			return true;
		p += length;
	}
	return false;
}

static bool
setting_set(Config *c, const Setting *s, const char *value, char *error)
{
	char *end;
	long  number;

	switch (s->type)
	{
		case SETTING_CHOICE:
			if (!one_of(value, s->choices))
			{
				snprintf(error, CONFIG_ERROR_SIZE, "%s: \"%.100s\" is not one of: %s", s->name,
						 value, s->choices);
				return false;
			}
			/* FALLTHROUGH */
		case SETTING_TEXT:
			free(FIELD(c, s, char *));
			FIELD(c, s, char *) = *value != '\0' ? must_copy(value) : NULL;
			return true;
		case SETTING_WORDS:
			words_set(&FIELD(c, s, Words), value);
			return true;
		case SETTING_BOOL:
			if (!one_of(value, "on off true false yes no 1 0"))
			{
				snprintf(error, CONFIG_ERROR_SIZE, "%s must be on or off", s->name);
				return false;
			}
			FIELD(c, s, bool) = one_of(value, "on true yes 1");
			return true;
		case SETTING_NUMBER:
			errno = 0;
			number = strtol(value, &end, 10);
			if (errno != 0 || end == value || *end != '\0' || number < s->least || number > s->most)
			{
				snprintf(error, CONFIG_ERROR_SIZE, "%s must be a number from %d to %d", s->name,
						 s->least, s->most);
				return false;
			}
			FIELD(c, s, int) = (int) number;
			return true;
	}
	return false;
}

static const Setting *
setting_named(const char *name, size_t n)
{
	for (size_t i = 0; i < NSETTINGS; i++)
	{
		if (strlen(settings[i].name) == n && memcmp(settings[i].name, name, n) == 0)
			return &settings[i];
	}
	return NULL;
}

static char *
read_file(const char *path, char *error)
{
	FILE  *file = fopen(path, "re");
	char  *text;
	size_t n;

	if (file == NULL)
	{
		snprintf(error, CONFIG_ERROR_SIZE, "could not open \"%s\": %s", path, strerror(errno));
		return NULL;
	}
	text = must_alloc(FILE_LIMIT + 1);
	n = fread(text, 1, FILE_LIMIT + 1, file);
	if (ferror(file) || n > FILE_LIMIT || memchr(text, '\0', n) != NULL)
	{
		snprintf(error, CONFIG_ERROR_SIZE, "\"%s\" is no text file of at most 1 MB", path);
		free(text);
		text = NULL;
	}
	else
		text[n] = '\0';
	fclose(file);
	return text;
}

/* A line without its comment; a value may stand in single quotes, which may hold anything. */
static bool
read_line(Config *c, const char *path, int line, char *text, char *error)
{
	char		  *name = text + strspn(text, " \t\r");
	size_t		   length = strspn(name, "abcdefghijklmnopqrstuvwxyz_");
	char		  *value = name + length;
	const Setting *s;
	char		   problem[CONFIG_ERROR_SIZE];

	if (*name == '\0' || *name == '#')
		return true;
	value += strspn(value, " \t");
	s = setting_named(name, length);
	if (*value != '=' || s == NULL)
	{
		snprintf(error, CONFIG_ERROR_SIZE, "%s, line %d: %s", path, line,
				 *value != '=' ? "it is not of the form \"name = value\"" :
								 "there is no such setting");
		return false;
	}
	value++;
	value += strspn(value, " \t");
	if (*value == '\'')
	{
		char *end = strrchr(value + 1, '\'');

		if (end == NULL)
		{
			snprintf(error, CONFIG_ERROR_SIZE, "%s, line %d: a quote is not closed", path, line);
			return false;
		}
		*end = '\0';
		value++;
	}
	else
	{
		char *end = value + strlen(value);

		for (char *p = value; *p != '\0'; p++)
		{
			if (*p == '#' && (p == value || isspace((unsigned char) p[-1])))
				end = p;
			if (end == p)
				break;
		}
		while (end > value && isspace((unsigned char) end[-1]))
			end--;
		*end = '\0';
	}
	if (!setting_set(c, s, value, problem))
	{
		snprintf(error, CONFIG_ERROR_SIZE, "%.200s, line %d: %.250s", path, line, problem);
		return false;
	}
	return true;
}

static bool
check(const Config *c, char *error)
{
	if (c->db == NULL)
		snprintf(error, CONFIG_ERROR_SIZE,
				 "setting db is missing: the connection string of the database");
	else if (c->jwt_keys != NULL && c->jwt_audience.n == 0)
		snprintf(
			error, CONFIG_ERROR_SIZE,
			"setting jwt_audience is missing: tokens of this issuer for other services would be taken");
	else if (c->jwt_keys != NULL && c->roles.n == 0)
		snprintf(error, CONFIG_ERROR_SIZE,
				 "setting roles is missing: the roles of the database that a token may take");
	else
		return true;
	return false;
}

Config *
config_read(const char *path, char error[CONFIG_ERROR_SIZE])
{
	Config *c = must_alloc(sizeof(Config));
	char   *text = NULL;
	bool	ok = true;

	error[0] = '\0';
	for (size_t i = 0; i < NSETTINGS; i++)
	{
		if (settings[i].initial != NULL)
			ok = setting_set(c, &settings[i], settings[i].initial, error) && ok;
	}
	if (path != NULL)
	{
		int	  line = 0;
		char *rest;

		rest = text = read_file(path, error);
		ok = text != NULL;
		while (ok && rest != NULL)
		{
			char *next = strchr(rest, '\n');

			if (next != NULL)
				*next++ = '\0';
			ok = read_line(c, path, ++line, rest, error);
			rest = next;
		}
		free(text);
	}
	for (size_t i = 0; ok && i < NSETTINGS; i++)
	{
		char		name[100] = "FLOHSYNC_HTTP_";
		char	   *p = name + strlen(name);
		const char *value;
		char		problem[CONFIG_ERROR_SIZE];

		for (const char *s = settings[i].name; *s != '\0'; s++)
			*p++ = (char) toupper((unsigned char) *s);
		value = getenv(name);
		if (value != NULL && !setting_set(c, &settings[i], value, problem))
		{
			snprintf(error, CONFIG_ERROR_SIZE, "environment: %.400s", problem);
			ok = false;
		}
	}
	if (ok && check(c, error))
		return c;
	config_free(c);
	return NULL;
}

void
config_free(Config *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < NSETTINGS; i++)
	{
		const Setting *s = &settings[i];

		if (s->type == SETTING_TEXT || s->type == SETTING_CHOICE)
			free(FIELD(c, s, char *));
		else if (s->type == SETTING_WORDS)
		{
			words_set(&FIELD(c, s, Words), "");
			free(FIELD(c, s, Words).word);
		}
	}
	free(c);
}

char *
config_keep(Config *c, const Config *former)
{
	Buf kept = {0};

	for (size_t i = 0; i < NSETTINGS; i++)
	{
		const Setting *s = &settings[i];
		bool		   same = true;

		if (s->reread)
			continue;
		if (s->type == SETTING_TEXT)
		{
			char *a = FIELD(c, s, char *);
			char *b = FIELD(former, s, char *);

			same = (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
			free(a);
			FIELD(c, s, char *) = b != NULL ? must_copy(b) : NULL;
		}
		else if (s->type == SETTING_BOOL)
		{
			same = FIELD(c, s, bool) == FIELD(former, s, bool);
			FIELD(c, s, bool) = FIELD(former, s, bool);
		}
		else
		{
			same = FIELD(c, s, int) == FIELD(former, s, int);
			FIELD(c, s, int) = FIELD(former, s, int);
		}
		if (!same)
			buf_printf(&kept, "%s%s", kept.n > 0 ? ", " : "", s->name);
	}
	return kept.n > 0 ? buf_take(&kept) : NULL;
}

void
config_print(FILE *out)
{
	fputs("| Setting | Default | |\n|---|---|---|\n", out);
	for (size_t i = 0; i < NSETTINGS; i++)
		fprintf(out, "| `%s` | %s%s%s | %s%s |\n", settings[i].name, settings[i].initial ? "`" : "",
				settings[i].initial ? settings[i].initial : "", settings[i].initial ? "`" : "",
				settings[i].about, settings[i].reread ? "" : " (needs a restart)");
}
