/*
 * load.c
 *	  Measures the server: walks a listing over one kept connection, again and
 *	  again, and prints records and bytes per second.
 *
 *	  load PORT [SECONDS [PAGE_SIZE [TYPE-COMMAND]]]
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char	 *answer;
static size_t answer_size = 0;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void
fail(const char *why)
{
	fprintf(stderr, "load: %s\n", why);
	exit(1);
}

/* Send one request and read its answer; returns the body, ended by a NUL. */
static char *
ask(int fd, const char *body, size_t *bytes)
{
	char   request[1024];
	int	   n = snprintf(request, sizeof(request),
						"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
						strlen(body), body);
	size_t have = 0;
	size_t need = 0;
	char  *start = NULL;

	if (write(fd, request, (size_t) n) != n)
		fail("cannot send");
	while (start == NULL || have < need)
	{
		ssize_t got;

		if (have + 65536 > answer_size)
		{
			size_t offset = start ? (size_t) (start - answer) : 0;

			answer_size = answer_size * 2 + 1048576;
			answer = realloc(answer, answer_size);
			if (answer == NULL)
				fail("out of memory");
			start = start ? answer + offset : NULL;
		}
		got = read(fd, answer + have, answer_size - have - 1);
		if (got <= 0)
			fail("the server has gone");
		have += (size_t) got;
		answer[have] = '\0';
		if (start == NULL && (start = strstr(answer, "\r\n\r\n")) != NULL)
		{
			char *length = strstr(answer, "Content-Length: ");

			if (length == NULL || strncmp(answer, "HTTP/1.1 200", 12) != 0)
				fail("not a page");
			start += 4;
			need = (size_t) (start - answer) + strtoull(length + 16, NULL, 10);
		}
	}
	*bytes += have;
	return start;
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	double			   seconds = argc > 2 ? strtod(argv[2], NULL) : 5;
	long			   page_size = argc > 3 ? strtol(argv[3], NULL, 10) : 500;
	const char		  *command = argc > 4 ? argv[4] : "listUsers";
	int				   fd = socket(AF_INET, SOCK_STREAM, 0);
	char			   cursor[200] = "";
	size_t			   bytes = 0;
	size_t			   pages = 0;
	size_t			   records = 0;
	double			   start;

	if (argc < 2)
		fail("usage: load PORT [SECONDS [PAGE_SIZE [COMMAND]]]");
	address.sin_port = htons((unsigned short) strtoul(argv[1], NULL, 10));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
		fail("cannot connect");
	start = now();
	while (now() - start < seconds)
	{
		char  body[512];
		char *page;
		char *next;

		snprintf(body, sizeof(body), "{\"command\":\"%s\",\"pageSize\":%ld%s%s%s}", command,
				 page_size, *cursor ? ",\"cursor\":\"" : "", cursor, *cursor ? "\"" : "");
		page = ask(fd, body, &bytes);
		pages++;
		next = page + strlen(page);
		next = next - page > 300 ? next - 300 : page; /* the cursor is near the end */
		next = strstr(next, "\"nextCursor\":\"");
		if (next != NULL)
		{
			/* every page but the last is full */
			records += (size_t) page_size;
			sscanf(next + 14, "%199[^\"]", cursor);
		}
		else
			*cursor = '\0';
	}
	seconds = now() - start;
	printf("%zu pages, %zu records, %.0f records/s, %.1f MB/s\n", pages, records,
		   (double) records / seconds, (double) bytes / seconds / 1e6);
	return 0;
}
