/*
 * guc_redis.c
 *	  What flohsync.redis_url says:
 *
 *		redis://[user[:password]@]host[:port][/database]	(rediss: with TLS)
 *		unix://[user[:password]@]/path/to/socket[?db=database]
 *
 * Users and passwords are percent-encoded; the password may be in a file instead
 * (flohsync.redis_password_file).  What is said of a wrong address never quotes it.
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "base/guc_redis.h"
#include "base/hex.h"

#define REDIS_PORT		   6379
#define REDIS_MAX_DATABASE 65535

/* Takes the percent-encoding off; false when it is malformed or too long. */
static bool
url_decode(const char *text, size_t len, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
	{
		char c = text[i];

		if (c == '%')
		{
			int byte = i + 2 < len ? hex_byte(text + i + 1) : -1;

			if (byte <= 0)
				return false;
			c = (char) byte;
			i += 2;
		}
		if (n + 1 >= size)
			return false;
		out[n++] = c;
	}
	out[n] = '\0';
	return true;
}

/* A number of digits alone, -1 otherwise. */
static int
url_number(const char *text, size_t len, int max)
{
	int n = 0;

	if (len == 0 || len > 6)
		return -1;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return -1;
		n = n * 10 + (text[i] - '0');
	}
	return n <= max ? n : -1;
}

/*
 * The part before "@"; the last one, as passwords may hold one.  The path of a
 * socket may hold one, too: there it is the first one that a path follows.
 */
static const char *
url_login(const char **rest, RedisAddress *address)
{
	size_t		span = address->local ? strlen(*rest) : strcspn(*rest, "/?");
	const char *at = NULL;
	const char *colon;

	for (size_t i = 0; i < span; i++)
		if ((*rest)[i] == '@' && (!address->local || (at == NULL && (*rest)[i + 1] == '/')))
			at = *rest + i;
	/* What is a login does not begin with a slash. */
	if (at == NULL || (address->local && **rest == '/'))
		return NULL;
	colon = memchr(*rest, ':', at - *rest);
	if (at == *rest)
		return "There is no user name before \"@\".";
	if (!url_decode(*rest, (colon ? colon : at) - *rest, address->user, sizeof(address->user)) ||
		(colon &&
		 !url_decode(colon + 1, at - colon - 1, address->password, sizeof(address->password))))
		return "User or password is too long, or not percent-encoded.";
	address->has_password = colon != NULL;
	*rest = at + 1;
	return NULL;
}

/* guc_parse_redis_url returns NULL, or what is wrong. */
const char *
guc_parse_redis_url(const char *url, RedisAddress *address)
{
	const char *rest;
	const char *end;
	const char *problem;
	size_t		len;

	memset(address, 0, sizeof(*address));
	address->port = REDIS_PORT;
	if (strncmp(url, "redis://", 8) == 0)
		rest = url + 8;
	else if (strncmp(url, "rediss://", 9) == 0)
	{
		rest = url + 9;
		address->tls = true;
	}
	else if (strncmp(url, "unix://", 7) == 0)
	{
		rest = url + 7;
		address->local = true;
	}
	else
		return "It must begin with redis://, rediss:// or unix://.";
	problem = url_login(&rest, address);
	if (problem)
		return problem;

	if (address->local)
	{
		len = strcspn(rest, "?");
		if (rest[0] != '/' || !url_decode(rest, len, address->host, sizeof(address->host)) ||
			strlen(address->host) > 107)
			return "The path of the socket must be absolute and at most 107 bytes long.";
		if (rest[len] == '?')
		{
			if (strncmp(rest + len, "?db=", 4) != 0 ||
				(address->database = url_number(rest + len + 4, strlen(rest + len + 4),
												REDIS_MAX_DATABASE)) < 0)
				return "Only ?db=NUMBER can follow the path.";
		}
		return NULL;
	}

	if (rest[0] == '[')
	{
		end = strchr(rest, ']');
		if (end == NULL)
			return "The address in brackets has no closing bracket.";
		len = end - rest - 1;
		rest++;
		end++;
	}
	else
	{
		len = strcspn(rest, ":/?");
		end = rest + len;
	}
	if (len == 0 || len >= sizeof(address->host))
		return "There is no host, or its name is too long.";
	memcpy(address->host, rest, len);
	if (*end == ':')
	{
		len = strcspn(end + 1, "/?");
		address->port = url_number(end + 1, len, 65535);
		if (address->port <= 0)
			return "The port is not a number from 1 to 65535.";
		end += 1 + len;
	}
	if (*end == '/' && end[1] != '\0')
	{
		address->database = url_number(end + 1, strlen(end + 1), REDIS_MAX_DATABASE);
		if (address->database < 0)
			return "The database is not a number.";
	}
	else if (*end != '\0' && *end != '/')
		return "The host is followed by something other than a port or a database.";
	return NULL;
}
