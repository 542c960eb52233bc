/*
 * link.c
 *	  Reads Link headers (RFC 8288, appendix B.2, which is lenient).
 */
#ifdef FLOHSYNC_STANDALONE
#include "base/standalone.h"
#else
#include "postgres.h"
#endif

#include "rest/link.h"

static const char *
link_space(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

/*
 * The value of a parameter, quoted or not, in out (as long as the header);
 * returns what follows.  A quote that does not end is malformed.
 */
static const char *
link_value(const char *p, char *out, bool *malformed)
{
	char quote = *p;

	/* Single quotes are none of the RFC's, but some upstreams write them. */
	if (quote == '"' || quote == '\'')
	{
		for (p++; *p != '\0' && *p != quote; p++)
		{
			if (*p == '\\' && p[1] != '\0')
				p++;
			*out++ = *p;
		}
		if (*p == quote)
			p++;
		else
			*malformed = true;
	}
	else
		while (*p != '\0' && *p != ';' && *p != ',')
		{
			/* Quotes of print, for example. */
			*malformed |= (unsigned char) *p >= 0x80;
			*out++ = *p++;
		}
	*out = '\0';
	return p;
}

/* Is a relation in a list of them, which blanks separate? */
static bool
link_has_rel(const char *list, const char *rel)
{
	size_t len = strlen(rel);

	while (*list)
	{
		size_t n = strcspn(list, " \t");

		if (n == len && pg_strncasecmp(list, rel, len) == 0)
			return true;
		list += n;
		list = link_space(list);
	}
	return false;
}

/*
 * rest_link_find is the first target with a relation in one header's value;
 * palloc'd, NULL when there is none.  Up to there, what is no link sets
 * *malformed (which is not reset): then NULL may not mean that there was none.
 */
char *
rest_link_find(const char *header, const char *rel, bool *malformed)
{
	char	   *value = palloc(strlen(header) + 1);
	const char *p = header;

	for (;;)
	{
		const char *target;
		size_t		target_len;
		bool		rel_seen = false;
		bool		found = false;

		while (*p == ' ' || *p == '\t' || *p == ',')
			p++;
		if (*p == '\0')
			break;
		if (*p != '<')
		{
			*malformed = true;
			p += strcspn(p, ",");
			continue;
		}
		target = ++p;
		p += strcspn(p, ">");
		if (*p == '\0')
		{
			*malformed = true;
			break;
		}
		target_len = p++ - target;
		for (;;)
		{
			const char *name;
			size_t		name_len;

			p = link_space(p);
			if (*p != ';')
				break;
			name = p = link_space(p + 1);
			while (*p != '\0' && strchr("=;, \t", *p) == NULL)
				p++;
			name_len = p - name;
			p = link_space(p);
			*value = '\0';
			if (*p == '=')
				p = link_value(link_space(p + 1), value, malformed);
			/* Only the first one counts. */
			if (name_len == 3 && pg_strncasecmp(name, "rel", 3) == 0 && !rel_seen)
			{
				rel_seen = true;
				found = link_has_rel(link_space(value), rel);
			}
		}
		if (found)
		{
			char *copy = palloc(target_len + 1);

			memcpy(copy, target, target_len);
			copy[target_len] = '\0';
			pfree(value);
			return copy;
		}
		/* What is not understood is passed over up to the next link. */
		if (*p != '\0' && *p != ',')
			*malformed = true;
		p += strcspn(p, ",");
	}
	pfree(value);
	return NULL;
}
