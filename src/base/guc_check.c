/*
 * guc_check.c
 *	  Check hooks of the settings.
 *
 * Invalid values are rejected when they are set, with the reason as DETAIL.
 * PostgreSQL's own message quotes the value: where it may be a secret, intended
 * or by mistake, the message is raised here and does not quote it.
 *
 * Check hooks run in every process, at each reload, inside and outside of
 * transactions: they examine the text only, and access no catalog and no file.
 */
#include "postgres.h"

#include <ctype.h>

#include "miscadmin.h"
#include "pgtime.h"
#include "postmaster/bgworker.h"
#include "tcop/tcopprot.h"
#include "utils/varlena.h"

#include "base/guc_check.h"
#include "base/guc_networks.h"
#include "base/guc_redis.h"

static bool defining = false;

void
guc_check_begin(void)
{
	defining = true;
}

void
guc_check_end(void)
{
	defining = false;
}

/* Rejects an invalid value that must not be quoted. */
static bool
check_secret(const char *setting, const char *problem)
{
	GUC_check_errcode(ERRCODE_INVALID_PARAMETER_VALUE);
	GUC_check_errmsg("invalid value for parameter \"%s\"", setting);
	GUC_check_errdetail("%s", problem);
	return false;
}

static const char *
check_path(const char *path)
{
	if (path[0] == '\0')
		return NULL;
	if (!is_absolute_path(path))
		return "It must be an absolute path.";
	if (strlen(path) >= MAXPGPATH)
		return "It is too long for a path.";
	return NULL;
}

/* The value may be the contents of the file instead of its path: then it must not be logged. */
static bool
check_secret_file(const char *setting, const char *path)
{
	const char *problem = check_path(path);

	return problem == NULL || check_secret(setting, problem);
}

bool
guc_check_encryption_key_file(char **newval, void **extra, GucSource source)
{
	return check_secret_file("flohsync.encryption_key_file", *newval);
}

bool
guc_check_encryption_key_file_previous(char **newval, void **extra, GucSource source)
{
	return check_secret_file("flohsync.encryption_key_file_previous", *newval);
}

bool
guc_check_redis_password_file(char **newval, void **extra, GucSource source)
{
	return check_secret_file("flohsync.redis_password_file", *newval);
}

bool
guc_check_redis_ca_file(char **newval, void **extra, GucSource source)
{
	const char *problem = check_path(*newval);

	if (problem)
		GUC_check_errdetail("%s", problem);
	return problem == NULL;
}

/* The id of a user, in the spellings of type uuid. */
bool
guc_check_acting_user(char **newval, void **extra, GucSource source)
{
	const char *p = *newval;
	bool		braced = *p == '{';
	int			digits = 0;

	if (*p == '\0')
		return true;
	for (p += braced; isxdigit((unsigned char) *p); digits++)
	{
		p++;
		if (digits % 4 == 3 && digits < 31 && *p == '-')
			p++;
	}
	if (digits == 32 && strcmp(p, braced ? "}" : "") == 0)
		return true;
	GUC_check_errdetail("It must be the id of a user, a UUID.");
	return false;
}

bool
guc_check_databases(char **newval, void **extra, GucSource source)
{
	char	 *copy = pstrdup(*newval);
	List	 *names = NIL;
	ListCell *cell;
	bool	  good = SplitGUCList(copy, ',', &names);

	if (!good)
		GUC_check_errdetail("It must be a comma-separated list of names.");
	foreach (cell, names)
	{
		size_t len = strlen(lfirst(cell));

		if (!good || (len > 0 && len < NAMEDATALEN))
			continue;
		GUC_check_errdetail(len == 0 ?
								"A name in the list is empty." :
								"A name in the list is too long to be the name of a database.");
		good = false;
	}
	list_free(names);
	pfree(copy);
	return good;
}

bool
guc_check_worker_role(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0')
		GUC_check_errdetail("It must be the name of a role.");
	else if (strlen(*newval) >= NAMEDATALEN)
		GUC_check_errdetail("It is too long to be the name of a role.");
	else
		return true;
	return false;
}

bool
guc_check_timezone(char **newval, void **extra, GucSource source)
{
	pg_tz *zone = pg_tzset(*newval);

	if (zone == NULL)
		GUC_check_errdetail("Time zone \"%s\" is not known.", *newval);
	else if (!pg_tz_acceptable(zone))
		GUC_check_errdetail("Time zone \"%s\" counts leap seconds.", *newval);
	else
		return true;
	return false;
}

bool
guc_check_http_allowed_networks(char **newval, void **extra, GucSource source)
{
	char problem[256];

	if (guc_parse_networks(*newval, NULL, 0, problem, sizeof(problem)) >= 0)
		return true;
	GUC_check_errdetail("%s", problem);
	return false;
}

/*
 * What is set by a statement is told to whoever did that; what is read from a
 * file, to the log once, by the postmaster, or by the session that loads the
 * library where the postmaster has not.
 */
static void
check_tell_of_password(const char *url)
{
	const char *current = GetConfigOption("flohsync.redis_url", true, false);
	bool		statement = debug_query_string != NULL && !defining;
	bool		loading = defining && IsUnderPostmaster && MyBgworkerEntry == NULL;

	if (current != NULL && strcmp(current, url) == 0)
		return;
	if (IsUnderPostmaster && !statement && !loading)
		return;
	ereport(
		loading ? LOG_SERVER_ONLY : WARNING,
		(errmsg("flohsync.redis_url holds a password"),
		 errdetail(
			 "Any user can see it with SHOW in a session that has not loaded the library of flohsync."),
		 errhint(
			 "Put the password into a file, and set flohsync.redis_password_file to its path.")));
}

/* The rest is checked where it is used (guc_redis.c). */
bool
guc_check_redis_url(char **newval, void **extra, GucSource source)
{
	RedisAddress address;
	const char	*problem;
	bool		 has_password;

	if (**newval == '\0')
		return true;
	problem = guc_parse_redis_url(*newval, &address);
	has_password = address.has_password;
	explicit_bzero(&address, sizeof(address));
	if (problem)
	{
		GUC_check_errhint(
			"Addresses look like redis://user@host:6379/0, rediss://host:6380/0 or unix:///path/to/socket?db=0.");
		return check_secret("flohsync.redis_url", problem);
	}
	if (has_password)
		check_tell_of_password(*newval);
	return true;
}
