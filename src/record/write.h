/*
 * write.h
 *	  The rules by which a write of a record gives way: each is here, and nowhere
 *	  else in C.  As parts of statements; the arguments are texts of SQL.
 *
 * What functions in SQL go by is _flohsync.is_news (sql/61_record_write.sql).
 * test/t/092_record_rules.t holds the two together.
 */
#ifndef FLOHSYNC_RECORD_WRITE_H
#define FLOHSYNC_RECORD_WRITE_H

#include "datatype/timestamp.h"

/*
 * Is the stored row r no newer than what was observed, and than the event that
 * says so (null: none does)?  A row that is not stale was confirmed when the last
 * complete full pass began (null: there was none).  A stored time in the future
 * is that of a clock which was set back since: it keeps nothing out.
 */
#define RECORD_IS_OLDER(r, observed_at, event_at, confirmed_at) \
	"(greatest(" r ".observed_at, case when " r ".stale_since is null then " confirmed_at " end)" \
	" <= " observed_at " or " r ".observed_at > pg_catalog.clock_timestamp())" \
	" and coalesce(" r ".event_at <= " event_at ", true)"

/*
 * The same of a row that was read; an event that is not known is DT_NOBEGIN for the row,
 * 0 for what was observed, and no complete full pass is 0, too.
 */
static inline bool
record_is_older(TimestampTz stored_observed_at, TimestampTz stored_event_at, bool stale,
				TimestampTz observed_at, TimestampTz event_at, TimestampTz confirmed_at,
				TimestampTz now)
{
	TimestampTz known_at = stale || confirmed_at == 0 ? stored_observed_at :
														Max(stored_observed_at, confirmed_at);

	return (known_at <= observed_at || stored_observed_at > now) &&
		(event_at == 0 || stored_event_at <= event_at);
}

/*
 * Does a tombstone stand against what was observed, or against the event that
 * says so (null: none does)?  One from the future is that of such a clock, too.
 */
#define RECORD_HAS_TOMBSTONE(connector, type, external_id, observed_at, event_at) \
	"exists (select from _flohsync.resource_tombstone t where t.connector_id = " connector \
	" and t.resource_type = " type " and t.external_id = " external_id " collate \"C\"" \
	" and ((t.deleted_at > " observed_at " and t.deleted_at <= pg_catalog.clock_timestamp())" \
	" or t.event_at > " event_at "))"

/*
 * The same of a tombstone that was read; an event that is not known is DT_NOBEGIN
 * for the deletion, 0 for what was observed.
 */
static inline bool
record_tombstone_stands(TimestampTz deleted_at, TimestampTz deletion_event_at,
						TimestampTz observed_at, TimestampTz event_at, TimestampTz now)
{
	return (deleted_at > observed_at && deleted_at <= now) ||
		(event_at != 0 && deletion_event_at > event_at);
}

#endif /* FLOHSYNC_RECORD_WRITE_H */
