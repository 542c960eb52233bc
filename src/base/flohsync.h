/*
 * flohsync.h
 *	  Names shared by every file of the extension.  Includes nothing heavy.
 *
 * The floors, lowest first, are in src/README.md.
 */
#ifndef FLOHSYNC_H
#define FLOHSYNC_H

#define FLOHSYNC_EXTENSION		 "flohsync"
#define FLOHSYNC_SCHEMA			 "flohsync"
#define FLOHSYNC_INTERNAL_SCHEMA "_flohsync"	/* internal objects */
#define FLOHSYNC_API_SCHEMA		 "flohsync_api" /* what HTTP serves */

/* Roles of the extension's own, beside that of flohsync.worker_role; none can log in. */
#define FLOHSYNC_OWNER_ROLE	 "flohsync_owner"  /* owns tables and functions */
#define FLOHSYNC_NOBODY_ROLE "flohsync_nobody" /* has no rights */

/* Limits of a record (contract, section 3). */
#define FLOHSYNC_MAX_NAME_CHARS	  255
#define FLOHSYNC_MAX_TYPE_BYTES	  64
#define FLOHSYNC_MAX_NESTING	  64
#define FLOHSYNC_MAX_EXPONENT	  400
#define FLOHSYNC_MAX_NUMBER_CHARS 4000
#define FLOHSYNC_MAX_RECORD_BYTES (8 * 1024 * 1024)

/*
 * Limits of what an upstream sends.  What passes one is an error that names it;
 * where it is about one record, that record is set aside.  All that a page takes
 * together is bounded by flohsync.page_memory (memory_page.c), and an answer's
 * size by flohsync.http_max_response_size.
 */
#define FLOHSYNC_MAX_PAGE_RECORDS 10000
#define FLOHSYNC_MAX_PAGE_DELETED 100000 /* entries of payload.deleted */
#define FLOHSYNC_MAX_CURSOR_BYTES 16384
#define FLOHSYNC_MAX_LINK_BYTES	  8000	/* a URL: one that an answer gives, and one that is asked */
#define FLOHSYNC_MAX_TOKEN_BYTES  16384 /* an access token */
#define FLOHSYNC_MAX_TOKEN_ANSWER 65536 /* what a token endpoint answers */
#define FLOHSYNC_MAX_HEADER_BYTES 65536 /* all headers of an answer together */
#define FLOHSYNC_MAX_HEADERS	  500
#define FLOHSYNC_MAX_ERROR_BYTES  1024	/* reported part of an upstream's reason */
#define FLOHSYNC_MAX_ERROR_BODY	  65536 /* examined part of an error answer */

/* Records in one call of upsert_resources(). */
#define FLOHSYNC_MAX_UPSERT_RECORDS 1000000

#define FLOHSYNC_HASH_HEX 64

#endif /* FLOHSYNC_H */
