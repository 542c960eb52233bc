/*
 * guc_file.c
 *	  Files with secrets, which settings name.
 *
 * Such a file must be a regular file and not a link, owned by the server's user
 * and inaccessible to others, or owned by root and accessible to its group only
 * (as PostgreSQL requires for TLS keys).  It is read whenever it is needed, so
 * that changes take effect immediately.  No error is raised, and its contents
 * are never reported.
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/guc_file.h"

static const char *
file_problem(const struct stat *st)
{
	bool is_root = st->st_uid == 0;

	if (!S_ISREG(st->st_mode))
		return "it is not a regular file";
	if (st->st_uid != geteuid() && !is_root)
		return "it is owned neither by the server's user nor by root";
	if (st->st_mode & (is_root && geteuid() != 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO))
		return "users other than its owner have access to it; its mode must be 0600";
	return NULL;
}

ssize_t
guc_file_read(const char *path, char *buffer, size_t size, const char **problem)
{
	struct stat st;
	size_t		got = 0;
	ssize_t		n;
	int			fd;

	*problem = NULL;
	/* Not blocking: it may be a pipe without a writer. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		*problem = errno == ELOOP ? "it is a symbolic link" : strerror(errno);
	else if (fstat(fd, &st) != 0)
		*problem = strerror(errno);
	else
		*problem = file_problem(&st);
	while (*problem == NULL && got < size)
	{
		n = read(fd, buffer + got, size - got);
		if (n > 0)
			got += n;
		else if (n == 0)
			break;
		else if (errno != EINTR)
			*problem = strerror(errno);
	}
	if (fd >= 0)
		close(fd);
	return *problem ? -1 : (ssize_t) got;
}
