-- Checks flohsync.cron_next.  Run it from the top of the source tree, in a
-- database with the extension:  psql -X -q -f test/cron/cron_check.sql
-- Each row printed says how many cases went wrong; all are 0.

SET timezone = 'UTC';
SET datestyle = 'ISO';

-- The next instant, or "refused".
CREATE FUNCTION pg_temp.next(schedule text, after timestamptz, zone text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN flohsync.cron_next(schedule, after, zone);
EXCEPTION WHEN invalid_parameter_value THEN
  RETURN 'refused';
END $$;

CREATE FUNCTION pg_temp.report(checked text, wrong text[])
RETURNS TABLE ("check" text, mismatches int) LANGUAGE plpgsql AS $$
DECLARE
  line text;
BEGIN
  FOREACH line IN ARRAY coalesce(wrong[1:20], '{}') LOOP
    RAISE WARNING '%', line;
  END LOOP;
  RETURN QUERY SELECT checked, coalesce(cardinality(wrong), 0);
END $$;

-- Against cron-parser, three instants in a row.
CREATE TEMP TABLE cron_sample (
  schedule text, start timestamptz, zone text,
  next1 timestamptz, next2 timestamptz, next3 timestamptz);
\copy cron_sample from 'test/cron/sample.psv' with (format csv, delimiter '|')

CREATE TEMP TABLE cron_wrong AS
SELECT format('%s from %s in %s: %s %s %s, expected %s %s %s', schedule, start, zone,
              got1, got2, got3, next1, next2, next3) AS line
FROM cron_sample,
  pg_temp.next(schedule, start, zone) AS got1,
  pg_temp.next(schedule, next1, zone) AS got2,
  pg_temp.next(schedule, next2, zone) AS got3
WHERE (got1, got2, got3) IS DISTINCT FROM (next1::text, next2::text, next3::text);

INSERT INTO cron_wrong SELECT 'the sample is empty' WHERE NOT EXISTS (SELECT FROM cron_sample);

SELECT * FROM pg_temp.report('sample', (SELECT array_agg(line) FROM cron_wrong));

-- Changes of the clock, by hand.  Each row: one run after another.
CREATE TEMP TABLE cron_change (schedule text, zone text, runs timestamptz[]);
INSERT INTO cron_change VALUES
-- 02:00 to 03:00 on 2026-03-29, 03:00 to 02:00 on 2026-10-25
('30 2 * * *', 'Europe/Berlin', '{2026-03-28 01:30, 2026-03-29 01:30, 2026-03-30 00:30}'),
('30 2,3 * * *', 'Europe/Berlin', '{2026-03-28 02:30, 2026-03-29 01:30, 2026-03-30 00:30}'),
('30 2 29 3 *', 'Europe/Berlin', '{2025-03-29 01:30, 2026-03-29 01:30, 2027-03-29 00:30}'),
('*/30 2 * * *', 'Europe/Berlin', '{2026-03-28 01:30, 2026-03-29 01:00, 2026-03-29 01:30, 2026-03-30 00:00}'),
('*/30 * * * *', 'Europe/Berlin', '{2026-03-29 00:00, 2026-03-29 00:30, 2026-03-29 01:00, 2026-03-29 01:30}'),
('0 * * * *', 'Europe/Berlin', '{2026-03-29 00:00, 2026-03-29 01:00, 2026-03-29 02:00}'),
('30 2 * * *', 'Europe/Berlin', '{2026-10-24 00:30, 2026-10-25 00:30, 2026-10-26 01:30}'),
('*/30 2 * * *', 'Europe/Berlin', '{2026-10-25 00:00, 2026-10-25 00:30, 2026-10-26 01:00}'),
('*/30 * * * *', 'Europe/Berlin', '{2026-10-25 00:00, 2026-10-25 00:30, 2026-10-25 01:00, 2026-10-25 01:30, 2026-10-25 02:00}'),
('0 * * * *', 'Europe/Berlin', '{2026-10-24 23:00, 2026-10-25 00:00, 2026-10-25 01:00, 2026-10-25 02:00}'),
('*/20 30 2 * * *', 'Europe/Berlin', '{2026-03-29 01:30:00, 2026-03-29 01:30:20, 2026-03-29 01:30:40, 2026-03-30 00:30}'),
-- midnight comes twice: 01:00 to 00:00 on 2022-11-06; 24:00 to 23:00 on 2022-04-02
('0 0 * * *', 'America/Havana', '{2022-11-05 04:00, 2022-11-06 04:00, 2022-11-07 05:00}'),
('30 * * * SUN', 'America/Havana', '{2022-11-06 04:30, 2022-11-06 05:30, 2022-11-06 06:30}'),
('30 23 * * *', 'America/Santiago', '{2022-04-02 02:30, 2022-04-03 02:30, 2022-04-04 03:30}'),
-- there is no midnight: 00:00 to 01:00 on 2022-09-11
('0 0 * * *', 'America/Santiago', '{2022-09-10 04:00, 2022-09-11 04:00, 2022-09-12 03:00}'),
('15 0 * * SUN', 'America/Santiago', '{2022-09-04 04:15, 2022-09-11 04:15, 2022-09-18 03:15}'),
-- the last hour of Saturday 2024-03-30 is skipped
('30 23 * * SAT', 'America/Nuuk', '{2024-03-24 01:30, 2024-03-31 01:30, 2024-04-07 00:30}'),
-- half an hour: 02:00 to 02:30 on 2022-10-02, 02:00 to 01:30 on 2022-04-03
('10 2 * * *', 'Australia/Lord_Howe', '{2022-09-30 15:40, 2022-10-01 15:40, 2022-10-02 15:10}'),
('40 2 * * *', 'Australia/Lord_Howe', '{2022-09-30 16:10, 2022-10-01 15:40, 2022-10-02 15:40}'),
('45 1 * * *', 'Australia/Lord_Howe', '{2022-04-01 14:45, 2022-04-02 14:45, 2022-04-03 15:15}'),
('*/15 * * * *', 'Australia/Lord_Howe', '{2022-04-02 14:30, 2022-04-02 14:45, 2022-04-02 15:00, 2022-04-02 15:15, 2022-04-02 15:30}'),
-- 02:45 to 03:45 on 2022-09-25
('0 3 * * *', 'Pacific/Chatham', '{2022-09-23 14:15, 2022-09-24 14:15, 2022-09-25 13:15}'),
-- 2011-12-30 does not exist
('0 9 30 * *', 'Pacific/Apia', '{2011-11-30 19:00, 2011-12-30 19:00, 2012-01-29 19:00}'),
('0 9 * * *', 'Pacific/Apia', '{2011-12-29 19:00, 2011-12-30 19:00, 2011-12-31 19:00}'),
-- no changes, and rare days
('0 0 29 2 *', 'UTC', '{2096-02-29 00:00, 2104-02-29 00:00}'),
('0 0 * 2 MON#5', 'UTC', '{2072-02-29 00:00, 2112-02-29 00:00}'),
('0 0 13 * FRI', 'UTC', '{2026-02-06 00:00, 2026-02-13 00:00, 2026-02-20 00:00, 2026-02-27 00:00, 2026-03-06 00:00, 2026-03-13 00:00}'),
('0 0 L 2 *', 'UTC', '{2027-02-28 00:00, 2028-02-29 00:00}'),
('30 seconds', 'Europe/Berlin', '{2026-03-29 00:59:45.25, 2026-03-29 01:00:15.25}'),
('* * * * * *', 'UTC', '{1969-12-31 23:59:59.5, 1970-01-01 00:00:00, 1970-01-01 00:00:01}'),
('0 0 1 1 *', 'UTC', '{infinity, NULL}'),
('* * * * *', 'UTC', '{-infinity, NULL}'),
('* * * * *', 'UTC', '{294276-12-31 23:59:59, NULL}'),
('* * * * *', 'UTC', '{4714-11-24 00:00:00 BC, NULL}');

SELECT * FROM pg_temp.report('clock changes', (
  SELECT array_agg(format('%s from %s in %s: %s, expected %s', schedule, runs[i], zone, got, runs[i + 1]))
  FROM cron_change, generate_series(1, cardinality(runs) - 1) AS i,
    pg_temp.next(schedule, runs[i], zone) AS got
  WHERE got IS DISTINCT FROM runs[i + 1]::text));

-- What is a schedule, and what is not.
CREATE TEMP TABLE cron_form (schedule text, accepted bool);
INSERT INTO cron_form SELECT unnest(ARRAY[
  '0 */6 * * *', '*/15 * * * * *', '5-10/2 * * * *', '10/20 * * * *',
  '0 0 1 JAN-MAR *', '0 0 1 jAn,DEC *', '0 0 * * mon', '0 0 ? * ?',
  E'  0  0\t* * * \n', '05 * * * *', '*/90 * * * *', '@hourly', '@daily',
  '@weekly', '@monthly', '@yearly', '@annually', '@midnight', '@minutely',
  '@secondly', '@weekdays', '@weekends', '@Daily', '0 0 L * *', '0 0 $ * *',
  '0 0 15,L * *', '0 0 * * 5L', '0 0 * * FRIL', '0 0 * * 1,5L',
  '0 0 * * MON#2', '0 0 * * MON#2,FRI#4', '0 0 * * 7', '0 0 * * 0-7',
  '0 0 * * 5-7', '0 0 * * FRI-SUN', '0 0 29 2 *', '0 0 31 1,2 *',
  '0 0 31 2 MON', '1 second', '5 seconds', '86400  Seconds']), true;
INSERT INTO cron_form SELECT unnest(ARRAY[
  '', '   ', '*', '* * * *', '* * * * * * *', '@reboot', '@every 5m', '@',
  '0 0 15W * *', '0 0 LW * *', '0 0 L-3 * *', '0 0 1L * *', '0 0 L,L * *',
  '0 22-2 * * *', '0 0 * * SAT-MON', '0 0 * * 0,7', '1,1 * * * *',
  '1-5,3 * * * *', '*,5 * * * *', '60 * * * *', '60 * * * * *', '0 24 * * *',
  '0 0 0 * *', '0 0 32 * *', '0 0 * 0 *', '0 0 * 13 *', '0 0 * * 8',
  '0 0 * * 1#6', '0 0 * * 1#0', '0 0 * * 1#', '0 0 * * #2', '0 0 * * *#2',
  '0 0 * * MON#2/2', '0 0 * * 1-5L', '0 0 * * L', '0 0 * * MONDAY',
  '0 0 * --- *', '0 0 MON * *', '0 0 * MON *', '0 0 31 2 *', '0 0 30 2 *',
  '0 0 31 4,6 *', 'H * * * *', 'H/5 * * * *', '-5 * * * *', '5- * * * *',
  '1-2-3 * * * *', '*-5 * * * *', '** * * * *', '*/ * * * *', '*/0 * * * *',
  '*/2/3 * * * *', '/5 * * * *', '1,,2 * * * *', ',1 * * * *', '1, * * * *',
  '+5 * * * *', '1.5 * * * *', '1e1 * * * *', 'é * * * *',
  '99999999999999999999 * * * *', '0 seconds', '86401 seconds', '-5 seconds',
  '5 minutes', '5seconds', repeat('1,', 600) || '1 * * * *']), false;

SELECT * FROM pg_temp.report('forms', (
  SELECT array_agg(format('%s gives %s', schedule, got))
  FROM cron_form, pg_temp.next(schedule, '2026-01-01', 'UTC') AS got
  WHERE (got IS NOT NULL AND got <> 'refused') <> accepted));
