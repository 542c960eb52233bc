/*
 * upstream.c
 *	  A small directory service that speaks the protocol of connector kind
 *	  "command", for tests, the demo and the benchmark: any number of
 *	  deterministic records, changes on request, and faults on request.
 *
 * One thread of libmicrohttpd reads and answers requests.  An answer that is
 * held, or that breaks the protocol, is sent by a thread of its own (wire.c),
 * so that it keeps no other request waiting.
 */
#include "auth.h"
#include "data.h"
#include "journal.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static enum MHD_Result
handle(void *closure, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *upload, size_t *upload_size, void **request)
{
	call *c = *request;

	(void) closure;
	(void) version;
	c->connection = connection;
	if (!c->begun)
	{
		c->begun = true;
		return MHD_YES;
	}
	c->url = url;
	c->method = method;
	if (c->stage == CALL_CLOSE)
		return MHD_NO;
	if (c->stage == CALL_DELIVER)
		return answer_send(c);
	if (*upload_size > 0)
	{
		buf_put(&c->body, upload, *upload_size);
		*upload_size = 0;
		return MHD_YES;
	}
	if (strncmp(url, "/_control/", 10) == 0)
		return control_run(c);
	if (strncmp(url, "/rest/", 6) == 0)
		return rest_run(c);
	if (strncmp(url, "/oauth/", 7) == 0)
		return token_run(c);
	return command_run(c);
}

/* A request has begun: what the handler gets as its request. */
static void *
begin(void *closure, const char *uri, struct MHD_Connection *connection)
{
	call *c = must_alloc(sizeof(call));

	(void) closure;
	c->connection = connection;
	c->uri = must_strdup(uri);
	return c;
}

static void
completed(void *closure, struct MHD_Connection *connection, void **request,
		  enum MHD_RequestTerminationCode how)
{
	call *c = *request;

	(void) closure;
	(void) connection;
	(void) how;
	if (c == NULL)
		return;
	journal_completed(c);
	buf_free(&c->body);
	free(c->uri);
	answer_free(&c->answer);
	free(c);
	*request = NULL;
}

static void
connection_event(void *closure, struct MHD_Connection *connection, void **mark,
				 enum MHD_ConnectionNotificationCode what)
{
	(void) closure;
	(void) connection;
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		*mark = journal_connection_opened();
	else
	{
		journal_connection_closed(*mark);
		*mark = NULL;
	}
}

/* Write the port for whoever started us; the file is there whole or not at all. */
static bool
write_port(const char *path, unsigned port)
{
	char  temporary[4096];
	FILE *f;

	if ((size_t) snprintf(temporary, sizeof(temporary), "%s.new", path) >= sizeof(temporary))
		return false;
	f = fopen(temporary, "w");
	if (f == NULL)
		return false;
	fprintf(f, "%u\n", port);
	return fclose(f) == 0 && rename(temporary, path) == 0;
}

static struct MHD_Daemon *
start(unsigned port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_SUPPRESS_DATE_NO_CLOCK,
		(uint16_t) port, NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, &address,
		MHD_OPTION_URI_LOG_CALLBACK, begin, NULL, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, connection_event, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t) 65536, MHD_OPTION_CONNECTION_LIMIT, 2000u, MHD_OPTION_END);
}

static void
usage(FILE *out)
{
	fputs(
		"usage: upstream [--port N] [--port-file FILE] [--records user=1000,group=50] [--seed N]\n"
		"                [--ids seq|random] [--page-cache] [--die-with-parent]\n",
		out);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {{"port", required_argument, NULL, 'p'},
											{"port-file", required_argument, NULL, 'f'},
											{"records", required_argument, NULL, 'r'},
											{"seed", required_argument, NULL, 's'},
											{"ids", required_argument, NULL, 'i'},
											{"page-cache", no_argument, NULL, 'c'},
											{"die-with-parent", no_argument, NULL, 'd'},
											{"help", no_argument, NULL, 'h'},
											{NULL, 0, NULL, 0}};
	unsigned				   port = 0;
	const char				  *port_file = NULL;
	char					   error[256];
	struct MHD_Daemon		  *daemon;
	pid_t					   parent = getppid();
	sigset_t				   signals;
	int						   option;
	int						   got;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option)
		{
			case 'p':
				port = (unsigned) strtoul(optarg, NULL, 10);
				if (port > 65535)
				{
					fputs("upstream: no such port\n", stderr);
					return 64;
				}
				break;
			case 'f':
				port_file = optarg;
				break;
			case 'r':
				control_default_records = optarg;
				break;
			case 's':
				data_seed = strtoull(optarg, NULL, 10);
				break;
			case 'i':
				data_random_ids = strcmp(optarg, "random") == 0;
				if (!data_random_ids && strcmp(optarg, "seq") != 0)
				{
					usage(stderr);
					return 64;
				}
				break;
			case 'c':
				commands_page_cache = true;
				break;
			case 'd':
				prctl(PR_SET_PDEATHSIG, SIGTERM);
				if (getppid() != parent)
					return 0; /* it is gone already */
				break;
			case 'h':
				usage(stdout);
				return 0;
			default:
				usage(stderr);
				return 64;
		}

	/* Signals are waited for below; every thread inherits that they are blocked. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	if (!control_reset(error, sizeof(error)))
	{
		fprintf(stderr, "upstream: %s\n", error);
		return 64;
	}
	daemon = start(port);
	if (daemon == NULL)
	{
		fprintf(stderr, "upstream: cannot listen on 127.0.0.1:%u\n", port);
		return 69;
	}
	port = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
	if (port_file != NULL && !write_port(port_file, port))
	{
		perror(port_file);
		return 73;
	}
	printf("listening on 127.0.0.1:%u\n", port);
	fflush(stdout);

	/* Held answers have threads that wait; nothing of them is worth an orderly end. */
	sigwait(&signals, &got);
	_exit(0);
}
