/*
 * error_class.h
 *	  Kinds of errors, for machines: the only list of them.
 *
 * SQL reads it as _flohsync.error_classes(), doc/reference.md shows it.  A name
 * never changes its meaning: whoever watches runs goes by it.
 */
#ifndef FLOHSYNC_ERROR_CLASS_H
#define FLOHSYNC_ERROR_CLASS_H

/* Is a request that failed so sent again within its run? */
typedef enum ErrorRetry
{
	RETRY_NEVER,
	RETRY_SOMETIMES, /* who meets it knows: by the status, or as the answer was cut */
	RETRY_ALWAYS,
} ErrorRetry;

/*
 * Of runs: what ends one, and what of it is also told of a single request.
 * X(id, name, within the run, a schedule's run is tried again, its pass is gone on with, meaning)
 */
#define ERROR_CLASSES_OF_RUNS(X) \
	X(AUTH, "auth", RETRY_SOMETIMES, false, true, \
	  "the credentials are refused: status 401 or 403, or the token endpoint gives no token;" \
	  " 403 is asked again where `retry.on_status` names it") \
	X(BAD_ANSWER, "bad_answer", RETRY_SOMETIMES, true, true, \
	  "an answer is not what was asked for; only one that was cut is asked for again within the run") \
	X(BLOCKED_ADDRESS, "blocked_address", RETRY_NEVER, false, true, \
	  "an address, or that of a link, is one to which nothing is sent") \
	X(CANCELLED, "cancelled", RETRY_NEVER, false, false, "somebody stopped the run") \
	X(CONFIGURATION, "configuration", RETRY_NEVER, false, false, \
	  "the connector, its definition or the configuration cannot be used, is disabled or is gone") \
	X(CRASH_LOOP, "crash_loop", RETRY_NEVER, false, false, \
	  "the worker died three times on the same page; the schedules stand still until" \
	  " somebody asks for a run") \
	X(DATABASE, "database", RETRY_NEVER, true, true, \
	  "an error of PostgreSQL, also in a query, function or trigger of others") \
	X(HTTP_STATUS, "http_status", RETRY_SOMETIMES, true, true, \
	  "any other status that is no success, or a redirect that is not followed; asked again" \
	  " within the run at 202, 408, 425, 500, 502, 503 and 504, or those of `retry.on_status`") \
	X(INTERNAL, "internal", RETRY_NEVER, false, true, "an error that should not happen") \
	X(NETWORK, "network", RETRY_ALWAYS, true, true, "no connection, or one that broke") \
	X(NOT_FOUND, "not_found", RETRY_SOMETIMES, false, true, \
	  "status 404 or 410; asked again where `retry.on_status` names it") \
	X(PAGE_MEMORY, "page_memory", RETRY_NEVER, false, true, \
	  "a page takes more than `flohsync.page_memory`") \
	X(PAGINATION_LOOP, "pagination_loop", RETRY_NEVER, false, false, \
	  "the upstream's pages go in circles, or do not end") \
	X(PROTOCOL, "protocol", RETRY_ALWAYS, true, true, \
	  "an answer that is cut or garbled, by HTTP or as an answer of the command protocol") \
	X(SAFEGUARD, "safeguard", RETRY_NEVER, false, false, \
	  "the run is held: it would mark too many records stale, or deactivate too many users;" \
	  " of a webhook: the user was not deactivated") \
	X(SECRET, "secret", RETRY_NEVER, false, true, \
	  "a secret cannot be decrypted, or belongs to another address") \
	X(THROTTLED, "throttled", RETRY_ALWAYS, true, true, \
	  "the upstream asks for fewer requests: status 429, or what the definition says of it") \
	X(TIMEOUT, "timeout", RETRY_ALWAYS, true, true, "no answer in time") \
	X(TLS, "tls", RETRY_NEVER, true, true, \
	  "the upstream's certificate, or its TLS, is not accepted") \
	X(TOO_LARGE, "too_large", RETRY_NEVER, false, true, \
	  "an answer, a cursor, a link, a token or a record is larger than its limit") \
	X(UPSTREAM, "upstream", RETRY_SOMETIMES, true, true, \
	  "the upstream answers that it failed; of kind `rest` it is asked again within the run")

/*
 * Of records, and of what follows for one: it is set aside or left undone, and the run goes on.
 * X(id, name, meaning); of the first ones the meaning is the message that they get.
 */
#define ERROR_CLASSES_OF_RECORDS(X) \
	X(EXTERNAL_ID_MISSING, "external_id_missing", "externalId is missing") \
	X(EXTERNAL_ID_EMPTY, "external_id_empty", "externalId is empty") \
	X(EXTERNAL_ID_TOO_LONG, "external_id_too_long", "externalId is longer than 255 characters") \
	X(EXTERNAL_ID_TYPE, "external_id_type", "externalId is neither a string nor an integer") \
	X(DISPLAY_NAME_TYPE, "display_name_type", "displayName is not a string") \
	X(EMAIL_TYPE, "email_type", "email is not a string") \
	X(EMAIL_TOO_LONG, "email_too_long", "email is longer than 255 characters") \
	X(ATTRIBUTES_TYPE, "attributes_type", "attributes is not an object") \
	X(RECORD_TYPE, "record_type", "the record is not an object") \
	X(NUL_CHARACTER, "nul_character", "a string contains the character U+0000") \
	X(INVALID_UNICODE, "invalid_unicode", "a string contains an unpaired surrogate") \
	X(INVALID_UTF8, "invalid_utf8", "the record is not valid UTF-8") \
	X(NESTING_TOO_DEEP, "nesting_too_deep", "values are nested more than 64 levels deep") \
	X(NUMBER_OUT_OF_RANGE, "number_out_of_range", \
	  "a number has more than 4000 characters or an exponent over 400") \
	X(RECORD_TOO_LARGE, "record_too_large", \
	  "the record is larger than 8 MB, perhaps only with its numbers written out") \
	X(TOO_MANY_VALUES, "too_many_values", \
	  "the record has so many values that storing it would take more than half of" \
	  " flohsync.page_memory") \
	X(PARTIAL_UNKNOWN, "partial_unknown", \
	  "only the changes of a record were received, and the record is not stored") \
	X(CREATE_USER, "create_user", "no user could be created of the record") \
	X(MAPPING, "mapping", "a value of the record cannot be a value of the profile field") \
	X(POST_SYNC, "post_sync", "a stage of post-sync processing failed")

#define ERRCLASS_ID(id, ...) ERRCLASS_##id,

typedef enum ErrorClass
{
	ERRCLASS_NONE = 0,
	ERROR_CLASSES_OF_RUNS(ERRCLASS_ID) ERROR_CLASSES_OF_RECORDS(ERRCLASS_ID) ERRCLASS_END
} ErrorClass;

#undef ERRCLASS_ID

typedef struct ErrorClassEntry
{
	const char *name;
	bool		of_records;
	ErrorRetry	retry;
	bool		schedule_retries;
	bool		keeps_cursor;
	const char *meaning;
} ErrorClassEntry;

/* The entry of ERRCLASS_NONE has no name. */
extern const ErrorClassEntry error_class_entries[ERRCLASS_END];

static inline const char *
error_class_name(ErrorClass error_class)
{
	return error_class_entries[error_class].name;
}

/* May the same request fare better a moment later, as far as the class tells? */
static inline bool
error_class_retries(ErrorClass error_class)
{
	return error_class_entries[error_class].retry == RETRY_ALWAYS;
}

#endif /* FLOHSYNC_ERROR_CLASS_H */
