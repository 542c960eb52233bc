/*
 * pace.c
 *	  When a source may send its next request.
 *
 * Three limits apply: the connector's own limit of requests per minute, and what an
 * upstream asked for in an answer whose turn has not come yet (paused_until), which
 * are always waited for; and an upstream's statement when its limit is reset
 * (not_before), which is waited for only up to a maximum.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/wait.h"
#include "source/source.h"

/* Milliseconds until the connector's own limit lets the next request go. */
static int64
pace_own_ms(const Source *source)
{
	if (source->requests_per_minute <= 0 || source->paced_until == 0)
		return 0;
	/* Never longer than the distance of two requests, whatever became of the clock. */
	return Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), source->paced_until),
			   60000 / source->requests_per_minute + 1);
}

/* source_pace_sent notes that a request is sent now. */
void
source_pace_sent(Source *source)
{
	if (source->requests_per_minute > 0)
		source->paced_until = GetCurrentTimestamp() +
			USECS_PER_MINUTE / source->requests_per_minute;
}

/* source_pace_ms is how many milliseconds it is until the next request may be sent. */
long
source_pace_ms(const Source *source)
{
	TimestampTz now = GetCurrentTimestamp();
	long		ms = TimestampDifferenceMilliseconds(now, source->not_before);

	ms = Max(ms, TimestampDifferenceMilliseconds(now, source->paused_until));
	return Max(ms, (long) pace_own_ms(source));
}

/* source_pace_ready: may the next request be sent at once? */
bool
source_pace_ready(const Source *source)
{
	return source_pace_ms(source) == 0;
}

/*
 * source_pace_wait waits until the next request may be sent and returns 0; or,
 * without waiting, how many milliseconds it would be, when that is too long.
 */
int64
source_pace_wait(const Source *source)
{
	int64 ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), source->not_before);

	if (ms > (int64) flohsync_http_max_retry_wait * 1000)
		return ms;
	ms = Max(ms, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), source->paused_until));
	ms = Max(ms, pace_own_ms(source));
	if (ms > 0)
		wait_ms((long) ms, WAIT_RETRY);
	return 0;
}
