-- validate_definition over a corpus of definitions, and what hangs on it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS flohsync;
\getenv folder PG_ABS_SRCDIR
\set definitions :folder /definitions.sql
\set ECHO none
\i :definitions
\set ECHO all

SELECT count(*) FILTER (WHERE expected IS NULL) >= 30 AS many_good, count(expected) >= 150 AS many_bad FROM corpus;

-- every good one has no fault, every bad one has its faults and no others
SELECT c.label, c.expected, f.faults
  FROM corpus c CROSS JOIN LATERAL (SELECT flohsync.validate_definition(c.definition) AS faults) f
 WHERE (SELECT coalesce(array_agg(x ->> 'pointer' ORDER BY x ->> 'pointer' COLLATE "C"), '{}') FROM jsonb_array_elements(f.faults) x)
       IS DISTINCT FROM (SELECT coalesce(array_agg(e ORDER BY e COLLATE "C"), '{}') FROM unnest(c.expected) e);
