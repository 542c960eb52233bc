/*
 * slow_clients.c
 *	  Clients of an HTTP server that take their time: slow_clients PORT COUNT.
 *
 * Of each three one sends its head byte by byte, one its body, and one asks for more
 * than its connection holds and reads nothing.  Whoever is turned away comes again.
 * Prints a line when all of them have been connected, and goes on until it is ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BYTE_EVERY_MS 500
#define MANY		  100 /* requests whose answers are not read */

static const char *const head = "GET /api/me HTTP/1.1\r\nHost: x\r\nX-Slow: ";
static const char *const body =
	"POST /api/webhooks/hooks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	"Content-Length: 1000\r\n\r\n";
static const char *const ask = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static int
slow_connect(int port, int kind)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int				   fd = socket(AF_INET, SOCK_STREAM, 0);
	int				   little = 4096;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		fail("socket");
	if (kind == 2)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little));
	if (connect(fd, (struct sockaddr *) &to, sizeof(to)) < 0)
		fail("connect");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (kind < 2)
		(void) !send(fd, kind ? body : head, strlen(kind ? body : head), MSG_NOSIGNAL);
	else
		for (int i = 0; i < MANY; i++)
			(void) !send(fd, ask, strlen(ask), MSG_NOSIGNAL);
	return fd;
}

/* Has the server closed the connection?  What it sends to one who listens is thrown away. */
static bool
turned_away(struct pollfd *p, int kind)
{
	char	piece[4096];
	ssize_t n;

	if (p->revents & (POLLERR | POLLHUP | POLLRDHUP))
		return true;
	if (!(p->revents & POLLIN) || kind == 2)
		return false;
	n = recv(p->fd, piece, sizeof(piece), 0);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

int
main(int argc, char **argv)
{
	int				port = argc == 3 ? atoi(argv[1]) : 0;
	int				count = argc == 3 ? atoi(argv[2]) : 0;
	struct pollfd  *polled = calloc(count + 1, sizeof(struct pollfd));
	struct timespec pause = {.tv_nsec = BYTE_EVERY_MS * 1000000L};

	if (port <= 0 || count <= 0 || polled == NULL)
		return 64;
	for (int i = 0; i < count; i++)
	{
		polled[i].fd = slow_connect(port, i % 3);
		polled[i].events = POLLRDHUP | (i % 3 == 2 ? 0 : POLLIN);
	}
	puts("connected");
	fflush(stdout);
	for (;;)
	{
		nanosleep(&pause, NULL);
		poll(polled, count, 0);
		for (int i = 0; i < count; i++)
		{
			if (turned_away(&polled[i], i % 3))
			{
				close(polled[i].fd);
				polled[i].fd = slow_connect(port, i % 3);
			}
			else if (i % 3 < 2)
				(void) !send(polled[i].fd, "x", 1, MSG_NOSIGNAL);
		}
	}
}
