-- What the code lists once, against the tables of the documents, wherever these
-- are.  Prints a line for each comparison: its name, and what is wrong, if
-- anything.
\set ON_ERROR_STOP 1
\set QUIET 1
SET client_min_messages = warning;
CREATE TEMP TABLE doc (j jsonb);
\copy doc FROM pstdin (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02')
CREATE TEMP VIEW doc_row AS
SELECT d.* FROM doc, jsonb_to_record(j) AS d(tab int, line int, file text, header text, cells text[]);
-- A first cell may name several.
CREATE TEMP VIEW doc_name AS
SELECT r.*, m[1] AS name, r.cells[1] = '`' || m[1] || '`' AS alone FROM doc_row r, regexp_matches(r.cells[1], '`([^`]+)`', 'g') m;
-- Names in camelCase are of no other tables.
CREATE TEMP VIEW doc_key AS
SELECT n.* FROM doc_name n
 WHERE n.tab IN (SELECT o.tab FROM doc_name o JOIN _flohsync.config_keys() k ON k.key = o.name AND k.key ~ '[A-Z]'
                  GROUP BY o.tab HAVING count(*) > 1);
SELECT flohsync.create_connector('doc', 'command', '{"url": "https://directory.example", "commands": []}') IS NULL AS made \gset

SELECT 'every key of a configuration has a row', coalesce(string_agg(k.key, ' '), '') FROM _flohsync.config_keys() k
 WHERE k.key NOT IN (SELECT d.name FROM doc_key d);
SELECT 'no other has one there', coalesce(string_agg(d.name, ' '), '') FROM doc_key d
 WHERE d.name NOT IN (SELECT k.key FROM _flohsync.config_keys() k);
-- `value` is the default as it can be given; anything else is an explanation.  What null means may be told as well.
SELECT 'the defaults are those that are written there', coalesce(string_agg(d.key || ' ' || d.told::text, ' '), '')
  FROM (SELECT k.*, CASE k.json_type WHEN 'string' THEN to_jsonb(m[1]) ELSE m[1]::jsonb END AS told
          FROM doc_key r JOIN _flohsync.config_keys() k ON k.key = r.name AND r.alone
         CROSS JOIN LATERAL regexp_match(r.cells[2], '^`([^`]+)`$') m
         WHERE r.header LIKE '% | Default | %' AND m IS NOT NULL) d
 WHERE d.initial <> 'null'
   AND flohsync.configure_sync('doc', 'user', jsonb_build_object(d.key, d.told)) -> d.key <> d.initial;
SELECT 'the match strategies have rows, in their order',
       CASE count(*) WHEN 0 THEN 'there is no table of them'
            ELSE coalesce(string_agg(array_to_string(t.names, ' '), '; ')
                            FILTER (WHERE t.names <> _flohsync.match_strategy_names()), '') END
  FROM (SELECT array_agg(n.name ORDER BY n.line) AS names FROM doc_name n
         WHERE n.alone AND n.tab IN (SELECT o.tab FROM doc_name o WHERE o.alone AND o.name = 'email_and_issuer')
         GROUP BY n.tab) t;

-- Tables with exactly these rows.
CREATE FUNCTION pg_temp.listed(_header text, _rows text[]) RETURNS text LANGUAGE sql AS $$
  SELECT CASE WHEN NOT EXISTS (SELECT FROM doc_row r WHERE r.header = _header) THEN 'no document has this table'
              ELSE coalesce(string_agg(format('%s %s', CASE WHEN d.is IS NULL THEN 'lacks' ELSE 'has' END,
                                              coalesce(d.is, w.shall)), '; '), '') END
    FROM (SELECT array_to_string(r.cells, ' | ') AS is FROM doc_row r WHERE r.header = _header) d
    FULL JOIN unnest(_rows) w(shall) ON w.shall = d.is
   WHERE d.is IS NULL OR w.shall IS NULL
$$;
SELECT 'the classes of errors of runs',
       pg_temp.listed('Class | Asked again within the run | Run tried again by the schedule | Pass gone on with | Meaning',
                      array_agg(format('`%s` | %s | %s | %s | %s', e.class, e.retried_within_run,
                                       CASE WHEN e.retried_by_schedule THEN 'yes' ELSE 'no' END,
                                       CASE WHEN e.keeps_cursor THEN 'yes' ELSE 'no' END, e.meaning)))
  FROM _flohsync.error_classes() e WHERE NOT e.of_records;
SELECT 'the classes of errors of records',
       pg_temp.listed('Class | What is wrong with the record', array_agg(format('`%s` | %s', e.class, e.meaning)))
  FROM _flohsync.error_classes() e WHERE e.of_records;
SELECT 'what is counted of records',
       pg_temp.listed('Counter | What it counts', array_agg(format('`%s` | %s', c.counter, c.meaning)))
  FROM _flohsync.page_counters() c WHERE c.in_stats;
