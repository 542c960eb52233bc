/*
 * listen.c
 *	  The address that the server listens on, and how many connections there may be.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "buf.h"
#include "config.h"
#include "log.h"

/*
 * What the system keeps of answers for one connection: by itself it takes megabytes from
 * somebody who asks for much and reads nothing.
 */
#define SEND_BUFFER (128 * 1024)

static char *socket_path;

static int
listen_unix(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int				   fd;
	mode_t			   mask;

	if (strlen(path) >= sizeof(sa.sun_path))
	{
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	/* One that nobody listens on any more is in the way. */
	if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) == 0)
	{
		errno = EADDRINUSE;
		close(fd);
		return -1;
	}
	if (errno == ECONNREFUSED)
		unlink(path);
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	mask = umask(0117);
	if (fd >= 0 && bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0)
	{
		close(fd);
		fd = -1;
	}
	umask(mask);
	if (fd >= 0)
		socket_path = must_copy(path);
	return fd;
}

static int
listen_tcp(const char *where, const char **problem)
{
	char			*host = must_copy(where);
	char			*port = strrchr(host, ':');
	char			*name = host;
	struct addrinfo	 hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	int				 fd = -1;
	int				 one = 1;
	int				 buffer = SEND_BUFFER;
	int				 error;

	if (port == NULL)
	{
		*problem = "it is not of the form address:port";
		free(host);
		return -1;
	}
	*port++ = '\0';
	if (name[0] == '[' && strlen(name) > 1 && name[strlen(name) - 1] == ']')
	{
		name[strlen(name) - 1] = '\0';
		name++;
	}
	error = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, port, &hints, &list);
	free(host);
	if (error != 0)
	{
		*problem = gai_strerror(error);
		return -1;
	}
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 &&
		(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
		 setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)) != 0 ||
		 bind(fd, list->ai_addr, list->ai_addrlen) != 0))
	{
		*problem = strerror(errno);
		close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd;
}

/* Where it listens: the port may have been left to the system. */
const char *
listen_address(int listen_fd)
{
	static char				text[128];
	struct sockaddr_storage sa;
	socklen_t				n = sizeof(sa);
	const char			   *colon = strrchr(config->listen, ':');

	if (listen_fd < 0 || config->listen[0] == '/' || colon == NULL ||
		getsockname(listen_fd, (struct sockaddr *) &sa, &n) != 0)
		return config->listen;
	snprintf(text, sizeof(text), "%.*s:%d", (int) (colon - config->listen), config->listen,
			 ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &sa)->sin6_port :
											  ((struct sockaddr_in *) &sa)->sin_port));
	return text;
}

/* As many file descriptors as there may be. */
static void
raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < (rlim_t) config->connections + 300)
	{
		config->connections = limit.rlim_cur > 332 ? (int) limit.rlim_cur - 300 : 32;
		log_message(LOG_WARNING, "the limit of open files allows %d connections only",
					config->connections);
	}
}

int
listen_open(void)
{
	const char *problem = NULL;
	int			fd;

	raise_limit();
	if (config->listen[0] == '/')
		fd = listen_unix(config->listen);
	else
		fd = listen_tcp(config->listen, &problem);
	if (fd < 0 || listen(fd, SOMAXCONN) != 0)
	{
		log_message(LOG_ERROR, "could not listen on \"%s\": %s", config->listen,
					problem ? problem : strerror(errno));
		return -1;
	}
	if (config->listen[0] != '/' && strncmp(config->listen, "127.", 4) != 0 &&
		strncmp(config->listen, "[::1]", 5) != 0 && strncmp(config->listen, "localhost:", 10) != 0)
		log_message(
			LOG_WARNING,
			"listening on \"%s\": what clients send is not encrypted, so nothing but a TLS proxy should "
			"reach it",
			config->listen);
	return fd;
}

void
listen_close(int fd)
{
	if (fd >= 0)
		close(fd);
	if (socket_path != NULL)
		unlink(socket_path);
}
