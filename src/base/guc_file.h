/*
 * guc_file.h
 *	  Files that hold a secret, which settings name.  See guc_file.c.
 */
#ifndef FLOHSYNC_GUC_FILE_H
#define FLOHSYNC_GUC_FILE_H

/*
 * guc_file_read reads the beginning of a file, as much as there is room for;
 * -1: *problem says why it is not used.  Wipe what it gives.
 */
extern ssize_t guc_file_read(const char *path, char *buffer, size_t size, const char **problem);

#endif /* FLOHSYNC_GUC_FILE_H */
