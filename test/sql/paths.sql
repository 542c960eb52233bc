-- What test/unit holds the paths of kind rest to is what PostgreSQL finds.
\getenv srcdir PG_ABS_SRCDIR
\cd :srcdir
CREATE TEMP TABLE path_case (path text, document text, found text);
\copy path_case FROM 'data/paths.tsv' WITH (FORMAT csv, DELIMITER E'\t', QUOTE E'\x01')
SELECT count(*) > 300 AS whole FROM path_case;
SELECT path, document, found, jsonb_path_query_array(document::jsonb, path::jsonpath, '{}', true) AS finds
  FROM path_case
 WHERE jsonb_path_query_array(document::jsonb, path::jsonpath, '{}', true) IS DISTINCT FROM found::jsonb;
