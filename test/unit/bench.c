/*
 * bench.c
 *	  Times page_parse (UTF-8 check, parse, checks, canonical form, SHA-256,
 *	  sort) on pages of 500 records of about 400 bytes.
 *
 * Usage: bench [rounds].  Prints the best and the median of the rounds, for
 * several shapes of data, with the time of its parts.
 */
#include "base/standalone.h"

#include <time.h>

#include "json/canonical.h"
#include "json/json.h"
#include "mb/pg_wchar.h"
#include "page/page.h"

jmp_buf *standalone_catch;

#define RECORDS 500

enum
{
	SHAPE_PLAIN,
	SHAPE_RANDOM_IDS,
	SHAPE_PRETTY,
	SHAPE_UTF8,
	SHAPE_ESCAPED,
	SHAPE_DOUBLES,
	NSHAPES
};

static const char *const shape_names[NSHAPES] = {"sequential ids", "random ids",
												 "pretty-printed", "non-ASCII",
												 "escapes",		   "17-digit doubles"};

static char *
make_page(int shape, size_t *len)
{
	size_t		size = 4 * 1024 * 1024;
	char	   *body = palloc(size);
	char	   *p = body;
	const char *nl = shape == SHAPE_PRETTY ? "\n        " : "";
	const char *sp = shape == SHAPE_PRETTY ? " " : "";
	const char *name = shape == SHAPE_UTF8 ? "J\xC3\xB6rg M\xC3\xBCller" :
		shape == SHAPE_ESCAPED			   ? "J\\u00f6rg \\\"M\\u00fcller\\\"" :
											 "Joerg Mueller";
	const char *fraction = shape == SHAPE_DOUBLES ? "71532910123" : "";

	srandom(1);
	p += sprintf(p, "{\"success\":true,\"payload\":{\"resources\":[");
	for (int i = 0; i < RECORDS; i++)
	{
		char id[64];

		if (shape == SHAPE_RANDOM_IDS)
			sprintf(id, "%08lx-%04lx-4%03lx-8%03lx-%08lx", random(), random() & 0xffff,
					random() & 0xfff, random() & 0xfff, random());
		else
			sprintf(id, "user-%06d", 100000 + i);
		p += sprintf(
			p,
			"%s%s{\"externalId\":%s\"%s\",%s\"displayName\":%s\"%s %d\",%s\"email\":%s\"user%d@example.com\",%s\"attributes\":%s{",
			i ? "," : "", nl, sp, id, nl, sp, name, i, nl, sp, i, nl, sp);
		p += sprintf(
			p,
			"%s\"title\":%s\"Senior Engineer\",%s\"department\":%s\"Platform %d\",%s\"phone\":%s\"+49 89 555 %04d\",",
			nl, sp, nl, sp, i % 17, nl, sp, i);
		p += sprintf(
			p,
			"%s\"location\":%s\"Munich\",%s\"employeeNumber\":%s%d,%s\"active\":%strue,%s\"manager\":%s\"user-%06d\",",
			nl, sp, nl, sp, 70000 + i, nl, sp, nl, sp, i / 10);
		p += sprintf(
			p,
			"%s\"groups\":%s[\"grp-%d\",%s\"grp-%d\",%s\"all-staff\"],%s\"geo\":%s[48.13%d%s,%s11.57%d%s],",
			nl, sp, i % 31, sp, i % 7, sp, nl, sp, i + 1001, fraction, sp, i + 3001, fraction);
		p += sprintf(
			p,
			"%s\"costCenter\":%s\"CC-%04d\",%s\"startDate\":%s\"2021-04-%02d\",%s\"nickname\":%snull}}",
			nl, sp, i % 50, nl, sp, i % 28 + 1, nl, sp);
	}
	p += sprintf(p, "],\"nextCursor\":\"abc\",\"totalEstimate\":200000}}");
	*len = p - body;
	return body;
}

static double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	int		rounds = argc > 1 ? atoi(argv[1]) : 300;
	double *times = palloc(sizeof(double) * rounds);

	printf("%-18s %6s %8s %8s %8s %8s %8s\n", "us/record", "bytes", "best", "median", "utf8",
		   "parse", "sha256");
	for (int shape = 0; shape < NSHAPES; shape++)
	{
		PageParser *parser = page_parser_create(NULL, 0, NULL);
		JsonParser *json = json_parser_create();
		Canonical  *canonical = canonical_create();
		size_t		len;
		char	   *body = make_page(shape, &len);
		double		part[3] = {1e9, 1e9, 1e9};
		char		hex[64];

		for (int i = 0; i < rounds; i++)
		{
			const char	*problem;
			UpstreamPage page;
			double		 start = now_us();

			if (!page_parse(parser, body, len, &page, &problem) || page.nrecords != RECORDS)
			{
				fprintf(stderr, "%s: page not read\n", shape_names[shape]);
				return 1;
			}
			times[i] = now_us() - start;
		}
		for (int i = 0; i < rounds; i++)
		{
			double start = now_us();

			pg_encoding_verifymbstr(PG_UTF8, body, len);
			part[0] = Min(part[0], now_us() - start);
			start = now_us();
			json_parse(json, body, len, 70);
			part[1] = Min(part[1], now_us() - start);
			canonical_reset(canonical);
			canonical_append_bytes(canonical, body, len / RECORDS);
			start = now_us();
			for (int j = 0; j < RECORDS; j++)
				canonical_hash(canonical, hex);
			part[2] = Min(part[2], now_us() - start);
		}
		qsort(times, rounds, sizeof(double), by_value);
		printf("%-18s %6zu %8.3f %8.3f %8.3f %8.3f %8.3f\n", shape_names[shape], len / RECORDS,
			   times[0] / RECORDS, times[rounds / 2] / RECORDS, part[0] / RECORDS,
			   part[1] / RECORDS, part[2] / RECORDS);
	}
	return 0;
}
