/*
 * main.c
 *	  flohsync-http: serves the routes of route_table.c out of a database that has the
 *	  extension flohsync.
 *
 * What happens to a request: server.c (its bytes) -> framing.c -> request.c (its route,
 * cors.c, auth.c) -> params.c -> db.c (one transaction) -> answer.c -> server.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "auth.h"
#include "buf.h"
#include "config.h"
#include "events.h"
#include "json_text.h"
#include "log.h"
#include "loop.h"
#include "openapi.h"
#include "routes.h"
#include "server.h"
#include "trigger.h"

/* Of base/standalone.h: nothing that we use raises an error. */
jmp_buf *standalone_catch;

static const char *config_path;
static Watch	   signal_watch;
static bool		   stop_asked;

static void
usage(FILE *out)
{
	fputs(
		"flohsync-http serves the REST interface of flohsync.\n\n"
		"Usage:\n"
		"  flohsync-http [--config FILE]            serve\n"
		"  flohsync-http [--config FILE] --check    say what is wrong with the settings, if anything\n"
		"  flohsync-http --settings                 list the settings, as a table in Markdown\n"
		"  flohsync-http --routes                   list the routes, likewise\n"
		"  flohsync-http [--config FILE] --openapi  write the OpenAPI document\n"
		"  flohsync-http --version\n\n"
		"Variables FLOHSYNC_HTTP_NAME of the environment come before the file.\n"
		"SIGHUP reads the settings again; SIGTERM lets requests finish, then ends.\n",
		out);
}

static void
apply_log_settings(void)
{
	static const char *const names[] = {"error", "warning", "info", "request"};

	for (int i = 0; i < 4; i++)
	{
		if (strcmp(config->log_level, names[i]) == 0)
			log_settings(strcmp(config->log_format, "json") == 0, (LogLevel) i);
	}
}

static void
reload(void)
{
	char	error[CONFIG_ERROR_SIZE];
	Config *read = config_read(config_path, error);
	char   *kept;

	if (read == NULL)
	{
		log_message(LOG_ERROR, "the settings are as before: %s", error);
		return;
	}
	kept = config_keep(read, config);
	if (kept != NULL)
		log_message(LOG_WARNING, "these settings change with a restart only: %s", kept);
	free(kept);
	config_free(config);
	config = read;
	apply_log_settings();
	auth_reload();
	openapi_make();
	log_message(LOG_INFO, "the settings were read");
}

static void
on_signal(void *arg, uint32_t events)
{
	struct signalfd_siginfo info;
	int						fd = *(int *) arg;

	(void) events;
	while (read(fd, &info, sizeof(info)) == sizeof(info))
	{
		if (info.ssi_signo == SIGHUP)
			reload();
		else
			stop_asked = true;
	}
}

static int
catch_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void
notified(const char *channel, const char *payload)
{
	if (strcmp(channel, "flohsync_api_token") == 0)
	{
		auth_forget_tokens();
		events_forget_tokens();
	}
	else if (strcmp(channel, "flohsync_run") == 0)
	{
		const JsonParser *json = json_read(payload, strlen(payload));
		long long		  run;

		if (json != NULL && json->nodes[JSON_ROOT].type == JSON_OBJECT &&
			json_number_member(json, JSON_ROOT, "id", &run))
			trigger_notified(run);
	}
}

static void
listening(void)
{
	auth_forget_tokens();
	events_forget_tokens();
	trigger_look_at_all();
}

static int64_t
shorter(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Requests on the way have their time; then the connections go. */
static void
stop(void)
{
	int64_t until = clock_ms() + config->stop_timeout * 1000;

	log_message(LOG_INFO, "stopping: %d requests are on the way", server_numbers().active);
	server_quiesce();
	events_stop();
	trigger_stop();
	while (server_numbers().active > 0 && clock_ms() < until)
	{
		int64_t most = server_turn();

		loop_turn(shorter(most, 100));
	}
	for (int i = 0; i < 10; i++)
		server_turn();
	if (server_numbers().active > 0)
	{
		/* The library must not be ended with connections that are suspended. */
		log_message(LOG_WARNING, "%d requests did not finish in time", server_numbers().active);
		exit(0);
	}
	server_stop();
	db_stop();
	log_message(LOG_INFO, "stopped");
}

static int
serve(void)
{
	static int signal_fd;
	LogField   f[1];

	if (geteuid() == 0)
	{
		fputs("flohsync-http: must not run as root: start it as a user of its own\n", stderr);
		return 1;
	}
	signal_fd = catch_signals();
	if (signal_fd < 0)
	{
		fprintf(stderr, "flohsync-http: could not watch for signals: %s\n", strerror(errno));
		return 1;
	}
	loop_start();
	loop_watch(&signal_watch, signal_fd, EPOLLIN, on_signal, &signal_fd);
	routes_start();
	openapi_make();
	if (!auth_start() || !db_start(notified, listening) || !server_start())
		return 1;
	trigger_start();
	events_start();
	f[0] = LOG_TEXT("listen", server_address());
	log_line(LOG_INFO, "flohsync-http " FLOHSYNC_VERSION " is ready", f, 1);
	while (!stop_asked)
	{
		int64_t most = server_turn();

		loop_turn(most);
	}
	stop();
	return 0;
}

int
main(int argc, char **argv)
{
	char		error[CONFIG_ERROR_SIZE];
	const char *what = NULL;

	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			config_path = argv[++i];
		else if (strncmp(argv[i], "--config=", 9) == 0)
			config_path = argv[i] + 9;
		else if (strcmp(argv[i], "--help") == 0)
		{
			usage(stdout);
			return 0;
		}
		else if (strcmp(argv[i], "--version") == 0)
		{
			puts("flohsync-http " FLOHSYNC_VERSION);
			return 0;
		}
		else if (strcmp(argv[i], "--settings") == 0)
		{
			config_print(stdout);
			return 0;
		}
		else if (strcmp(argv[i], "--routes") == 0)
		{
			routes_print(stdout);
			return 0;
		}
		else if (strcmp(argv[i], "--check") == 0 || strcmp(argv[i], "--openapi") == 0)
			what = argv[i] + 2;
		else
		{
			usage(stderr);
			return 1;
		}
	}
	if (what != NULL && strcmp(what, "openapi") == 0 && config_path == NULL &&
		getenv("FLOHSYNC_HTTP_DB") == NULL)
		setenv("FLOHSYNC_HTTP_DB", "dbname=flohsync", 0);
	config = config_read(config_path, error);
	if (config == NULL)
	{
		fprintf(stderr, "flohsync-http: %s\n", error);
		return 1;
	}
	apply_log_settings();
	if (what != NULL && strcmp(what, "openapi") == 0)
	{
		routes_start();
		openapi_make();
		openapi_print(stdout);
		return 0;
	}
	if (what != NULL)
	{
		if (!auth_start())
			return 1;
		puts("The settings can be used.");
		return 0;
	}
	return serve();
}
