/*
 * flohsync.h
 *	  Names shared by every file of the extension.  Includes nothing heavy.
 *
 * Layers, lowest first; a file includes no header of a row above its own, and
 * none in a circle (test/layers checks it):
 *
 *	6  flohsync.c   hooks (hooks_log)   the SQL-callable entry points (sqlfn_*.c)
 *	5  launcher   worker
 *	4  run   pass   cache   invalidator
 *	3  store   apply   lookup   upsert   outbox
 *	2  http   outbound   redis   redact   crypto   source (kind_*, rest_*)   page   canonical   json   filter   ledger   cron   webhook
 *	1  wait   db   shmem   guc   clean
 *	0  compat.h   flohsync.h
 */
#ifndef FLOHSYNC_H
#define FLOHSYNC_H

#define FLOHSYNC_EXTENSION	"flohsync"
#define FLOHSYNC_SCHEMA		"flohsync"
#define FLOHSYNC_INTERNAL_SCHEMA	"_flohsync"	/* nobody but the extension looks into it */

/* Limits of a record (contract, section 3). */
#define FLOHSYNC_MAX_NAME_CHARS		255
#define FLOHSYNC_MAX_TYPE_BYTES		64
#define FLOHSYNC_MAX_NESTING		64
#define FLOHSYNC_MAX_EXPONENT		400
#define FLOHSYNC_MAX_NUMBER_CHARS	4000
#define FLOHSYNC_MAX_RECORD_BYTES	(8 * 1024 * 1024)
#define FLOHSYNC_MAX_PAGE_RECORDS	10000

#define FLOHSYNC_HASH_HEX			64

#endif							/* FLOHSYNC_H */
